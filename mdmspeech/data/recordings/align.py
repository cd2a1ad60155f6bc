"""Forced alignment: how long each symbol of a known text lasts in a recording.

The durations of our synthesiser's symbols come with its audio; for people's recordings they have to
be found. Given log-posteriors of the symbols over time (from `preprocessing.alignment`) and how
long each symbol is expected to last, `align` finds the most probable segmentation exactly: a
Viterbi search over (symbol, end, duration), the explicit-duration form of a left-to-right hidden
Markov model (Ferguson 1980), with log-normal durations.

Times are in units of 25 ms, as everywhere in the corpus. M symbols, T units, V classes.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

SPREAD = 0.45  # standard deviation of a phone's log-duration around what is expected of it
PAUSE_SPREAD = 1.2  # of a pause's: people pause as they like
LONGEST = 40  # units a phone can last (1 s); a pause may fill the recording
_IMPOSSIBLE = -1e9
_PAUSES = ("", *' .,;:!?—…"()')
_PASSES = 2  # the first tells how fast the speaker is


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How a text lies in a recording.

    Attributes:
      frames: int32 [M], units of each symbol, at least 1, together T.
      score: nats a unit by which the text is less probable than the best free choice of symbols,
        averaged over the spoken part: 0 is perfect; a text that is not what was said is far below.
      begin, end: the units between the pauses at both ends.
    """

    frames: np.ndarray
    score: float
    begin: int
    end: int


def align(
    logp_TV: np.ndarray, symbols_M: np.ndarray, expected_M: np.ndarray, pauses: Sequence[int]
) -> Alignment | None:
    """The most probable segmentation; None when there are fewer units than symbols.

    Args:
      logp_TV: log-posterior of each class in each unit.
      symbols_M: class of each symbol. expected_M: its expected duration in units. pauses: classes
        that are silence or may be.
    """
    units, count = len(logp_TV), len(symbols_M)
    if units < count or not count:
        return None
    log_expected, is_pause = np.log(np.maximum(expected_M, 0.25)), np.isin(symbols_M, list(pauses))
    emissions_MT = logp_TV[:, symbols_M].T
    frames = np.zeros(count, np.int32)
    for _ in range(_PASSES):
        frames = _segment(emissions_MT, log_expected, is_pause)
        if not is_pause.all():  # the speaker's pace, for the second pass
            log_expected = log_expected + np.median((np.log(frames) - log_expected)[~is_pause])
    spoken = np.flatnonzero(~np.repeat(is_pause, frames))
    begin, end = (int(spoken[0]), int(spoken[-1]) + 1) if len(spoken) else (0, units)
    return Alignment(frames, _score(logp_TV, emissions_MT, frames, is_pause), begin, end)


def _segment(
    emissions_MT: np.ndarray, log_expected_M: np.ndarray, is_pause_M: np.ndarray
) -> np.ndarray:
    """int32 [M]: durations of the best path."""
    count, units = emissions_MT.shape
    best = np.full(units + 1, _IMPOSSIBLE)  # of all paths in which the symbols so far end at unit t
    best[0] = 0.0
    chosen_MT = np.zeros((count, units + 1), np.int32)
    for m in range(count):
        longest = units if is_pause_M[m] else min(LONGEST, units)
        spread = PAUSE_SPREAD if is_pause_M[m] else SPREAD
        lengths = np.arange(1, longest + 1)
        # A distribution over whole units,
        # so that a symbol of half a unit has its mass on the first.
        prior = -0.5 * ((np.log(lengths) - log_expected_M[m]) / spread) ** 2
        prior -= np.log(np.exp(prior - prior.max()).sum()) + prior.max()
        total = np.concatenate([[0.0], np.cumsum(emissions_MT[m])])
        # before[longest + t] is the path that ends at t
        before = np.concatenate([np.full(longest, _IMPOSSIBLE), best - total])
        # [t, k] ends at t - longest + k
        windows = np.lib.stride_tricks.sliding_window_view(before, longest)[: units + 1]
        scores = windows + prior[::-1]
        pick = np.argmax(scores, axis=1)
        best = np.maximum(scores[np.arange(units + 1), pick] + total, _IMPOSSIBLE)
        chosen_MT[m] = longest - pick
    frames, at = np.zeros(count, np.int32), units
    for m in range(count - 1, -1, -1):
        frames[m] = chosen_MT[m, at]
        at -= frames[m]
    return frames


def _score(
    logp_TV: np.ndarray, emissions_MT: np.ndarray, frames_M: np.ndarray, is_pause_M: np.ndarray
) -> float:
    """See `Alignment.score`."""
    of_unit = np.repeat(np.arange(len(frames_M)), frames_M)
    behind = emissions_MT[of_unit, np.arange(len(of_unit))] - logp_TV.max(axis=1)
    spoken = ~is_pause_M[of_unit]
    return float(behind[spoken].mean()) if spoken.any() else 0.0


def pause_symbols(symbols: Sequence[str]) -> tuple[int, ...]:
    """Ids of the pronouncer's symbols (`Pronouncer.symbols`) that are silence or may be: the
    boundary, spaces, punctuation.
    """
    return tuple(i for i, symbol in enumerate(symbols) if symbol in _PAUSES)
