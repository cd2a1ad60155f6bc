"""A long conversation in fast time: every turn is answered, and nothing grows."""

import gc

import numpy as np
import pytest
from small_session import RATE, Clock, asked, events, of, opened, resident, silence, work

from mdmspeech.inference.session_events import ResponseEnded, SpeechStopped, TurnsForgotten

PIECE = RATE // 4
PAUSES = 2.0, 5.0, 11.0  # seconds between the questions


@pytest.mark.parametrize("minutes", [2, pytest.param(120, marks=pytest.mark.full)])
def test_it_goes_on_as_it_began(talkative, minutes):
    """Someone asks, listens, and asks again, now and then before the answer is over. What is kept
    after the first half is no more at the end: objects, memory, remembered turns.
    """
    clock, rng = Clock(), np.random.default_rng(0)
    session = opened(talkative, clock, context=192)
    question, found, kept = asked(), [], []
    end = clock.now + 60 * minutes
    while clock.now < end:
        pause = silence(PAUSES[rng.integers(3)])
        for whole in (question, pause):
            for at in range(0, len(whole), PIECE):
                session.push_audio(whole[at : at + PIECE])
                clock.now += len(whole[at : at + PIECE]) / RATE
                work(session)
                new = events(session)
                found += [
                    *of(new, SpeechStopped),
                    *of(new, ResponseEnded),
                    *of(new, TurnsForgotten),
                ]
        gc.collect()
        kept.append((len(gc.get_objects()) - len(found), resident()))
    turns, ends = of(found, SpeechStopped), of(found, ResponseEnded)
    assert len(turns) == len(kept) == len(ends) >= minutes * 60 / 14
    assert {end.reason for end in ends} <= {"completed", "turn_detected"}
    assert not any(end.underruns for end in ends)
    assert of(found, TurnsForgotten)[-1].turns >= len(turns) // 2  # its memory was full
    half = kept[len(kept) // 2 :]
    assert half[-1][0] - half[0][0] < 2000, half
    if minutes > 10:
        assert half[-1][1] - half[0][1] < 32 * 2**20, half
