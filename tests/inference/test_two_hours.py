"""A long conversation in fast time: every turn is answered, and nothing grows."""

import gc
from collections import Counter

import numpy as np
import pytest
from small_session import RATE, Clock, asked, events, of, opened, resident, silence, work

from mdmspeech.inference.session_events import ResponseEnded, SpeechStopped, TurnsForgotten

PIECE = RATE // 4
PAUSES = 2.0, 5.0, 11.0  # seconds between the questions


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [2, pytest.param(120, marks=pytest.mark.full)])
def test_it_goes_on_as_it_began(talkative, minutes):
    """Someone asks, listens, and asks again, now and then before the answer is over. What is kept
    after the first half is no more at the end: objects, memory, remembered turns.
    """
    clock, rng = Clock(), np.random.default_rng(0)
    session = opened(talkative, clock, context=192)
    question, kept = asked(), []
    turns, ends, gaps, forgotten = 0, Counter(), 0, 0
    end = clock.now + 60 * minutes
    while clock.now < end:
        for wave in (question, silence(PAUSES[rng.integers(3)])):
            for at in range(0, len(wave), PIECE):
                session.push_audio(wave[at : at + PIECE])
                clock.now += len(wave[at : at + PIECE]) / RATE
                work(session)
                new = events(session)
                turns += len(of(new, SpeechStopped))
                ends.update(event.reason for event in of(new, ResponseEnded))
                gaps += sum(event.underruns for event in of(new, ResponseEnded))
                forgotten = max([forgotten, *(event.turns for event in of(new, TurnsForgotten))])
        gc.collect()
        kept.append((len(gc.get_objects()), resident()))
    assert turns == len(kept) == ends.total() >= minutes * 60 / 14
    assert set(ends) <= {"completed", "turn_detected"} and gaps == 0
    assert forgotten >= turns // 2  # its memory was full
    half = kept[len(kept) // 2 :]
    # a first time of something may compile a program, a turn keeps nothing
    assert np.median(np.diff([objects for objects, _ in half])) < 8, half
    if minutes > 10:
        assert half[-1][0] - half[0][0] < 4 * turns, half
        assert half[-1][1] - half[0][1] < 32 * 2**20, half
