"""Sessions on their own thread: whoever calls returns at once, and readers get what is for them."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small_session
from small_session import asked, of, silence

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.inference import session_loop
from mdmspeech.inference.playback import AdaptiveSteps
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import (
    ResponseEnded,
    ResponseTokens,
    SessionClosed,
    SessionOpened,
)

SETTINGS = small_session.SETTINGS


@pytest.fixture(scope="module")
def model(talkative):
    return talkative


def until_the_end(session, found):
    """Reads until a response has ended, or the session."""
    for event in session.events:
        found.append(event)
        if isinstance(event, ResponseEnded):
            return


def test_sessions_of_several_threads(model):
    """Each gets its own answer, made in one thread that ends with the last of them."""
    questions = ["what is it ?", "is a red apple good ?", "yes and no"]
    expected = [model.answer(question, steps=2).text for question in questions]
    where, read = set(), model.thinker.extend
    model.thinker.extend = lambda *given: (
        where.add(threading.current_thread().name),
        read(*given),
    )[1]
    try:
        sessions, found = [model.session(**SETTINGS) for _ in questions], [[], [], []]
        readers = [
            threading.Thread(target=until_the_end, args=pair)
            for pair in zip(sessions, found, strict=True)
        ]
        for reader, session, question in zip(readers, sessions, questions, strict=True):
            reader.start()
            session.push_text(question)
            session.commit()
        for reader in readers:
            reader.join(60)
    finally:
        del model.thinker.extend
    assert [one[-1].text for one in found] == expected
    assert all(isinstance(one[0], SessionOpened) for one in found)
    assert where == {"sessions"} and len(model.sessions) == 3
    thread = model.sessions._thread
    for session in sessions:
        with session:
            pass  # closes it
        assert [type(event) for event in session.events] == [SessionClosed]
    thread.join(10)
    assert not thread.is_alive() and model.sessions._thread is None
    # and begins again
    with model.session(**SETTINGS) as session:
        session.push_audio(np.concatenate([silence(0.6), asked(), silence(0.6)]))
        found = []
        until_the_end(session, found)
        assert found[-1].reason == "completed"


def test_a_reader_that_does_not_wait(model):
    with model.session(**SETTINGS) as session:
        assert isinstance(session.events.get(30), SessionOpened)
        began = time.monotonic()
        assert session.events.get() is None and session.events.get(0.05) is None
        assert time.monotonic() - began < 5


def test_no_more_than_there_is_room_for(model):
    loop = session_loop.SessionLoop(model, limit=2)
    first, second = (loop.open(SessionConfig(**SETTINGS)) for _ in range(2))
    with pytest.raises(TryAgainError, match="2 sessions are open, the most at a time"):
        loop.open()
    first.close()
    list(first.events)
    for _ in range(1000):
        try:
            third = loop.open(SessionConfig(**SETTINGS))
            break
        except TryAgainError:
            time.sleep(0.01)
    third.close()
    second.close()


def test_settings_are_checked_before_anything_is_opened(model):
    for wrong, told in (
        ({"steps": 0}, "steps=0"),
        ({"steps": "many"}, "steps='many'"),
        ({"speculate_s": 0}, "speculate_s=0: give seconds from 0.03 to 2"),
        ({"speculate_s": True}, "speculate_s=True"),
        ({"turn_detection": "server_vad"}, "turn_detection='server_vad': give a TurnDetection"),
        ({"turn_detection": {"threshold": 2}}, "threshold=2"),
        ({"interrupt_response": None}, "interrupt_response=None: give True or False"),
        ({"context": 10}, "context=10"),
        ({"max_events": 1.5}, "max_events=1.5"),
        ({"temperature": 9}, "temperature=9"),
        ({"instruction": "be brief"}, "no option 'instruction' of a session; there are"),
        ({"instructions": 5}, "instructions=5: give a text, or None"),
        ({"output": "video"}, 'output=\'video\': give "audio" or "text"'),
        ({"max_output_tokens": 0}, "max_output_tokens=0: give a whole number from 1"),
    ):
        with pytest.raises(UserError, match=told):
            model.session(**wrong)
    assert SessionConfig(turn_detection=None).updated({"turn_detection": {}}).turn_detection


def test_steps_follow_the_lead(model):
    """The first block takes one; on a clock that stands still they rise to 16."""
    session = small_session.opened(model, steps="auto")
    session.push_text("what is it ?")
    session.commit()
    small_session.work(session)
    found = small_session.events(session)
    assert found[-1].steps[:5] == (1, 2, 4, 8, 16) and found[-1].reason == "completed"
    blocks = of(found, ResponseTokens)
    assert len(blocks) == len(found[-1].steps)
    for block, steps in zip(blocks, found[-1].steps, strict=True):
        assert block.steps.max() < steps
    assert [int(block.steps.max()) + 1 for block in blocks[:3]] == [1, 2, 4]


def test_blocks_of_several_sessions_are_decoded_together(model, monkeypatch):
    """As many rows a forward as sessions that speak; each says what it says alone."""
    questions = ["what is it ?", "is a red apple good ?", "yes and no"]

    def opened():
        sessions = [small_session.opened(model) for _ in questions]
        for session, question in zip(sessions, questions, strict=True):
            session.push_text(question)
            session.commit()
        return sessions

    def finish(sessions, ahead):
        busy = [True]
        while any(busy):
            ahead(sessions)
            busy = [session.work() for session in sessions]
        found = [small_session.events(session) for session in sessions]
        for session in sessions:
            session.close()
            session.work()
        return found

    alone = finish(opened(), lambda sessions: None)
    rows, engine = [], model.voice().engine
    advance = engine.advance
    monkeypatch.setattr(
        engine, "advance", lambda some, *rest: (rows.append(len(some)), advance(some, *rest))[1]
    )
    together = finish(opened(), session_loop._decode_ahead)
    assert max(rows) > 1 and sum(rows) == sum(len(of(one, ResponseTokens)) for one in alone)
    for ours, theirs in zip(together, alone, strict=True):
        for one, other in zip(of(ours, ResponseTokens), of(theirs, ResponseTokens), strict=True):
            np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_allclose(
            small_session.joined(ours), small_session.joined(theirs), atol=1e-5
        )


def test_steps_count_what_was_decoded_with_others(model, monkeypatch):
    """A block that is decoded ahead of its unit costs what it costs, and the steps that are told are
    those it was decoded with, though less is ahead when its own unit comes.
    """
    took, decoded, clock = [], [], small_session.Clock()
    inner, engine = AdaptiveSteps.took, model.voice().engine
    advance = engine.advance
    monkeypatch.setattr(
        AdaptiveSteps, "took", lambda steps, seconds: (took.append(seconds), inner(steps, seconds))
    )
    monkeypatch.setattr(
        engine,
        "advance",
        lambda some, *rest: (
            decoded.extend(int(row.state.request.steps_B[0]) for row in some),
            advance(some, *rest),
        )[1],
    )
    sessions = [small_session.opened(model, clock, steps="auto") for _ in range(2)]
    for session in sessions:
        session.push_text("what is it ?")
        session.commit()
    busy = [True]
    while any(busy):
        session_loop._decode_ahead(sessions)
        clock.now += 0.01
        busy = [session.work() for session in sessions]
    ended = [small_session.events(session)[-1] for session in sessions]
    told = [steps for one in ended for steps in one.steps]
    assert sorted(told) == sorted(decoded) and max(told) > 1
    assert sum(took) >= sum(one.timeline["talker"] for one in ended) > 0


def test_a_session_that_leaves_with_a_block_ahead_disturbs_nobody(model):
    """Cancelled between the common block and its own unit."""
    question = "is a red apple good ?"
    expected = model.answer(question, steps=2).tokens
    stays, leaves = small_session.opened(model), small_session.opened(model)
    for session in (stays, leaves):
        session.push_text(question)
        session.commit()
    for _ in range(200):
        session_loop._decode_ahead([stays, leaves])
        if not leaves.closed and leaves.speaking() is not None:
            leaves.close()
        if not any([stays.work(), leaves.work()]):
            break
    tokens = [event.tokens for event in of(small_session.events(stays), ResponseTokens)]
    np.testing.assert_array_equal(np.concatenate(tokens), expected)
    assert isinstance(small_session.events(leaves)[-1], SessionClosed)


def test_a_process_may_end_in_the_middle_of_a_unit():
    """It is done to its end, and no more are (a thread inside XLA took the whole process down)."""
    program = """
import atexit, sys, time

told = []
atexit.register(lambda: print(told, flush=True))  # the last that is called
from mdmspeech.inference.session_loop import SessionLoop

class Work:
    closed = False
    def work(self):
        told.append("begun")
        time.sleep(1)
        told.append("done")
        return True
    def speaking(self):
        return None

SessionLoop(None).join(Work())
while not told:
    time.sleep(0.01)
sys.exit(7)
"""
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert (made.returncode, made.stdout) == (7, "['begun', 'done']\n"), made.stderr
