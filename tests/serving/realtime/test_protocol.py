"""Events in, calls out; events of the session in, events out: in tables, without a socket or a
model.
"""

import base64

import numpy as np
import pytest
from scripted import (
    COMPLETED,
    PUSH_TO_TALK,
    TRANSCRIBE,
    Talk,
    b64,
    check_rules,
    kinds,
    of,
    said,
    sound,
    spoken_turn,
)

from mdmspeech.audio.wave import to_int16
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    SessionClosed,
    SessionError,
    SpeechStarted,
    SpeechStopped,
    TurnCommitted,
    Usage,
)

# ---- A question and its answer --------------------------------------------------------------------


def test_a_spoken_question_and_its_answer_in_order():
    talk = Talk(**TRANSCRIBE)
    found = talk.tell(*spoken_turn())
    found += talk.answer(create=False)
    assert kinds(found) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        COMPLETED,
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    check_rules(talk.sent)
    assert found[0]["audio_start_ms"] == 500 and found[1]["audio_end_ms"] == 1500
    user, assistant = found[0]["item_id"], found[7]["item"]["id"]
    assert {e["item_id"] for e in found[:3]} == {user} and found[3]["item"]["id"] == user
    assert found[5]["transcript"] == "what is it ?" and found[5]["item_id"] == user
    assert found[5]["usage"] == {"type": "duration", "seconds": 1.0}
    assert found[8]["previous_item_id"] == user and found[2]["previous_item_id"] is None
    assert found[9]["part"] == {"type": "audio", "transcript": ""}
    assert found[15]["transcript"] == "it is good" and found[10]["item_id"] == assistant
    done = found[-1]["response"]
    assert done["status"] == "completed" and done["output"][0]["id"] == assistant
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": "it is good"}]


def test_sound_is_16_bit_little_endian_and_clipped():
    deltas = of(Talk().answer(create=False), "response.output_audio.delta")
    for seed, delta in enumerate(deltas):
        expected = to_int16(sound(seed))
        assert expected.max() == 32767 and expected.min() == -32768
        assert base64.b64decode(delta["delta"]) == expected.astype("<i2").tobytes()


def test_a_typed_question():
    talk = Talk()
    item = talk.typed("is a red apple good ?", id="mine")
    assert item == "mine" and talk.calls.of("note")[0][0][0] == "is a red apple good ?"
    assert kinds(talk.sent[1:]) == ["conversation.item.added", "conversation.item.done"]
    assert talk.sent[1]["item"]["content"] == [
        {"type": "input_text", "text": "is a red apple good ?"}
    ]
    (created,) = talk.respond(response={"metadata": {"client_event_id": "x"}})
    assert created["response"]["status"] == "in_progress" and created["response"]["output"] == []
    found = talk.tell(
        ResponseStarted(1, 2, talk.calls.ref("respond")),
        *said(1),
        ResponseEnded(1, "completed", "it is good", 0.5, 0.1),
    )
    done = found[-1]["response"]
    assert done["metadata"] == {"client_event_id": "x"} == created["response"]["metadata"]
    assert done["id"] == created["response"]["id"]
    check_rules(talk.sent)


def test_text_without_speech():
    talk = Talk()
    talk.typed()
    talk.respond(response={"output_modalities": ["text"]})
    assert talk.calls.last("respond")[1]["output"] == "text"
    found = talk.tell(
        ResponseStarted(1, 2, talk.calls.ref("respond")),
        *[one for one in said(1) if type(one).__name__ == "ResponseText"],
        ResponseEnded(1, "completed", "it is good", 0.0, None),
    )
    check_rules(talk.sent)
    assert [e["delta"] for e in of(found, "response.output_text.delta")] == ["it is", " good"]
    assert of(found, "response.output_text.done")[0]["text"] == "it is good"
    assert found[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "it is good"}
    ]
    assert of(found, "response.content_part.added")[0]["part"] == {"type": "text", "text": ""}


# (reason of the session, status, reason of the protocol)
ENDS = [
    ("completed", "completed", None),
    ("turn_detected", "cancelled", "turn_detected"),
    ("cancelled", "cancelled", "client_cancelled"),
    ("max_output_tokens", "incomplete", "max_output_tokens"),
    ("error", "failed", None),
]


@pytest.mark.parametrize(("reason", "status", "told"), ENDS)
@pytest.mark.parametrize("pieces", [0, 1, 3, 6])
def test_whatever_ends_a_response_it_is_closed_once(reason, status, told, pieces):
    talk = Talk()
    talk.typed()
    talk.respond()
    found = talk.tell(
        ResponseStarted(1, 2, talk.calls.ref("respond")),
        *said(1)[:pieces],
        ResponseEnded(1, reason, "it", 0.5, 0.1, message="broken"),
    )
    check_rules(talk.sent)
    done = found[-1]["response"]
    assert done["status"] == status and done["status_details"].get("reason") == told
    assert ("error" in done["status_details"]) == (reason == "error")
    if pieces:
        assert done["output"][0]["status"] == (
            "completed" if reason == "completed" else "incomplete"
        )
        if reason != "completed":  # what is remembered of it
            (again,) = talk.say("conversation.item.retrieve", item_id=done["output"][0]["id"])
            assert again["item"]["content"][0]["transcript"] == "it"
    # and the next one can begin
    assert kinds(talk.respond()) == ["response.created"]


def test_usage_and_latency():
    usage = Usage(text_in=30, audio_in=12, cached=20, text_out=5, audio_out=50)
    found = Talk().answer(
        create=False, usage=usage, underruns=1, underrun_s=0.2, steps=(1, 4),
        timeline={"talker": 0.1234, "encoder": 0.01},
    )[-1]["response"]  # fmt: skip
    assert found["usage"] == {
        "total_tokens": 97, "input_tokens": 42, "output_tokens": 55,
        "input_token_details": {
            "text_tokens": 30, "audio_tokens": 12, "image_tokens": 0, "cached_tokens": 20,
        },
        "output_token_details": {"text_tokens": 5, "audio_tokens": 50},
    }  # fmt: skip
    assert found["mdmspeech"] == {
        "first_audio_ms": 100, "audio_ms": 500, "underruns": 1, "underrun_ms": 200, "steps": [1, 4],
        "stages_ms": {"talker": 123, "encoder": 10}, "remembered": "it is good",
        "forgotten_turns": 0,
    }  # fmt: skip


def test_words_and_tokens_are_fields_for_those_who_ask():
    plain = of(Talk().answer(create=False), "response.output_audio.delta")
    assert not any({"words", "blocks"} & set(delta) for delta in plain)
    include = ["response.output_audio.words", "response.output_audio.tokens"]
    talk = Talk(include=include)
    first, second = of(talk.answer(create=False), "response.output_audio.delta")
    assert first["words"] == [{"text": "it", "start_ms": 0, "end_ms": 100}]
    assert [word["text"] for word in second["words"]] == ["is", "good"]
    (block,) = second["blocks"]
    assert block["start"] == 16 and block["tokens"] == list(range(16))
    assert block["steps"] == [0, 1] * 8 and block["confidence"] == [0.5] * 16
    known = set(kinds(Talk().answer(create=False))) | {"session.created", "session.updated"}
    assert set(kinds(talk.sent)) <= known  # no new kinds of events
    silent = ResponseAudio(2, sound(0)[:0], 24_000, 0.0, said(1)[2].words)
    found = talk.tell(ResponseStarted(2, 2), silent)
    assert of(found, "response.output_audio.delta")[0]["delta"] == ""
    assert not of(Talk().tell(ResponseStarted(2, 2), silent), "response.output_audio.delta")


# ---- Sound that comes in --------------------------------------------------------------------------


def test_sound_goes_to_the_session_as_it_was_sent():
    talk, wave = Talk(), np.arange(-500, 500, dtype=np.int16)
    data = wave.astype("<i2").tobytes()
    for cut in (data[:7], data[7:8], data[8:1001], data[1001:]):  # also in the middle of a sample
        assert not talk.say("input_audio_buffer.append", audio=base64.b64encode(cut).decode())
    pushed = talk.calls.of("push_audio")
    np.testing.assert_array_equal(np.concatenate([args[0] for args, _ in pushed]), wave)
    assert {args[1] for args, _ in pushed} == {24_000}
    talk.say("session.update", session={"audio": {"input": {"format": {"rate": 16_000}}}})
    talk.say("input_audio_buffer.append", audio=b64(wave))
    assert talk.calls.last("push_audio")[0][1] == 16_000


# what is no sound
NO_SOUND = [None, 5, ["x"], {}, "not base64!", "AAA", "AA==\n", "é", "A" * 5]


@pytest.mark.parametrize("given", NO_SOUND, ids=str)
def test_what_is_no_sound(given):
    talk = Talk()
    error = talk.error("input_audio_buffer.append", audio=given, event_id="e")
    assert error["param"] == "audio" and "base64" in error["message"] and error["event_id"] == "e"
    assert not talk.calls.of("push_audio")
    assert not talk.say("input_audio_buffer.append", audio=b64([1, 2]))  # goes on


def test_push_to_talk():
    talk = Talk(**PUSH_TO_TALK, **{"output_modalities": ["audio"]})
    error = talk.error("input_audio_buffer.commit", event_id="c")
    assert error["code"] == "input_audio_buffer_commit_empty" and error["event_id"] == "c"
    talk.say("input_audio_buffer.append", audio=b64(np.zeros(2399)))
    assert "100 ms are the least" in talk.error("input_audio_buffer.commit")["message"]
    talk.say("input_audio_buffer.append", audio=b64(np.zeros(21_601)))
    assert not talk.say("input_audio_buffer.commit")
    (args, kwargs) = talk.calls.last("commit")
    assert kwargs == {"answer": False}  # it is `response.create` that asks for an answer
    found = talk.tell(TurnCommitted(args[0], 1))
    assert kinds(found) == [
        "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done",
    ]  # fmt: skip
    assert "100 ms" in talk.error("input_audio_buffer.commit")["message"]
    talk.say("input_audio_buffer.append", audio=b64(np.zeros(24_000)))
    assert kinds(talk.say("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert talk.calls.last("clear")[1] == {"noted": False}
    assert "100 ms" in talk.error("input_audio_buffer.commit")["message"]


def test_a_commit_in_the_middle_of_a_turn_that_was_detected():
    talk = Talk()
    (started,) = talk.tell(SpeechStarted(0.5))
    talk.say("input_audio_buffer.commit")
    found = talk.tell(SpeechStopped(1.0), TurnCommitted(talk.calls.ref("commit"), 1))
    assert kinds(found)[:2] == [
        "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
    ]  # fmt: skip
    assert {e["item_id"] for e in found[:2]} == {started["item_id"]}
    talk.say("input_audio_buffer.commit", event_id="c")
    (error,) = talk.tell(SessionError("there is nothing to commit", talk.calls.ref("commit")))
    assert error["error"]["event_id"] == "c"
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    check_rules(talk.sent)


def test_transcripts_only_for_those_who_ask():
    for session, count in (({}, 0), (TRANSCRIBE, 1)):
        talk = Talk(**session)
        talk.tell(*spoken_turn())
        assert len(of(talk.sent, COMPLETED)) == count
        item = of(talk.sent, "conversation.item.added")[0]["item"]
        assert item["content"] == [{"type": "input_audio", "transcript": None}]
        (again,) = talk.say("conversation.item.retrieve", item_id=item["id"])
        assert again["item"]["content"][0]["transcript"] == "what is it ?"


def test_an_ear_that_writes_nothing_down_says_so():
    talk = Talk(**TRANSCRIBE)
    talk.tell(*spoken_turn()[:2])
    found = talk.answer(create=False)
    failed = "conversation.item.input_audio_transcription.failed"
    assert kinds(found)[:2] == [failed, "response.created"]
    assert found[0]["error"]["code"] == "no_transcript"
    assert not of(talk.answer(2, create=False), failed)


# ---- What is no event -----------------------------------------------------------------------------

NO_EVENTS = [
    None, 5, "x", [], {}, {"type": None}, {"type": 5}, {"type": ["session.update"]},
    {"type": "session.updated"}, {"type": "input_audio_buffer"}, {"type": "output_audio_buffer.clear"},
    {"type": "transcription_session.update"}, {"type": "x" * 500}, {"type": "session.update"},
    {"type": "response.cancel", "event_id": 5}, {"type": "__init__"},
]  # fmt: skip


@pytest.mark.parametrize("event", NO_EVENTS, ids=lambda one: str(one)[:40])
def test_what_is_no_event_is_an_error_and_no_more(event):
    talk = Talk()
    (error,) = talk.protocol.received(event)
    assert error["type"] == "error" and len(error["error"]["message"]) < 300
    assert set(error["error"]) == {"type", "code", "message", "param", "event_id"}
    assert not talk.calls.made


def test_an_error_of_the_session_is_told():
    talk = Talk()
    (error,) = talk.tell(SessionError("the encoder is broken"))
    assert (
        error["error"]["message"] == "the encoder is broken" and error["error"]["event_id"] is None
    )


def test_what_was_asked_for_is_closed_with_the_session():
    talk = Talk()
    talk.respond()
    (done,) = talk.tell(SessionClosed("the end"))
    assert done["response"]["status"] == "cancelled"
    check_rules(talk.sent)
