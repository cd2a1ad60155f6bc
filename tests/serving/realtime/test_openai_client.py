"""OpenAI's own Python client, unchanged, in conversation with a real server."""

import base64
import contextlib
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import small_session
import soxr
from scripted import check_rules, kinds, of

from mdmspeech.audio.wave import to_int16

openai = pytest.importorskip("openai", reason="pip install 'mdmspeech[dev]'")

STEPS = {"audio": {"output": {"steps": 2}}}


@pytest.fixture(scope="module")
def realtime(server):
    return openai.OpenAI(
        api_key="not-needed", base_url=f"{server.url}/v1",
        websocket_base_url=f"ws://127.0.0.1:{server.port}/v1",
    ).realtime  # fmt: skip


class Caller:
    """A connection, and all that came over it."""

    def __init__(self, connection):
        self.connection, self.found = connection, []
        self.until("session.created")

    def until(self, kind, at_most=600):
        """The next event of a kind."""
        for _ in range(at_most):
            event = self.connection.recv()
            self.found.append(event.model_dump(mode="json", exclude_unset=True))
            if event.type == kind:
                return event
            assert event.type != "error" or kind == "error", event
        raise AssertionError(f"no {kind}")

    def update(self, **session):
        self.connection.session.update(session={"type": "realtime", **session})
        return self.until("session.updated")

    def push(self, *waves, piece=2400):
        """Sound at 24 kHz, int16, as a microphone gives it."""
        whole = np.concatenate(waves)
        for at in range(0, len(whole), piece):
            data = whole[at : at + piece].astype("<i2").tobytes()
            self.connection.input_audio_buffer.append(audio=base64.b64encode(data).decode())

    def ask(self, text):
        content = [{"type": "input_text", "text": text}]
        self.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        self.connection.response.create()


@pytest.fixture
def call(realtime):
    with realtime.connect(model="small") as connection:
        caller = Caller(connection)
        yield caller
    check_rules(caller.found)


def asked():
    return to_int16(soxr.resample(small_session.asked(), 16_000, 24_000))


def quiet(seconds):
    return np.zeros(int(24_000 * seconds), np.int16)


def pcm(found):
    deltas = of(found, "response.output_audio.delta")
    return b"".join(base64.b64decode(delta["delta"]) for delta in deltas)


@contextlib.contextmanager
def slowly(assistant):
    """The model takes a moment more for everything, so that there is time to interrupt it."""

    class Slow:
        closed = False

        def work(self):
            time.sleep(0.03)
            return False

        def speaking(self):
            return None

    slow = Slow()
    assistant.sessions.join(slow)
    try:
        yield
    finally:
        slow.closed = True
        assistant.sessions.wake()


@pytest.mark.slow
def test_a_spoken_question_is_answered_as_in_process(call, assistant):
    """To the last sample."""
    call.update(audio={"input": {"transcription": {"model": "whisper-1"}}, **STEPS["audio"]})
    sound = (quiet(0.5), asked(), quiet(1.0))
    call.push(*sound)
    done = call.until("response.done").response
    session, found = small_session.opened(assistant), []
    session.push_audio(np.concatenate(sound), 24_000)
    small_session.work(session)
    found = small_session.events(session)
    assert pcm(call.found) == to_int16(small_session.joined(found)).astype("<i2").tobytes()
    assert done.status == "completed"
    transcript = of(call.found, "conversation.item.input_audio_transcription.completed")[0]
    assert transcript["transcript"] == found[2].text
    assert done.output[0].content[0].transcript.strip() == found[-1].text
    assert done.usage.output_token_details.audio_tokens == found[-1].usage.audio_out
    started = of(call.found, "input_audio_buffer.speech_started")[0]
    assert started["audio_start_ms"] == round(1000 * found[0].at_s)


def test_typed_questions_and_what_was_said_before_trap_17(call, assistant):
    """The second answer knows the first."""
    call.update(**STEPS, instructions="be a red apple")
    session = small_session.opened(assistant, instructions="be a red apple")
    cached = []
    for question in ("what is it ?", "is a red apple good ?"):
        call.ask(question)
        done = call.until("response.done").response
        session.push_text(question)
        session.commit()
        small_session.work(session)
        end = small_session.events(session)[-1]
        assert done.output[0].content[0].transcript.strip() == end.text
        cached.append(done.usage.input_token_details.cached_tokens)
    assert cached[1] > cached[0]


def test_one_answer_in_writing(call):
    call.connection.conversation.item.create(
        item={
            "type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "what is it ?"}],
        }
    )  # fmt: skip
    call.connection.response.create(
        response={"output_modalities": ["text"], "max_output_tokens": 3, "metadata": {"a": "b"}}
    )
    done = call.until("response.done").response
    assert done.status == "incomplete" and done.status_details.reason == "max_output_tokens"
    assert done.metadata == {"a": "b"} and done.usage.output_token_details.text_tokens == 3
    assert not pcm(call.found) and of(call.found, "response.output_text.done")


def test_push_to_talk_as_in_the_clients_own_example(call):
    """Which cancels before anything runs."""
    call.update(audio={"input": {"turn_detection": None}, **STEPS["audio"]})
    call.connection.response.cancel()
    assert call.until("error").error.code == "response_cancel_not_active"
    call.push(asked())
    call.connection.input_audio_buffer.commit()
    call.until("input_audio_buffer.committed")
    call.connection.response.create()
    assert call.until("response.done").response.status == "completed" and pcm(call.found)


def test_speech_interrupts_the_answer(call, assistant):
    call.update(**STEPS)
    with slowly(assistant):
        call.ask("what is it ?")
        item = call.until("response.output_audio.delta").item_id
        call.push(quiet(0.3), asked(), quiet(1.0))
        assert call.until("input_audio_buffer.speech_started").interrupted_item_id == item
        # no more than was on its way is sent
        done = call.until("response.done").response
        assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected")
        call.until("response.created")
    assert call.until("response.done").response.status == "completed"


def test_cancel_and_truncate(call, assistant):
    call.update(**STEPS)
    with slowly(assistant):
        call.ask("what is it ?")
        item = call.until("response.output_audio.delta").item_id
        call.connection.response.cancel()
        done = call.until("response.done").response
        assert done.status_details.reason == "client_cancelled"
    call.connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=100)
    assert call.until("conversation.item.truncated").audio_end_ms == 100
    call.connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=10**8)
    assert call.until("conversation.item.truncated").audio_end_ms < 10_000
    call.connection.conversation.item.retrieve(item_id=item)
    assert call.until("conversation.item.retrieved").item.status == "incomplete"
    call.connection.conversation.item.delete(item_id=item)
    call.until("conversation.item.deleted")
    call.ask("yes")
    assert call.until("response.done").response.status == "completed"


def test_many_at_once(realtime, server):
    """Each gets its own answer, and the sound of it as alone."""
    answers = {}

    def talk(number, question):
        with realtime.connect(model="small") as connection:
            caller = Caller(connection)
            caller.update(**STEPS)
            caller.ask(question)
            caller.until("response.done")
            answers[number] = pcm(caller.found)

    questions = ["what is it ?", "is a red apple good ?", "what is it ?", "yes and no"]
    threads = [threading.Thread(target=talk, args=one) for one in enumerate(questions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 4 and answers[0] == answers[2] != answers[1]
    assert all(map(len, answers.values()))


def test_the_kinds_that_were_seen(call):
    """Everything that came is of a type that the client knows."""
    call.update(**STEPS)
    call.ask("what is it ?")
    call.until("response.done")
    known = openai.types.realtime.RealtimeServerEvent
    from openai._models import construct_type

    for event in call.found:
        built = construct_type(value=event, type_=known)
        assert built.type == event["type"] and type(built).__name__ != "dict"
    assert "response.output_item.added" in kinds(call.found)


def test_the_documented_example(server, assistant, capsys):
    """docs/realtime.md, as it stands there but for the address and the model."""
    text = (Path(__file__).parents[3] / "docs" / "realtime.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(code) == 1 and code[0].count("127.0.0.1:8000") == 2
    code = code[0].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("compact", "small")
    exec(compile(code, "docs/realtime.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) > 1
