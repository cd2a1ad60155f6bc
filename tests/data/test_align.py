"""Alignment: the search is exact (against all segmentations of small cases), and our synthesiser's
true durations are found again from its audio.
"""

import itertools

import numpy as np
import pytest

from mdmspeech.audio.wave import resample
from mdmspeech.data.recordings import align as aligning
from mdmspeech.data.recordings.align import align, pause_symbols
from mdmspeech.data.recordings.user import MATCHES

TEXTS = (
    "The old map was found under the kitchen table.",
    "She answered quickly, and nobody asked again.",
    "A cold wind came down from the northern hills.",
)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cost(frames, logp_TV, symbols, expected, pauses):
    """Log-probability of one segmentation, written down anew: emissions and log-normal durations
    over whole units.
    """
    total, at = 0.0, 0
    for symbol, mean, count in zip(symbols, expected, frames, strict=True):
        spread = aligning.PAUSE_SPREAD if symbol in pauses else aligning.SPREAD
        lengths = np.arange(
            1, (len(logp_TV) if symbol in pauses else min(aligning.LONGEST, len(logp_TV))) + 1
        )
        prior = log_softmax(-0.5 * ((np.log(lengths) - np.log(mean)) / spread) ** 2)
        total += logp_TV[at : at + count, symbol].sum() + prior[count - 1]
        at += count
    return total


def test_the_best_of_all_segmentations_is_found(monkeypatch):
    monkeypatch.setattr(aligning, "_PASSES", 1)
    rng = np.random.default_rng(0)
    for _ in range(5):
        logp, symbols, expected = (
            log_softmax(rng.normal(size=(11, 5)) * 2),
            rng.integers(0, 5, 4),
            rng.uniform(1, 5, 4),
        )
        cuts = itertools.combinations(range(1, 11), 3)
        every = [np.diff([0, *cut, 11]) for cut in cuts]
        best = max(every, key=lambda frames: cost(frames, logp, symbols, expected, (0,)))
        assert align(logp, symbols, expected, (0,)).frames.tolist() == best.tolist()


def test_a_slow_speaker_and_long_pauses():
    true = np.array([30, 4, 9, 60, 6, 5, 20])
    symbols = np.array([0, 1, 2, 0, 3, 1, 0])
    logp = log_softmax(6.0 * np.eye(4)[np.repeat(symbols, true)])
    found = align(logp, symbols, np.array([4.0, 1.0, 2.0, 2.0, 1.5, 1.2, 4.0]), (0,))
    assert found.frames.tolist() == true.tolist() and found.score == pytest.approx(0.0)
    assert (found.begin, found.end) == (30, true.sum() - 20)


def test_more_symbols_than_units():
    assert align(np.zeros((3, 4)), np.array([0, 1, 2, 3]), np.ones(4), (0,)) is None


def test_pauses_are_the_signs_that_are_not_sounds():
    assert pause_symbols(("", "a", " ", ",", "ˈ", ".")) == (0, 2, 3, 5)


@pytest.fixture(scope="module")
def spoken():
    """The synthesiser's recordings, and all of them aligned, each with its own text and with the
    next one's.
    """
    from mdmspeech.cli.user_recordings import make_aligner
    from mdmspeech.data.synthesis.voices.base import Job
    from mdmspeech.data.synthesis.voices.hibari import Hibari

    voice = Hibari()
    found = [
        voice.speak(Job(str(n), text, "hibari", "heart", seed=n)) for n, text in enumerate(TEXTS)
    ]
    waves = [resample(one.audio, one.rate, 16_000) for one in found]
    symbols = [np.array(one.fields["symbols"]) for one in found]
    aligned = make_aligner()([*waves, *waves], [*symbols, *symbols[1:], symbols[0]])
    return found, aligned[: len(TEXTS)], aligned[len(TEXTS) :]


@pytest.mark.slow
def test_the_true_durations_are_found(spoken):
    found, own, _ = spoken
    errors = [
        np.abs(np.cumsum(a.frames) - np.cumsum(one.fields["frames"]))[:-1]
        for one, a in zip(found, own, strict=True)
    ]
    for one, a in zip(found, own, strict=True):
        assert a.frames.min() >= 1 and a.frames.sum() == -(-len(one.audio) // 600)
    assert 25 * np.concatenate(errors).mean() < 30  # ms, of symbols of 60 ms


@pytest.mark.slow
def test_a_text_that_was_not_said_is_noticed(spoken):
    _, own, others = spoken
    assert min(a.score for a in own) > MATCHES > max(a.score for a in others)
