"""A question is heard while it is still being spoken: its draft is there when it is over, and nothing
that anybody is told depends on it.
"""

import time

import jax.numpy as jnp
import numpy as np
import pytest
import small_session
import small_speech
from small_session import Clock, asked, events, of, plain, run, silence, work

from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import ResponseEnded, SpeechStarted, Transcript
from mdmspeech.inference.session_loop import SessionLoop
from mdmspeech.inference.speech_frontend import SpeechFrontend
from mdmspeech.models.ctc_adaptor import CTCAdaptor, ctc_greedy_decode

AROUND = (silence(1.0), asked(), silence(1.0))
IDS, END = 6, 99


def opened(model, **settings):
    """With few answers that are begun in vain, unless it is said."""
    return small_session.opened(model, **{"speculate_s": 0.3} | settings)


def drafting_frontend() -> SpeechFrontend:
    """One that spells as the small model's does, and whose ids say how much it heard and the draft
    that it was given.
    """
    config, params = small_speech.spelling()
    module = CTCAdaptor(config)

    def adapt(params, states, valid, drafts):
        logits = module.apply({"params": params}, states, valid)
        ids = jnp.stack([jnp.sum(valid, axis=1), drafts[:, 0]], axis=1)
        return ids.astype(jnp.int32), logits

    def finish(out, valid, row):
        return None, ctc_greedy_decode(out[1][row : row + 1], valid[row : row + 1])[0]

    encoder = small_speech.ENCODER, small_speech.encoder_params()
    return SpeechFrontend(*encoder, adapt, params, finish, drafts=(IDS, END))


class Model(Assistant):
    """Counts what its front end does."""

    def __init__(self, assistant: Assistant, frontend: SpeechFrontend) -> None:
        voices = {name: lambda name=name: assistant.voice(name) for name in assistant.talkers}
        super().__init__("small", voices, lambda: frontend, lambda: assistant.thinker)
        self.calls: list[tuple] = []
        states, read = frontend.states, frontend.read

        def noted_states(waves, length, rows):
            self.calls.append(("states", len(waves[0]), length))
            return states(waves, length, rows)

        def noted_read(speech, drafts=()):
            found = read(speech, drafts)
            given = [None if draft is None else int(draft[0]) for draft in drafts]
            self.calls.append(("read", *given, int(found[0].written[0])))
            return found

        frontend.states, frontend.read = noted_states, noted_read


@pytest.fixture
def model(talkative):
    model = Model(talkative, drafting_frontend())
    model.frontend.encode(asked())
    model.calls.clear()
    return model


def run_ahead(session, *waves, piece=1600):
    """As `run`, and what may save time later is done whenever there is nothing else."""
    whole, found = np.concatenate(waves), []
    for at in range(0, len(whole), piece):
        session.push_audio(whole[at : at + piece])
        work(session)
        while session.work_ahead():
            assert not session.work()
        found += events(session)
    return found


@pytest.mark.slow
def test_nothing_that_is_told_depends_on_it(model, talkative):
    answered = run(opened(talkative), *AROUND)
    assert of(answered, Transcript)[0].text and of(answered, ResponseEnded)[0].audio_s > 0
    assert plain(run(opened(model), *AROUND)) == plain(answered)
    assert [call[0] for call in model.calls] == ["states", "read"]
    model.calls.clear()
    assert plain(run_ahead(opened(model), *AROUND)) == plain(answered)
    assert len(model.calls) > 6


def test_each_half_second_is_heard_and_the_last_is_the_draft_of_the_question(model):
    run_ahead(opened(model), silence(1.0), asked(), silence(0.16))
    states, reads = model.calls[::2], model.calls[1::2]
    assert {call[0] for call in states} == {"states"} and {call[0] for call in reads} == {"read"}
    lengths = [call[1] for call in states]
    assert len(lengths) >= 4 and (np.diff(lengths[:-1]) >= 0.5 * 16_000).all()
    assert max(np.diff(lengths)) <= 0.75 * 16_000
    # each is given what the one before it wrote, the first nothing
    drafts, written = [call[1] for call in reads], [call[2] for call in reads]
    assert drafts == [None, *written[:-1]] and len(set(written)) == len(written)


def test_at_a_pause_nothing_is_begun_that_the_answer_would_wait_for(model):
    session = opened(model)
    run_ahead(session, silence(1.0), asked()[:20_000], silence(0.01), piece=512)
    session.push_audio(asked()[20_000:30_000])  # enough for more
    work(session)
    while not session._listener.pausing:
        session.push_audio(silence(512 / 16_000))
        work(session)
    before = len(model.calls)
    assert session._current is None and session._listener.spoken > 30_000
    assert not session.work_ahead() and len(model.calls) == before
    session.push_audio(asked()[30_000:35_000])
    work(session)
    assert not session._listener.pausing and session.work_ahead()


def test_only_the_draft_of_this_question_is_used(model):
    session = opened(model)
    found = run_ahead(session, *AROUND, *AROUND)
    assert len(of(found, SpeechStarted)) == 2 == len(of(found, ResponseEnded))
    assert [call[1] for call in model.calls if call[0] == "read"].count(None) == 2


def test_an_answer_begun_too_early_leaves_its_transcript_as_a_draft(model):
    """Also where nothing was heard ahead."""
    session = opened(model)
    spoken = asked()
    run(session, silence(1.0), spoken[:14_000], silence(0.4))
    assert session._current.held
    run(session, spoken[14_000:], silence(0.6))
    first, second = (call for call in model.calls if call[0] == "read")
    assert first[1] is None and second[1] == first[2] < second[2]


def test_what_was_heard_of_less_is_no_draft_any_more(model):
    """The encoder's half of a unit was done when the pause came, the whole was heard in between."""
    session, spoken = opened(model), asked()
    run(session, silence(1.0), spoken[:14_000])
    assert session.work_ahead() and model.calls[-1][0] == "states"
    run(session, silence(0.4))
    assert session._current.held
    heard = model.calls[-1][2]
    run(session, spoken[14_000:17_000])
    assert session._current is None and session._ahead.draft[0] == heard
    while session.work_ahead():
        assert model.calls[-1][0] == "states" or model.calls[-1][2] > heard


def test_there_is_nothing_to_do_ahead(model, talkative):
    """Before anybody speaks, while an answer is made, afterwards, or where it is of no use."""
    session = Session(model, SessionConfig(**small_session.SETTINGS), clock=Clock())
    assert not session.work_ahead()  # not open yet
    session = opened(model)
    run(session, silence(1.0))
    assert not session.work_ahead()
    run(session, asked()[:20_000])
    assert session.work_ahead() and session.work_ahead()
    session.push_audio(silence(0.45))
    while session._current is None:
        assert session.work()
    assert not session.work_ahead()
    work(session)
    session.close()
    work(session)
    assert not session.work_ahead()
    for other, settings in ((model, {"speculate_s": None}), (talkative, {})):
        session = opened(other, **settings)
        run(session, silence(1.0), asked()[:20_000])
        assert session._listener.spoken and not session.work_ahead()


def test_nothing_is_compiled_for_it(talkative, compiled):
    """It takes the padded lengths that there are, or waits until there is one."""
    model = Model(talkative, drafting_frontend())
    run_ahead(opened(model), silence(1.0), asked())
    assert not model.calls
    model.frontend.encode(asked())  # of three seconds
    model.calls.clear()
    session = opened(model)
    run_ahead(session, silence(1.0))
    compiled.clear()
    run_ahead(session, asked()[:30_000])
    assert {call[2] for call in model.calls if call[0] == "states"} == {48_000} and not compiled


def test_what_fails_ahead_is_no_news(model, talkative, caplog):
    answered, failed = run(opened(talkative), *AROUND), []
    read = model.frontend.read

    def fails_once(*given):
        if not failed:
            failed.append(True)
            raise ValueError("once")
        return read(*given)

    model.frontend.read = fails_once
    assert plain(run_ahead(opened(model), *AROUND)) == plain(answered) and failed
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_a_draft_longer_than_the_adaptor_takes(model):
    long = np.arange(40, dtype=np.int32)
    assert model.frontend.encode(asked(), long).written[1] == 0
    assert model.frontend.encode(asked()).written[1] == END


class Counted:
    """Sessions of a loop that say when they were asked for work."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("work", "work_ahead"):
            monkeypatch.setattr(Session, name, self.noted(name, getattr(Session, name)))

    def noted(self, name, method):
        def called(session):
            done = method(session)
            self.calls.append((session, name, done))
            return done

        return called


def test_a_loop_works_ahead_only_when_nobody_has_work(model, monkeypatch):
    noted = Counted(monkeypatch)
    loop = SessionLoop(model)
    with (
        loop.open(SessionConfig(**small_session.SETTINGS)) as one,
        loop.open(SessionConfig(**small_session.SETTINGS)) as other,
    ):
        other.push_text("what is it ?")
        other.commit()
        one.push_audio(np.concatenate([silence(1.0), asked()[:20_000]]))
        for event in other.events:
            if isinstance(event, ResponseEnded):
                break
        for _ in range(3000):
            if any(done for _, name, done in list(noted.calls) if name == "work_ahead"):
                break
            time.sleep(0.01)
    for session in (one, other):
        list(session.events)
    ahead = [
        number
        for number, (_, name, done) in enumerate(noted.calls)
        if name == "work_ahead" and done
    ]
    assert ahead and noted.calls[ahead[0]][0] is one
    for number in ahead:  # the round before it: everybody was asked, nobody did anything
        before = [call for call in noted.calls[:number] if call[1] == "work"][-2:]
        assert {call[0] for call in before} == {one, other} and not any(call[2] for call in before)
