"""What a listener hears: underruns, the lead, the words that were played, steps by the lead."""

import numpy as np
import pytest

from mdmspeech.inference.playback import (
    RESERVE,
    STEPS,
    AdaptiveSteps,
    Playback,
    heard_text,
    steps_for,
)
from mdmspeech.inference.speech import Word


def played(*pieces):
    """After pieces of (time, seconds)."""
    playback = Playback()
    for now, seconds in pieces:
        playback.add(now, seconds)
    return playback


@pytest.mark.parametrize(
    ("pieces", "underruns", "stalled"),
    [
        ([], 0, 0.0),
        ([(5.0, 1.0)], 0, 0.0),
        ([(0.0, 1.0), (0.5, 1.0), (1.9, 1.0)], 0, 0.0),
        ([(0.0, 1.0), (1.05, 1.0)], 0, 0.0),  # nobody hears so little
        ([(0.0, 1.0), (1.3, 1.0)], 1, 0.3),
        ([(0.0, 1.0), (1.3, 0.5), (2.0, 1.0), (3.0, 0.1)], 2, 0.5),
        ([(0.0, 1.0), (0.0, 1.0), (1.9, 0.0), (2.3, 1.0)], 1, 0.3),
    ],
)
def test_underruns(pieces, underruns, stalled):
    playback = played(*pieces)
    assert playback.underruns == underruns
    assert playback.underrun_s == pytest.approx(stalled)
    assert playback.audio_s == pytest.approx(sum(seconds for _, seconds in pieces))


@pytest.mark.parametrize("seed", range(5))
def test_what_was_played_and_what_is_ahead_are_all(seed):
    rng, playback, now, before = np.random.default_rng(seed), Playback(), 0.0, 0.0
    for _ in range(100):
        now += rng.random() * 0.6
        if rng.random() < 0.5:
            playback.add(now, rng.random())
        assert playback.played(now) + playback.lead(now) == pytest.approx(playback.audio_s)
        assert playback.lead(now) >= 0 and playback.played(now) >= before - 1e-9
        before = playback.played(now)
    playback.report(now, 1.0)
    assert playback.played(now) == pytest.approx(min(1.0, playback.audio_s))
    playback.report(now, 1e9)
    assert playback.lead(now) == 0
    playback.report(now, -3.0)
    assert playback.played(now) == 0


def test_steps_are_those_that_there_is_time_for():
    assert [steps_for(lead, 0.1, 4) for lead in (0.0, 0.4, 0.5, 0.7, 1.1, 9.0)] == [
        1,
        1,
        2,
        4,
        8,
        8,
    ]
    assert steps_for(9.0, 0.01, 16) == 16 and steps_for(9.0, 0.01, 8, largest=8) == 8


@pytest.mark.parametrize("seed", range(20))
def test_steps_rise_by_doubling_and_never_cost_an_underrun(seed):
    """On a machine of any speed at which one step keeps up; on a quick one they come to 16."""
    rng = np.random.default_rng(seed)
    block_s, step_s = 0.64, float(rng.uniform(0.005, 0.3))
    playback, now, last, all_of_them = Playback(), 0.0, 1, []
    for _ in range(60):
        steps = steps_for(playback.lead(now), step_s, last) if playback.audio_s else 1
        assert steps in STEPS and steps <= 2 * last
        if steps > 1:
            assert playback.lead(now) - steps * step_s >= RESERVE - 1e-9
        now += steps * step_s
        playback.add(now, block_s)
        last = steps
        all_of_them.append(steps)
    assert playback.underruns == 0
    assert all_of_them[0] == 1 and (max(all_of_them) == 16 or 16 * step_s > block_s)


def test_a_choice_stands_until_the_block_is_there():
    now = [0.0]
    playback = Playback()
    steps = AdaptiveSteps(playback, lambda: now[0], 16)
    assert steps() == 1
    steps.took(0.02)
    playback.add(0.0, 2.0)
    assert steps() == 2
    now[0] = 1.9  # hardly anything is ahead by now
    assert steps() == 2
    steps.took(0.04)
    assert steps.chosen == [1, 2] and steps() == 1


def test_the_first_block_takes_one_step():
    now = [0.0]
    playback = Playback()
    steps = AdaptiveSteps(playback, lambda: now[0], 16)
    for _ in range(6):
        chosen = steps()
        now[0] += 0.02 * chosen
        steps.took(0.02 * chosen)
        playback.add(now[0], 0.64)
    assert steps.chosen == [1, 2, 4, 8, 16, 16]
    now[0] += 60
    assert steps() == 1  # nothing is ahead any more
    assert AdaptiveSteps(playback, lambda: 0.0, 16)() == 1


WORDS = [Word("One,", 0.0, 0.4), Word("two,", 0.5, 0.9), Word("three.", 1.0, 1.5)]


@pytest.mark.parametrize(
    ("text", "words", "seconds", "heard"),
    [
        ("One, two, three.", WORDS, 0.0, ""),
        ("One, two, three.", WORDS, -1.0, ""),
        ("One, two, three.", WORDS, 0.01, "One,"),
        ("One, two, three.", WORDS, 0.45, "One,"),
        ("One, two, three.", WORDS, 0.55, "One, two,"),
        ("One, two, three.", WORDS, 9.0, "One, two, three."),
        ("One,\n two,  three. And four.", WORDS, 0.7, "One,\n two,"),  # more was written
        ("One, two, three. And four.", WORDS, 9.0, "One, two, three."),
        ("", WORDS, 9.0, ""),
        # written in one word, said in three
        ("In 1984 it was", [Word(w, n, n + 0.9) for n, w in enumerate(
            ("In", "nineteen", "eighty", "four", "it", "was"))], 0.5, "In"),
        ("In 1984 it was", [Word(w, n, n + 0.9) for n, w in enumerate(
            ("In", "nineteen", "eighty", "four", "it", "was"))], 1.5, "In 1984"),
        ("In 1984 it was", [Word(w, n, n + 0.9) for n, w in enumerate(
            ("In", "nineteen", "eighty", "four", "it", "was"))], 3.5, "In 1984"),
        ("In 1984 it was", [Word(w, n, n + 0.9) for n, w in enumerate(
            ("In", "nineteen", "eighty", "four", "it", "was"))], 4.5, "In 1984 it"),
        # nobody knows when words are said
        ("a b c d", [], 1.0, "a b"),
        ("a b c d", [], 2.0, "a b c d"),
        ("a b c d", [], 0.1, "a"),
        ("a b c d", [], 5.0, "a b c d"),
    ],
)  # fmt: skip
def test_the_words_that_were_heard(text, words, seconds, heard):
    assert heard_text(text, words, seconds, 2.0) == heard


@pytest.mark.parametrize("seed", range(10))
def test_later_is_never_less(seed):
    rng = np.random.default_rng(seed)
    written = [str(w) for w in rng.choice(["a", "b", "7", "c,", "dd."], 12)]
    spoken = [x for w in written for x in (["se", "ven"] if w == "7" else [w.strip(",.")])]
    words = [Word(w, 0.3 * n, 0.3 * n + 0.3) for n, w in enumerate(spoken)]
    text, end = " ".join(written), 0.3 * len(spoken)
    found = [heard_text(text, words, at, end) for at in np.linspace(0, end + 0.1, 40)]
    assert found[0] == "" and found[-1] == text
    assert all(text.startswith(one) for one in found)
    assert list(map(len, found)) == sorted(map(len, found))
