"""Who speaks while the session speaks is heard at once, and the conversation remembers what was
played; nobody waits for a slow reader; two sessions do not hear each other.
"""

import gc

import numpy as np
import pytest
from small_session import Clock, asked, events, of, opened, plain, resident, run, silence, work

from mdmspeech.audio.turns import TurnDetection
from mdmspeech.errors import UserError
from mdmspeech.inference.playback import heard_text
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    ResponseTokens,
    SpeechStarted,
    Transcript,
    TurnsForgotten,
)

QUESTIONS = ["what is it ?", "is a red apple good ?", "yes and no", "what is very good ?"]


@pytest.fixture(scope="module")
def model(talkative):
    return talkative


def ask(session, question=QUESTIONS[0]):
    session.push_text(question)
    session.commit()
    work(session)
    return events(session)


def remembered(session):
    return [turn.answered for turn in session._conversation.turns]


@pytest.fixture(scope="module")
def whole(model):
    """Events of one typed question, and its reply."""
    return ask(opened(model)), model.answer(QUESTIONS[0], steps=2)


# ---- Barge-in ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.6, 100.0])
def test_speech_stops_what_is_being_played(model, whole, seconds):
    """Although all of it was made long ago; what a player has played by then is remembered."""
    clock = Clock()
    session = opened(model, clock)
    ended = ask(session)[-1]
    clock.now += seconds
    found = run(session, silence(0.5), asked()[:24_000])
    reply = whole[1]
    expected = heard_text(reply.text, reply.words, seconds, len(reply.audio) / reply.sample_rate)
    if seconds < 100:
        assert of(found, SpeechStarted)[0].interrupts == 1
        assert remembered(session) == [expected] * bool(expected) and expected != reply.text
    else:
        assert of(found, SpeechStarted)[0].interrupts is None
        assert remembered(session) == [reply.text]
    assert ended.reason == "completed" and not of(found, ResponseEnded)


def test_speech_stops_what_is_being_made(model, whole):
    """Nothing of it is told any more, and it ends once, with what was played by then."""
    clock, reply = Clock(), whole[1]
    session = opened(model, clock)
    session.push_text(QUESTIONS[0])
    session.commit()
    while len(of(list(session.events._events), ResponseAudio)) < 3:
        session.work()
    found = events(session)
    clock.now += 1.0
    session.push_audio(np.concatenate([silence(0.5), asked()[:24_000]]))
    for _ in range(9):
        session.work()
    while session.work():
        pass
    found += (after := events(session))
    assert [type(event).__name__ for event in after] == ["SpeechStarted", "ResponseEnded"]
    assert after[0].interrupts == 1 and after[1].reason == "turn_detected"
    text = heard_text(reply.text, reply.words, 1.0, 99.0)
    assert after[1].text == text and remembered(session) == [text] and text != reply.text
    # and what it is asked then is answered after that
    found = run(session, asked()[24_000:], silence(1.0))
    assert of(found, ResponseEnded)[-1].reason == "completed" and len(remembered(session)) == 2


def test_the_player_knows_better_what_was_played(model, whole):
    clock, reply = Clock(), whole[1]
    session = opened(model, clock)
    ask(session)
    clock.now += 4.0
    session.played(1.5)  # it began late
    clock.now += 0.25
    run(session, silence(0.5), asked()[:24_000])
    assert remembered(session) == [heard_text(reply.text, reply.words, 1.75, 99.0)]


def test_who_may_not_interrupt_is_answered_afterwards(model, whole):
    session = opened(model, interrupt_response=False)
    ask(session)
    found = run(session, silence(0.5), asked(), silence(1.0))
    assert of(found, SpeechStarted)[0].interrupts is None
    assert remembered(session)[0] == whole[1].text and len(remembered(session)) == 2


def test_interrupted_before_the_first_sound(model):
    """The question is not lost: it is answered with the next one."""
    for units in (1, 2, 3, 5, 7):
        session = opened(model)
        session.push_text(QUESTIONS[0])
        session.commit()
        for _ in range(units):
            session.work()
        session.push_audio(np.concatenate([silence(0.5), asked()[:24_000]]))
        work(session)
        found = events(session) + run(session, asked()[24_000:], silence(1.0))
        starts, ends = of(found, ResponseStarted), of(found, ResponseEnded)
        assert len(starts) == len(ends) and ends[-1].reason == "completed"
        parts = [part for turn in session._conversation.turns for _, part in turn.asked]
        assert parts[0] == QUESTIONS[0] and len(parts) == 2


# ---- Cancel and truncate -------------------------------------------------------------------------


def test_cancelled_at_every_event(model, whole):
    """It ends once, nothing of it comes after, and the next question is answered as by a session
    that remembers the same.
    """
    first = [type(event) for event in whole[0]].index(ResponseAudio)
    for count in (*range(1, first + 4), *range(first + 4, len(whole[0]), 5)):
        clock = Clock()
        session = opened(model, clock)
        session.push_text(QUESTIONS[0])
        session.commit()
        while len(session.events) < count:
            assert session.work()
        found = events(session)
        clock.now += 0.7
        session.cancel()
        work(session)
        found += events(session)
        assert len(of(found, ResponseEnded)) == 1 and found[-1].reason == "cancelled"
        assert plain(found[:-1]) == plain(whole[0][: len(found) - 1])
        if count % 5:
            continue
        again = ask(session, QUESTIONS[1])
        other = opened(model)
        other._conversation.turns = list(session._conversation.turns[:-1])
        if len(remembered(session)) == 1:
            other._conversation._unanswered = ((9, QUESTIONS[0]),)
        assert "".join(e.text for e in of(again, ResponseText)) == "".join(
            e.text for e in of(ask(other, QUESTIONS[1]), ResponseText)
        )


def test_cancel_when_nothing_is_said(model):
    session = opened(model)
    session.cancel()
    session.truncate(3.0)
    session.played(1.0)
    work(session)
    assert not events(session)
    ended = ask(session)[-1]
    session._clock.now += 100
    session.cancel()
    work(session)
    assert not events(session) and remembered(session) == [ended.text]


@pytest.mark.parametrize("played", [-1.0, 0.0, 0.5, 1.6, 1e6])
def test_truncated_to_what_was_played(model, whole, played):
    """More than there is, is all of it."""
    session, reply = opened(model), whole[1]
    ask(session)
    session.truncate(played)
    work(session)
    length = len(reply.audio) / reply.sample_rate
    expected = heard_text(reply.text, reply.words, min(played, length), length)
    assert remembered(session) == [expected] * bool(expected)
    assert (expected == reply.text) == (played > 100)
    found = ask(session, QUESTIONS[1])
    assert found[-1].reason == "completed" and not of(run(session, silence(0.2)), ResponseEnded)
    session.truncate(0.1, response=1)  # no more the last one
    work(session)
    assert remembered(session)[-1] == found[-1].text


def test_truncated_while_it_is_made(model, whole):
    session, reply, engine = opened(model), whole[1], model.voice("mdm").engine
    rows = len(engine._spare)
    session.push_text(QUESTIONS[0])
    session.commit()
    while len(of(list(session.events._events), ResponseAudio)) < 3:
        session.work()
    assert len(engine._spare) == rows - 1
    session.truncate(0.9, response=1)
    work(session)
    assert len(engine._spare) == rows  # the row is free for others
    (end,) = of(events(session), ResponseEnded)
    assert end.reason == "cancelled" and end.text == heard_text(reply.text, reply.words, 0.9, 9)
    with pytest.raises(UserError, match="played_s=nan"):
        session.truncate(float("nan"))


def test_what_nobody_has_read_was_not_played(model):
    """Its end says so, too, where it was not read either."""
    clock = Clock()
    session = opened(model, clock)
    session.push_text(QUESTIONS[0])
    session.commit()
    work(session)
    assert isinstance(session.events.get(), ResponseStarted)
    clock.now += 5.0
    session.cancel()
    work(session)
    (end,) = events(session)
    assert (end.reason, end.text, remembered(session)) == ("cancelled", "", [])


# ---- Many sessions, slow readers, long conversations ----------------------------------------------


def test_two_sessions_in_turns_say_what_each_says_alone(model):
    sessions, found = [opened(model), opened(model)], [[], []]
    sounds = [(silence(1.0), asked(), silence(1.0)), (silence(0.7), asked()[:26_000], silence(1.3))]
    alone = [run(opened(model), *sound) for sound in sounds]
    for session, sound in zip(sessions, sounds, strict=True):
        session.push_audio(np.concatenate(sound))
    while any([session.work() for session in sessions]):  # noqa: C419 (each does its unit)
        for mine, session in zip(found, sessions, strict=True):
            mine += events(session)
    assert [plain(one) for one in found] == [plain(one) for one in alone]
    assert of(found[0], Transcript)[0].text != of(found[1], Transcript)[0].text


def test_a_slow_reader_stops_only_his_own_speech(model, whole):
    slow, quick = opened(model, max_events=8), opened(model)
    for session in (slow, quick):
        session.push_text(QUESTIONS[0])
        session.commit()
    found = []
    for _ in range(500):
        slow.work(), quick.work()
        found += events(quick)
    assert plain(found) == plain(whole[0]) and len(slow.events) == 8
    # it still hears who speaks
    slow.push_audio(np.concatenate([silence(0.5), asked()[:24_000]]))
    work(slow)
    assert [type(e).__name__ for e in events(slow)] == [
        "ResponseStarted", "SpeechStarted", "ResponseEnded",
    ]  # fmt: skip
    again = opened(model, max_events=8)
    again.push_text(QUESTIONS[0])
    again.commit()
    found = []
    for _ in range(200):
        work(again)
        found += [again.events.get()]
    assert plain(e for e in found if e) == plain(whole[0])


def test_who_never_reads_is_told_in_the_end(model):
    session = opened(model, max_events=4, create_response=False)

    def speak():
        for _ in range(60):
            session.push_audio(np.concatenate([asked(), silence(0.7)]))
            work(session)

    with pytest.raises(UserError, match="s of sound wait to be listened to"):
        speak()
    assert len(session.events) <= 9
    assert events(session)
    work(session)
    session.push_audio(silence(0.1))


def test_settings_change_in_the_middle(model):
    """A part of the turn detection leaves the rest as it is."""
    session = opened(model, turn_detection=TurnDetection(threshold=0.45))
    session.update(turn_detection={"silence_duration_s": 1.0}, steps=1)
    work(session)
    detection = session.config.turn_detection
    assert detection.silence_duration_s == 1.0 and detection.threshold == 0.45
    found = run(session, silence(1.0), asked(), silence(0.8))
    assert [type(event).__name__ for event in found] == ["SpeechStarted"]
    found = run(session, silence(0.5))
    assert all((e.steps == 0).all() for e in of(found, ResponseTokens)) and of(found, ResponseEnded)
    session.update(turn_detection=None)
    assert not run(session, asked(), silence(1.0))
    session.update(turn_detection={})
    session.clear()
    found = run(session, silence(0.5), asked(), silence(1.2))
    assert of(found, ResponseEnded)
    for wrong, told in (
        ({"steps": 0}, "steps=0"),
        ({"turn_detection": {"silence_ms": 5}}, "no 'silence_ms'"),
        ({"voice": 1}, "no option 'voice'"),
        ({"context": 512}, "open another one"),
    ):
        with pytest.raises(UserError, match=told):
            session.update(**wrong)


def test_old_turns_are_forgotten_and_it_is_told(model):
    session = opened(model, context=128)
    found = [event for n in range(12) for event in ask(session, QUESTIONS[n % 4])]
    told = of(found, TurnsForgotten)
    assert told and [e.turns for e in told] == sorted({e.turns for e in told})
    assert len(of(found, ResponseEnded)) == 12
    assert all(event.reason == "completed" for event in of(found, ResponseEnded))


# Each costs a fraction of a second with these parts; the full number is in the long tests.
@pytest.mark.slow
@pytest.mark.parametrize("times", [25, pytest.param(1000, marks=pytest.mark.full)])
def test_random_interruptions_leave_nothing_behind(model, times):
    clock, rng = Clock(), np.random.default_rng(0)
    session = opened(model, clock, context=128)
    speech, counts, memory = asked(), [], []
    for n in range(times):
        session.push_text(QUESTIONS[rng.integers(4)])
        session.commit()
        for _ in range(rng.integers(0, 60)):
            session.work()
        if rng.random() < 0.7:
            counts += ends_of(session)
        clock.now += rng.random() * 4
        what = rng.integers(4)
        if what == 0:
            session.cancel()
        elif what == 1:
            session.truncate(rng.random() * 5)
        elif what == 2:
            session.push_audio(np.concatenate([silence(0.3), speech[:16_000], silence(0.7)]))
        for _ in range(rng.integers(0, 30)):
            session.work()
        if n % 10 == 9:
            work(session)
            counts += ends_of(session)
            gc.collect()
            memory.append((len(gc.get_objects()), resident()))
    work(session)
    counts += ends_of(session)
    starts, ends = of(counts, ResponseStarted), of(counts, ResponseEnded)
    assert (
        [e.response for e in starts] == [e.response for e in ends] == list(range(1, len(ends) + 1))
    )
    assert {end.reason for end in ends} == {"completed", "cancelled", "turn_detected"}
    later = memory[len(memory) // 2 :]
    if times >= 1000:  # in half of all; of what is said nothing is kept
        objects, size = (steadily(values) for values in zip(*later, strict=True))
        assert size < 8 * 2**20 and objects < 5 * times, memory
    assert ask(session)[-1].reason == "completed"


def steadily(values):
    """How much they rise, but for the three largest steps: a program that is compiled late."""
    return np.sort(np.diff(values))[:-3].sum()


def ends_of(session):
    return [e for e in events(session) if isinstance(e, ResponseStarted | ResponseEnded)]
