"""A session answers what it hears as `stream` does, however the sound comes; what was begun too early
or cut off leaves nothing behind.
"""

import dataclasses

import numpy as np
import pytest
import small_session
from small_session import (
    RATE,
    Clock,
    asked,
    events,
    of,
    opened,
    plain,
    run,
    silence,
    work,
)

from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import AudioEvent, EndEvent
from mdmspeech.inference.recording import Recording, Resampler
from mdmspeech.inference.session_config import TAIL, SessionConfig
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    ResponseTokens,
    SessionClosed,
    SessionError,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnCommitted,
)

AROUND = (silence(1.0), asked(), silence(1.0))


@pytest.fixture(scope="module")
def model(talkative):
    return talkative


@pytest.fixture(scope="module")
def answered(model):
    """One question and its answer."""
    return run(opened(model), *AROUND)


def kinds(found):
    return [type(event).__name__ for event in found]


def test_one_question_is_answered_as_stream_answers_it(model, answered):
    (started,), (stopped,) = of(answered, SpeechStarted), of(answered, SpeechStopped)
    assert 0.6 < started.at_s < 1.2 and 3.5 < stopped.at_s < 4.2 and started.interrupts is None
    begin, end = int(started.at_s * RATE), int(stopped.at_s * RATE) + 5 * 512
    streamed = list(model.stream(np.concatenate(AROUND)[begin:end], steps=2))
    reply = streamed[-1].reply
    assert of(answered, Transcript) == [Transcript(1, reply.heard)]
    assert "".join(e.text for e in of(answered, ResponseText)).strip() == reply.text
    spoken, tokens = of(answered, ResponseAudio), of(answered, ResponseTokens)
    for one, other in zip(spoken, of(streamed, AudioEvent), strict=True):
        np.testing.assert_array_equal(one.audio, other.audio)
    np.testing.assert_array_equal(np.concatenate([e.tokens for e in tokens]), reply.tokens)
    np.testing.assert_array_equal(np.concatenate([e.steps for e in tokens]), reply.trace.step_L)
    assert tuple(word for event in spoken for word in event.words) == reply.words
    assert isinstance(streamed[-1], EndEvent)
    end = answered[-1]
    assert (end.reason, end.text, end.response) == ("completed", reply.text, 1)
    assert end.audio_s == pytest.approx(len(reply.audio) / reply.sample_rate)


def test_events_come_in_order(answered):
    found = kinds(answered)
    assert found[:5] == [
        "SpeechStarted", "SpeechStopped", "Transcript", "ResponseStarted", "ResponseText",
    ]  # fmt: skip
    assert found[-1] == "ResponseEnded" and found.count("ResponseStarted") == 1
    assert "ResponseText" in found[found.index("ResponseAudio") :]  # spoken while it is written
    at, start = 0.0, 0
    for event in of(answered, ResponseAudio):
        assert event.start_s == pytest.approx(at)
        at += len(event.audio) / event.sample_rate
        assert all(
            word.end <= at + 1e-6 or event is of(answered, ResponseAudio)[-1]
            for word in event.words
        )
    for event in of(answered, ResponseTokens):
        assert event.start == start and len(event.tokens) <= 16
        start += len(event.tokens)


def test_a_block_can_be_seen_as_it_was_unmasked(answered):
    block = of(answered, ResponseTokens)[0]
    shown = [(block.provisional(step) >= 0).sum() for step in range(-1, 2)]
    assert shown[0] == 0 and shown[-1] == len(block.tokens) and shown == sorted(shown)
    assert len(set(shown)) == 3
    np.testing.assert_array_equal(block.provisional(1), block.tokens)


@pytest.mark.parametrize("seed", range(4))
def test_the_pieces_do_not_matter(model, answered, seed):
    rng, session, whole, found = (
        np.random.default_rng(seed),
        opened(model),
        np.concatenate(AROUND),
        [],
    )
    largest, at = (400, 3000, 20_000, 10**6)[seed], 0
    while at < len(whole):
        size = int(rng.integers(1, largest))
        piece = whole[at : at + size]
        session.push_audio(piece)
        at += size
        if rng.random() < 0.7:
            work(session)
        found += events(session)
    work(session)
    assert plain(found + events(session)) == plain(answered)


@pytest.mark.parametrize("rate", [8000, 24_000, 44_100, 48_000, 11_025])
def test_any_rate_in_any_pieces(rate):
    rng, wave = np.random.default_rng(rate), small_session.asked()[:20_000].astype(np.float64)
    whole = Resampler()
    expected = np.concatenate([whole.push(wave, rate), whole.flush()])
    assert len(expected) == pytest.approx(len(wave) * RATE / rate, abs=2)
    for largest in (100, 4000):
        pieces, found, at = Resampler(), [], 0
        while at < len(wave):
            size = int(rng.integers(0, largest))
            found.append(pieces.push(wave[at : at + size], rate))
            at += size
        np.testing.assert_allclose(np.concatenate([*found, pieces.flush()]), expected, atol=1e-6)


def test_a_change_of_rate_loses_nothing():
    stream, tone = Resampler(), np.sin(np.arange(48_000) / 30)
    found = [stream.push(tone[:24_000], 48_000), stream.push(tone[:8000], 16_000)]
    found += [stream.push(tone[:24_000], 24_000), stream.flush()]
    assert sum(map(len, found)) == pytest.approx(8000 + 8000 + 16_000, abs=4)
    np.testing.assert_array_equal(found[1][-8000:], tone[:8000].astype(np.float32))


@pytest.mark.parametrize(
    ("samples", "rate", "told"),
    [
        (np.zeros((2, 100)), 16_000, r"shape \(2, 100\)"),
        (np.zeros(100, np.int32), 16_000, "type int32"),
        (["a"], 16_000, "float at full scale 1 or int16"),
        (np.full(100, np.nan), 16_000, "NaN"),
        (np.full(100, 3000.0), 16_000, "divide integers by their full scale"),
        (np.zeros(100), 0, "sample rate of 0 Hz"),
        (np.zeros(100), "16k", "sample rate of '16k' Hz"),
    ],
)
def test_sound_that_is_none_is_refused_at_once(model, samples, rate, told):
    session = opened(model)
    with pytest.raises(UserError, match=told):
        session.push_audio(samples, rate)
    session.push_audio(np.zeros(0))
    session.push_audio(np.array([], np.int16), 24_000)
    assert not session.work()


def test_integers_are_heard_as_floats(model, answered):
    wave = np.concatenate(AROUND)
    found = run(opened(model), np.round(wave * 32768).astype(np.int16) / np.float32(32768))
    session, integers = opened(model), []
    for piece in np.split(np.round(wave * 32768).astype(np.int16), range(1600, len(wave), 1600)):
        session.push_audio(piece)
        work(session)
        integers += events(session)
    assert plain(integers) == plain(found)


def test_a_recording_keeps_what_is_needed():
    recording, wave = Recording(), np.arange(1000, dtype=np.float32)
    for at in range(0, 1000, 100):
        recording.append(wave[at : at + 100])
        recording.forget(at - 150)
    assert recording.start == 700 and recording.end == 1000
    np.testing.assert_array_equal(recording.wave(850, 930), wave[850:930])
    np.testing.assert_array_equal(recording.wave(0, 2000), wave[700:])


# ---- The answer that is begun early -------------------------------------------------------------


def pause(seconds):
    """The question with so much silence between its words."""
    wave = asked()
    return np.concatenate([wave[:14_000], silence(seconds), wave[14_000:]])


def without_times(found):
    return plain(
        dataclasses.replace(e, first_audio_s=None) if isinstance(e, ResponseEnded) else e
        for e in found
    )


@pytest.mark.parametrize("between", [0.0, 0.25, 0.4])
def test_an_answer_begun_early_is_the_answer(model, between, monkeypatch):
    """Two questions, each perhaps with a pause in which an answer is begun that is thrown away."""
    begun = []
    begin = small_session.Session._begin
    monkeypatch.setattr(
        small_session.Session,
        "_begin",
        lambda self, question, held=False: (begun.append(held), begin(self, question, held))[1],
    )
    hum = 0.003 * np.random.default_rng(0).normal(size=2 * RATE).astype(np.float32)
    sound = (hum[:RATE], pause(between)[: 4 * RATE - 10_000], hum) * 2
    found = [
        run(opened(model, Clock(), speculate_s=early, interrupt_response=False), *sound)
        for early in (TAIL, None)
    ]
    assert plain(found[0]) == plain(found[1])
    assert len(of(found[0], ResponseEnded)) == 2
    assert begun.count(True) >= (4 if between > 0.3 else 2) and begun.count(False) == 2


def test_early_and_late_answers_hear_the_same_by_default():
    assert SessionConfig().speculate_s == TAIL


def test_the_first_sound_is_there_when_the_turn_is_over(model):
    session, whole = opened(model), np.concatenate(AROUND)
    for at in range(0, len(whole), 512):
        session.push_audio(whole[at : at + 512])
        session.work()  # listens to it
        if found := of(list(session.events._events), SpeechStopped):
            break
        assert not of(list(session.events._events), ResponseStarted)
        work(session)
    assert found
    assert kinds(events(session))[-1] == "ResponseAudio"


def test_nobody_sees_an_answer_that_was_begun_too_early(model):
    session = opened(model, speculate_s=0.15)
    found = run(session, silence(1.0), asked()[:14_000], silence(0.3))
    assert kinds(found) == ["SpeechStarted"] and session._current.waits
    found = run(session, asked()[14_000:])
    assert not found and session._current is None and session._questions.asked == 0
    found = run(session, silence(0.6))
    assert of(found, ResponseStarted) == [ResponseStarted(1, 1)]


def test_a_question_typed_beside_an_early_answer_keeps_its_number(model):
    """The early answer is taken back; the spoken question it was for is numbered after the typed one."""
    session = opened(model)
    run(session, silence(1.0), asked()[:14_000], silence(0.3))
    assert session._current.waits
    session.note("what is it ?", "typed")
    found = run(session, asked()[14_000:], silence(0.6))
    numbers = [event.number for event in of(found, TurnCommitted)]
    numbers += [event.question for event in of(found, SpeechStopped)]
    assert len(numbers) == len(set(numbers)) == 2 and None not in numbers


def test_a_failure_in_an_early_answer_is_no_news(model, answered, monkeypatch):
    """The question is asked again when the turn is over."""
    session, encode = opened(model), model.frontend.encode
    failed = []

    def fails_once(wave, draft):
        if not failed:
            failed.append(True)
            raise ValueError("once")
        return encode(wave, draft)

    monkeypatch.setattr(model.frontend, "encode", fails_once)
    assert plain(run(session, *AROUND)) == plain(answered) and failed


# ---- What ends a turn ----------------------------------------------------------------------------


def test_a_question_of_more_than_the_encoder_hears_is_cut(model):
    session = opened(model, interrupt_response=False)
    found = run(session, silence(0.5), asked()[:40_000], asked()[:40_000], silence(1.0))
    limit = model.frontend.limit
    starts, stops = of(found, SpeechStarted), of(found, SpeechStopped)
    assert len(starts) == len(stops) == 2 and len(of(found, ResponseEnded)) == 2
    assert limit - 0.1 < stops[0].at_s - starts[0].at_s <= limit
    assert starts[1].at_s >= stops[0].at_s  # nothing is heard twice


def test_turns_that_the_caller_ends(model):
    """Without detection: what was pushed since the last turn."""
    session = opened(model, turn_detection=None)
    assert not run(session, asked())
    session.commit()
    work(session)
    found = events(session)
    assert kinds(found)[:2] == ["Transcript", "ResponseStarted"]
    assert found[0].text == model.transcript(asked()) and found[-1].reason == "completed"
    assert model.chat(asked()).text == found[-1].text
    session.commit()
    work(session)
    (error,) = events(session)
    assert error.message.startswith("there is nothing to commit")
    run(session, asked())
    session.clear()
    session.commit()
    work(session)
    assert kinds(events(session)) == ["SessionError"]


def test_too_much_without_a_commit(model):
    session = opened(model, turn_detection=None)
    found = run(session, *[asked()] * 3)
    (error,) = found
    assert "more than 4 s of sound wait for commit()" in error.message
    assert session._listener._recording.end - session._listener._recording.start < 4.3 * RATE
    session.commit()
    work(session)
    found = events(session)
    assert found[0].text == model.transcript(np.concatenate([asked()] * 3)[-4 * RATE :])
    assert found[-1].reason == "completed"


@pytest.mark.parametrize("after", [2.5, 3.95, 4.25])
def test_a_commit_in_the_middle_of_speech_ends_the_turn(model, after):
    """Also while an answer is kept back, which is the answer then."""
    session = opened(model)
    found = run(session, np.concatenate(AROUND)[: int(after * RATE)])
    session.commit()
    work(session)
    found += events(session)
    assert kinds(found)[:4] == ["SpeechStarted", "SpeechStopped", "Transcript", "ResponseStarted"]
    assert found[-1].reason == "completed"
    assert not of(run(session, silence(1.0)), SpeechStopped)


def test_typed_questions(model):
    session = opened(model)
    session.push_text("what is it ?")
    session.commit()
    work(session)
    found = events(session)
    assert kinds(found)[0] == "ResponseStarted"
    assert found[-1].text == model.answer("what is it ?", steps=2).text
    session.push_text("is a red apple")
    session.push_text("good ?")
    session.commit()
    work(session)
    assert events(session)[-1].reason == "completed"
    assert [t for _, t in session._conversation.turns[1].asked] == ["is a red apple", "good ?"]
    with pytest.raises(UserError, match="there is no question"):
        session.push_text("?!")


def test_sound_that_holds_no_words_is_not_answered(model, monkeypatch):
    heard = model.frontend.encode(asked())._replace(transcript="")
    monkeypatch.setattr(model.frontend, "encode", lambda wave, draft=None: heard)
    session = opened(model)
    found = run(session, *AROUND)
    assert kinds(found) == ["SpeechStarted", "SpeechStopped", "Transcript"] and found[2].text == ""
    assert (
        session._current is None
        and not session._conversation.turns
        and not session._questions.noted
    )


def test_questions_that_are_only_written_down(model):
    """A session that transcribes, until it is asked to respond."""
    session = opened(model, create_response=False)
    found = run(session, *AROUND, *AROUND)
    assert kinds(found) == ["SpeechStarted", "SpeechStopped", "Transcript"] * 2
    assert [event.question for event in of(found, Transcript)] == [1, 2]
    session.respond()
    work(session)
    found = events(session)
    assert kinds(found)[0] == "ResponseStarted" and found[-1].reason == "completed"
    asked_for = [part for _, part in session._conversation.turns[0].asked]
    assert len(asked_for) == 2 and all(isinstance(part, str) for part in asked_for)
    for n in range(12):  # more than may wait for an answer of their own
        session.note(f"it is {n % 2} good", f"note {n}")
    session.respond()
    work(session)
    assert events(session)[-1].reason == "completed"
    assert len(session._conversation.turns[-1].asked) == 12
    session.respond()
    work(session)
    assert "nothing to respond to" in events(session)[-1].message


def test_more_questions_than_can_wait(model):
    session = opened(model)
    for _ in range(10):
        session.push_text("what is it ?")
        session.commit()
    work(session)
    found = events(session)
    assert len(of(found, ResponseEnded)) == 8
    assert [e.message[:25] for e in of(found, SessionError)] == ["8 questions wait for thei"] * 2
    assert [e.response for e in of(found, ResponseEnded)] == list(range(1, 9))


# ---- Errors and the end --------------------------------------------------------------------------


def test_a_failure_ends_one_response_and_not_the_session(model, monkeypatch, caplog):
    session = opened(model)
    step = model.voice("mdm").codec.stream
    monkeypatch.setattr(model.voice("mdm").codec, "stream", lambda: 1 / 0)
    session.push_text("what is it ?")
    session.commit()
    work(session)
    told = events(session)[-1].message
    assert "something went wrong inside (ZeroDivisionError)" in told and "by zero" not in told
    assert "ZeroDivisionError" in caplog.text and "session.py" in caplog.text
    assert "by zero" not in caplog.text  # what an error says may be what was said
    monkeypatch.setattr(model.voice("mdm").codec, "stream", step)
    session.push_text("what is it " * 100)
    session.commit()
    work(session)
    found = events(session)
    assert kinds(found) == ["ResponseStarted", "ResponseEnded"]
    assert found[1].reason == "error" and "ask something shorter" in found[1].message
    session.push_text("what is it ?")
    session.commit()
    work(session)
    assert events(session)[-1].text == model.answer("what is it ?", steps=2).text


def test_a_session_that_cannot_be_opened_says_why(model):
    session = small_session.Session(model, small_session.SessionConfig(steps=32, warm_up=False))
    work(session)
    assert "a block has 16 tokens" in session.events.get().message and session.closed
    other = small_session.Session(model, small_session.SessionConfig(talker="mtp", warm_up=False))
    other.work()
    (closed,) = list(other.events)
    assert isinstance(closed, SessionClosed) and "no talker 'mtp'" in closed.message


@pytest.mark.parametrize("units", [0, 1, 3, 10, 1000])
def test_closing_at_any_time(model, units):
    session = opened(model)
    session.push_audio(np.concatenate(AROUND))
    for _ in range(30 + units):
        session.work()
    session.close()
    work(session)
    found = list(session.events)  # ends by itself
    assert isinstance(found[-1], SessionClosed) and session.closed
    assert len(of(found, ResponseStarted)) == len(of(found, ResponseEnded))
    session.push_audio(asked())
    session.commit()
    session.close()
    assert session.work() is False and not events(session) and not session._inbox
