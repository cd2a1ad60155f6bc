"""Turns: speech begins and ends where it should, whatever the probabilities do."""

import dataclasses

import numpy as np
import pytest

from mdmspeech.audio.turns import Turn, TurnChange, TurnDetection, frames, step
from mdmspeech.audio.vad import FRAME_SECONDS
from mdmspeech.errors import UserError


def changes(detection, probabilities):
    """Of a whole row: (frame with which it was told, change) each."""
    turn, found = Turn(), []
    for at, probability in enumerate(probabilities):
        turn, change = step(detection, turn, probability)
        found += [(at, change)] if change is not None else []
    return found


def detection(speech=3, silence=5, **options):
    """That needs so many frames."""
    seconds = {"min_speech_s": speech, "silence_duration_s": silence}
    return TurnDetection(**{k: n * FRAME_SECONDS for k, n in seconds.items()}, **options)


HIGH, MIDDLE, LOW = 0.9, 0.4, 0.1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ([LOW] * 20, []),
        ([HIGH] * 2 + [LOW] * 9, []),  # too short
        ([LOW, *[HIGH] * 3], [(3, TurnChange(True, 1))]),
        ([HIGH, MIDDLE, HIGH, MIDDLE, HIGH], [(4, TurnChange(True, 0))]),  # wavers, goes on
        ([HIGH, HIGH, LOW, HIGH, HIGH, LOW], []),  # two clicks
        ([HIGH] * 4 + [LOW] * 4, [(2, TurnChange(True, 0))]),  # the silence may be over soon
        ([HIGH] * 4 + [LOW] * 5, [(2, TurnChange(True, 0)), (8, TurnChange(False, 4))]),
        # speech in between begins the silence anew
        ([HIGH] * 4 + [LOW] * 4 + [HIGH] + [LOW] * 5, [(2, (True, 0)), (13, (False, 9))]),
        # what wavers is neither: it does not begin a silence, nor end one
        ([HIGH] * 4 + [MIDDLE] * 9, [(2, (True, 0))]),
        ([HIGH] * 4 + [LOW] + [MIDDLE] * 4, [(2, (True, 0)), (8, (False, 4))]),
        ([MIDDLE] * 9, []),
        ([HIGH] + [MIDDLE] * 4 + [HIGH] * 2, [(6, (True, 0))]),
        ([HIGH] + [MIDDLE] * 9 + [HIGH] * 3, [(12, (True, 10))]),  # long forgotten
        # and anew
        (([HIGH] * 3 + [LOW] * 5) * 2, [(2, (True, 0)), (7, (False, 3)), (10, (True, 8)), (15, (False, 11))]),
    ],
)  # fmt: skip
def test_rows(row, told):
    assert changes(detection(), row) == told


@pytest.mark.parametrize("seed", range(30))
def test_any_row(seed):
    rng = np.random.default_rng(seed)
    speech, silence = int(rng.integers(0, 6)), int(rng.integers(4, 12))
    row = np.repeat(rng.choice([HIGH, MIDDLE, LOW, 0.5, 0.35], 120), rng.integers(1, 9, 120))
    given = detection(speech, silence)
    told = changes(given, row)
    assert [change.began for _, change in told] == [n % 2 == 0 for n in range(len(told))]
    for (at, change), before in zip(told, [(-1, None), *told], strict=False):
        stretch = row[change.frame : at + 1]
        assert before[0] < change.frame <= at  # nothing belongs to two turns
        if change.began:
            assert stretch[0] >= 0.5 and (stretch >= 0.5).sum() == max(speech, 1)
            assert (stretch >= 0.35).all()
        else:
            assert len(stretch) == silence and stretch[0] < 0.35 and (stretch < 0.5).all()
    assert changes(given, row) == told
    # a prefix of the row tells a prefix
    half = len(row) // 2
    assert changes(given, row[:half]) == [one for one in told if one[0] < half]


def test_silence_is_counted_while_it_lasts():
    turn, counts = Turn(), []
    for probability in [HIGH] * 4 + [LOW, LOW, MIDDLE, HIGH, LOW]:
        turn, _ = step(detection(), turn, probability)
        counts.append(turn.silence)
    assert counts == [0, 0, 0, 0, 1, 2, 3, 0, 1] and turn.speaking and turn.frames == 9


def test_defaults_are_those_of_the_realtime_interface():
    assert (TurnDetection().threshold, TurnDetection().lower) == (0.5, 0.35)
    assert (TurnDetection().prefix_padding_s, TurnDetection().silence_duration_s) == (0.3, 0.5)
    assert frames(0.5) == 16 and frames(0.1) == 4 and frames(0) == 0 and frames(0.032) == 1
    assert TurnDetection(threshold=0.1).lower == 0.01 and TurnDetection(release=0.2).lower == 0.2


def test_a_part_of_the_settings_changes_no_other():
    given = TurnDetection(threshold=0.7, prefix_padding_s=0.1)
    changed = given.updated({"silence_duration_s": 0.8})
    assert changed == dataclasses.replace(given, silence_duration_s=0.8)
    assert given.updated({}) == given


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"threshold": 0}, "threshold=0: give a number from 0.05 to 0.95"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"threshold": True}, "threshold=True"),
        ({"threshold": None}, "threshold=None"),
        ({"release": 0.6}, "release=0.6 is above threshold=0.5"),
        ({"silence_duration_s": 500}, "silence_duration_s=500: give a number from 0.1 to 5"),
        ({"silence_duration_s": "0.5"}, "silence_duration_s='0.5'"),
        ({"prefix_padding_s": -0.1}, "prefix_padding_s=-0.1"),
        ({"min_speech_s": float("inf")}, "min_speech_s=inf"),
    ],
)
def test_refused_by_name(options, told):
    with pytest.raises(UserError, match=told):
        TurnDetection(**options)
    with pytest.raises(UserError, match=told):
        TurnDetection().updated(options)


def test_a_field_that_there_is_not():
    with pytest.raises(UserError, match="has no 'silence_duration_ms'; it has threshold"):
        TurnDetection().updated({"silence_duration_ms": 500})
