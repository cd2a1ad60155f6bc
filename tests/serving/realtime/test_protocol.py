"""Events in, calls out; events of the session in, events out: in tables, without a socket or a
model.
"""

import base64

import numpy as np
import pytest
from scripted import (
    Talk,
    check_rules,
    kinds,
    message,
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
    ResponseTruncated,
    SessionClosed,
    SessionError,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnCommitted,
    TurnsForgotten,
    Usage,
)

TRANSCRIBE = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
PUSH_TO_TALK = {"audio": {"input": {"turn_detection": None}}}
COMPLETED = "conversation.item.input_audio_transcription.completed"


def b64(samples):
    return base64.b64encode(np.asarray(samples, "<i2").tobytes()).decode()


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


# ---- Items ----------------------------------------------------------------------------------------


def test_a_history_that_is_told():
    talk = Talk()
    first = talk.typed("what is it ?")
    assert not talk.say(
        "conversation.item.create", item=message("it is good", "assistant"), previous_item_id=first
    )
    (text, ref), _ = talk.calls.last("insert")
    found = talk.tell(TurnCommitted(ref, -1))
    assert text == "it is good" and found[0]["item"]["role"] == "assistant"
    assert found[0]["previous_item_id"] == first
    talk.say("conversation.item.delete", item_id=found[0]["item"]["id"])
    assert talk.calls.last("forget")[1] == {"response": -1}
    check_rules(talk.sent)


def test_sound_in_an_item():
    talk, wave = Talk(), np.arange(4800, dtype=np.int16)
    item = message()
    item["content"] = [{"type": "input_audio", "audio": b64(wave)}]
    assert not talk.say("conversation.item.create", item=item)
    (samples, rate, ref), _ = talk.calls.last("note_audio")
    np.testing.assert_array_equal(samples, wave)
    found = talk.tell(TurnCommitted(ref, 1))
    assert rate == 24_000 and kinds(found) == ["conversation.item.added", "conversation.item.done"]
    assert found[0]["item"]["content"][0]["type"] == "input_audio"


def test_system_messages_go_with_the_instructions():
    talk = Talk(instructions="be brief")
    (added, _) = talk.say("conversation.item.create", item=message("it is noon", "system"))
    assert talk.calls.last("update")[1]["instructions"] == "be brief\n\nit is noon"
    talk.say("session.update", session={"instructions": "be kind"})
    assert talk.calls.last("update")[1]["instructions"] == "be kind\n\nit is noon"
    talk.say("conversation.item.delete", item_id=added["item"]["id"])
    assert talk.calls.last("update")[1]["instructions"] is None


def content(*parts):
    return message() | {"content": list(parts)}


# (fields of the event, param, what is said)
NO_ITEMS = [
    ({}, "item", "an object"),
    ({"item": []}, "item", "an object"),
    ({"item": message(type="function_call_output")}, "item.type", "calls no tools"),
    ({"item": message(type=5)}, "item.type", "message"),
    ({"item": message(role="tool")}, "item.role", "user"),
    ({"item": content()}, "item.content", "1 to 64 parts"),
    ({"item": content("x")}, "item.content[0]", "an object"),
    (
        {"item": content({"type": "input_image", "image_url": "data:"})},
        "item.content[0].type",
        "images",
    ),
    ({"item": content({"type": "output_text", "text": "x"})}, "item.content[0].type", "input_text"),
    ({"item": content({"type": "input_text"})}, "item.content[0].text", "a text"),
    ({"item": content({"type": "input_text", "text": "x" * 5000})}, "item.content[0].text", "4096"),
    ({"item": message("?!")}, "item.content", "no words"),
    ({"item": content({"type": "input_audio", "audio": "!"})}, "item.content[0].audio", "base64"),
    (
        {"item": content({"type": "input_audio", "audio": "AAAA"})},
        "item.content: seconds of sound",
        "from 0.1 to 30",
    ),
    (
        {
            "item": content(
                {"type": "input_text", "text": "x"}, {"type": "input_audio", "audio": "AAAA"}
            )
        },
        "item.content",
        "an item of each",
    ),
    ({"item": message(id=5)}, "item.id", "a text"),
    ({"item": message(id="")}, "item.id", "a text"),
    ({"item": message(id="x" * 65)}, "item.id", "64 are the most"),
    ({"item": message(id="first")}, "item.id", "already"),
    ({"item": message(), "previous_item_id": "root"}, "previous_item_id", "at the end"),
    ({"item": message(), "previous_item_id": "gone"}, "previous_item_id", "no item 'gone'"),
    ({"item": message(), "previous_item_id": 5}, "previous_item_id", "the last item"),
]


@pytest.mark.parametrize(("fields", "param", "told"), NO_ITEMS, ids=lambda one: str(one)[:60])
def test_items_that_are_refused_by_name(fields, param, told):
    talk = Talk()
    talk.typed(id="first")
    made = len(talk.calls.made)
    error = talk.error("conversation.item.create", **fields)
    assert error["param"] == param and told in error["message"]
    assert len(talk.calls.made) == made


def test_the_first_item_may_say_that_it_is_the_first():
    talk = Talk()
    assert not talk.say("conversation.item.create", item=message(), previous_item_id="root")
    assert talk.error("conversation.item.create", item=message(), previous_item_id="root")


@pytest.mark.parametrize("what", ["retrieve", "delete", "truncate"])
@pytest.mark.parametrize("given", [None, 5, "gone"])
def test_an_item_that_there_is_not(what, given):
    talk = Talk()
    fields = {"item_id": given, "content_index": 0, "audio_end_ms": 0}
    error = talk.error(f"conversation.item.{what}", **fields)
    assert error["param"] == "item_id"
    assert error["code"] in (f"item_{what}_invalid_item_id", "invalid_value")


def test_an_item_is_deleted_when_it_is_there():
    talk = Talk()
    talk.say("conversation.item.create", item=message(id="a"))
    assert not talk.say("conversation.item.delete", item_id="a")
    found = talk.tell(TurnCommitted(talk.calls.ref("note"), 7))
    assert kinds(found)[-1] == "conversation.item.deleted"
    assert talk.calls.last("forget")[1] == {"question": 7}
    assert talk.error("conversation.item.retrieve", item_id="a")
    check_rules(talk.sent)


def test_what_is_being_said_is_not_deleted():
    talk = Talk()
    found = talk.tell(ResponseStarted(1, 1), *said(1))
    item = of(found, "conversation.item.added")[0]["item"]["id"]
    assert "cancel" in talk.error("conversation.item.delete", item_id=item)["message"]
    talk.tell(ResponseEnded(1, "completed", "it is good", 0.5, 0.1))
    assert kinds(talk.say("conversation.item.delete", item_id=item)) == [
        "conversation.item.deleted"
    ]
    assert talk.calls.last("forget")[1] == {"response": 1}


def test_an_item_that_the_session_does_not_take_is_gone():
    talk = Talk()
    talk.say("conversation.item.create", item=message(id="a"), event_id="e")
    (error,) = talk.tell(SessionError("too many", talk.calls.ref("note")))
    assert error["error"]["event_id"] == "e"
    assert talk.error("conversation.item.retrieve", item_id="a")


# ---- Responses ------------------------------------------------------------------------------------

# (what response.create says, settings of the one response)
OWN = [
    (None, {}),
    ({}, {}),
    ({"instructions": "shout"}, {"instructions": "shout"}),
    ({"instructions": ""}, {"instructions": None}),
    ({"max_output_tokens": 5}, {"max_output_tokens": 5}),
    ({"output_modalities": ["text"]}, {"output": "text"}),
    ({"output_modalities": ["audio"]}, {}),
    ({"audio": {"output": {"voice": "alloy", "steps": 2}}}, {"steps": 2}),
    ({"audio": {"output": {"format": {"type": "audio/pcm"}}}}, {}),
    ({"conversation": "auto", "tools": [], "tool_choice": "none", "input": []}, {}),
    ({"metadata": {"a": "b"}}, {}),
]


@pytest.mark.parametrize(("given", "changes"), OWN, ids=str)
def test_a_response_of_its_own_kind(given, changes):
    talk = Talk(instructions="be brief")
    (created,) = talk.respond(response=given)
    assert created["type"] == "response.created"
    found = {key: value for key, value in talk.calls.last("respond")[1].items() if key != "ref"}
    assert found == changes
    session = talk.protocol.session.shown()
    assert session["instructions"] == "be brief" and session["output_modalities"] == ["audio"]


# (what response.create says, param, what is said)
NOT_OWN = [
    ({"conversation": "none"}, "response.conversation", "belongs to the conversation"),
    ({"input": [message()]}, "response.input", "create items"),
    ({"tools": [{"name": "f"}]}, "response.tools", "no tools"),
    ({"audio": {"output": {"steps": 99}}}, "response.audio.output.steps", "1 to 16"),
    ({"audio": {"input": {}}}, "response.audio.input", "no field"),
    (
        {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
        "response.audio.output.format.type",
        "",
    ),
    ({"metadata": {"a": 5}}, "response.metadata", "at most 16"),
    ({"metadata": {str(n): "" for n in range(17)}}, "response.metadata", "at most 16"),
    ({"include": []}, "response.include", "no field"),
    ({"modalities": ["text"]}, "response.modalities", "response.output_modalities now"),
    ([], "response", "an object"),
]


@pytest.mark.parametrize(("given", "param", "told"), NOT_OWN, ids=lambda one: str(one)[:60])
def test_responses_that_are_refused_by_name(given, param, told):
    talk = Talk()
    error = talk.error("response.create", response=given)
    assert (
        error["param"] == param and told in error["message"] and "session." not in error["message"]
    )
    assert not talk.calls.of("respond")
    assert kinds(talk.respond()) == ["response.created"]


def test_one_response_at_a_time():
    talk = Talk()
    (created,) = talk.respond()
    error = talk.error("response.create")
    assert error["code"] == "conversation_already_has_active_response"
    assert created["response"]["id"] in error["message"]
    talk.tell(ResponseStarted(1, 1, talk.calls.ref("respond")))
    assert talk.error("response.create")
    talk.tell(ResponseEnded(1, "completed", "", 0.0, None))
    assert kinds(talk.respond()) == ["response.created"]


def test_a_response_that_comes_to_nothing():
    for reason, status in (("error", "failed"), ("turn_detected", "cancelled")):
        talk = Talk()
        (created,) = talk.respond()
        (done,) = talk.tell(SessionError("no words", talk.calls.ref("respond"), reason))
        assert done["type"] == "response.done" and done["response"]["status"] == status
        assert done["response"]["id"] == created["response"]["id"]
        check_rules(talk.sent)
        assert kinds(talk.respond()) == ["response.created"]


def test_a_response_to_nothing_is_an_error_and_no_response():
    talk = Talk()
    assert not talk.say("response.create", event_id="mine")
    nothing = "there is nothing to respond to"
    (error,) = talk.tell(SessionError(nothing, talk.calls.ref("respond")))
    assert error["error"]["event_id"] == "mine" and error["error"]["message"] == nothing
    assert kinds(talk.respond()) == ["response.created"]


def test_a_response_is_created_behind_the_items_it_answers():
    talk = Talk()
    talk.say("conversation.item.create", item=message())
    talk.say("response.create")
    assert "not over" in talk.error("response.create")["message"]
    refs = [talk.calls.ref(one) for one in ("note", "respond")]
    found = talk.tell(*[TurnCommitted(ref, n) for n, ref in enumerate(refs, 1)])
    assert kinds(found) == [
        "conversation.item.added", "conversation.item.done", "response.created",
    ]  # fmt: skip


def test_cancelling_when_nothing_runs_is_an_error_and_no_more():
    """As openai-python's push-to-talk example does before anything runs."""
    talk = Talk()
    error = talk.error("response.cancel", event_id="e")
    assert error["code"] == "response_cancel_not_active" and error["event_id"] == "e"
    assert not talk.calls.of("cancel")
    talk.answer()
    assert talk.error("response.cancel")["code"] == "response_cancel_not_active"
    assert talk.error("response.cancel", response_id=5)["param"] == "response_id"


def test_cancelling():
    talk = Talk()
    talk.respond()
    found = talk.tell(ResponseStarted(1, 1, talk.calls.ref("respond")), *said(1)[:2])
    running = found[-1]["response_id"]
    assert talk.error("response.cancel", response_id="resp_other")["param"] == "response_id"
    assert not talk.say("response.cancel", response_id=running) and talk.calls.of("cancel")
    found = talk.tell(ResponseEnded(1, "cancelled", "it", 0.2, 0.1))
    assert found[-1]["response"]["status_details"]["reason"] == "client_cancelled"
    check_rules(talk.sent)


def test_trap_12_interrupted_before_the_first_sound():
    """By a cancel that comes before the session has begun, or by speech."""
    talk = Talk()
    talk.respond()
    assert not talk.say("response.cancel") and not talk.calls.of("cancel")
    talk.tell(ResponseStarted(1, 1, talk.calls.ref("respond")))
    assert talk.calls.of("cancel")  # now
    talk.tell(ResponseEnded(1, "cancelled", "", 0.0, None))
    talk.tell(SpeechStarted(9.0), ResponseStarted(2, 2))
    talk.tell(SpeechStarted(9.5, 2), ResponseEnded(2, "turn_detected", "", 0.0, None))
    done = of(talk.sent, "response.done")
    assert [one["response"]["status"] for one in done] == ["cancelled", "cancelled"]
    assert all(one["response"]["output"] == [] for one in done)
    check_rules(talk.sent)


def test_trap_14_what_was_played_of_an_interrupted_turn_is_remembered():
    talk = Talk()
    talk.tell(*spoken_turn(), ResponseStarted(1, 1), *said(1))
    talk.tell(SpeechStarted(3.0, 1), ResponseEnded(1, "turn_detected", "it is", 0.5, 0.1))
    item = of(talk.sent, "response.done")[-1]["response"]["output"][0]
    assert item["content"][0]["transcript"] == "it is good"  # what was sent
    (again,) = talk.say("conversation.item.retrieve", item_id=item["id"])
    assert again["item"]["content"][0]["transcript"] == "it is"  # what is remembered
    assert not talk.calls.of("forget") and not talk.calls.of("clear")


def test_trap_15_a_client_is_told_to_stop_playing():
    """By `speech_started`, which comes before anything else, and names what is no longer to be played,
    also where all of it was sent long ago.
    """
    talk = Talk()
    talk.answer(create=False)
    (started,) = talk.tell(SpeechStarted(3.0, 1))
    item = of(talk.sent, "response.done")[-1]["response"]["output"][0]["id"]
    assert started["interrupted_item_id"] == item
    found = talk.tell(ResponseStarted(2, 2), *said(2), SpeechStarted(5.0, 2))
    assert found[-1]["type"] == "input_audio_buffer.speech_started"
    assert not of(
        talk.tell(ResponseEnded(2, "turn_detected", "", 0.5, 0.1)), "response.output_audio.delta"
    )


def test_trap_16_a_session_that_only_transcribes():
    talk = Talk(audio={"input": {
        "transcription": {"model": "whisper-1"}, "turn_detection": {"create_response": False},
    }})  # fmt: skip
    settings = talk.calls.last("update")[1]
    assert settings["create_response"] is False and settings["turn_detection"] is not None
    talk.tell(*spoken_turn(1), *spoken_turn(2, 3.0, ""), Transcript(3, "of nobody"))
    assert [e["transcript"] for e in of(talk.sent, COMPLETED)] == ["what is it ?", ""]
    assert not [kind for kind in kinds(talk.sent) if kind.startswith("response.")]
    assert kinds(talk.answer(3))[0] == "response.output_item.added"  # if a client asks for it
    check_rules(talk.sent)


# audio_end_ms -> what the session says it was cut to
CUTS = [(0, 0.0), (100, 0.1), (499, 0.499), (10**9, 0.5), (250.0, 0.25)]


@pytest.mark.parametrize(("asked", "played"), CUTS)
def test_trap_11_truncating_past_the_sound_is_truncating_to_its_end(asked, played):
    talk = Talk()
    talk.answer()
    item = of(talk.sent, "response.done")[-1]["response"]["output"][0]["id"]
    fields = {"item_id": item, "content_index": 0, "audio_end_ms": asked}
    assert not talk.say("conversation.item.truncate", **fields)
    (seconds, number, ref), _ = talk.calls.last("truncate")
    assert (seconds, number) == (asked / 1000, 1)
    (told,) = talk.tell(ResponseTruncated(ref, 1, played, "it"))
    assert told["type"] == "conversation.item.truncated" and told["item_id"] == item
    assert told["audio_end_ms"] == round(1000 * played) and told["content_index"] == 0
    (again,) = talk.say("conversation.item.retrieve", item_id=item)
    assert again["item"]["content"][0]["transcript"] == "it"
    assert talk.tell(*spoken_turn(2, 9.0)) and talk.answer(2, create=False)  # the session lives on
    check_rules(talk.sent)


# (fields, param)
NO_CUTS = [
    ({"audio_end_ms": -1}, "audio_end_ms"),
    ({"audio_end_ms": None}, "audio_end_ms"),
    ({"audio_end_ms": "100"}, "audio_end_ms"),
    ({"audio_end_ms": 0.5}, "audio_end_ms"),
    ({"audio_end_ms": 10**400}, "audio_end_ms"),
    ({"content_index": 1}, "content_index"),
    ({"content_index": None}, "content_index"),
    ({"item_id": "user"}, "item_id"),
]


@pytest.mark.parametrize(("fields", "param"), NO_CUTS, ids=str)
def test_trap_11_a_truncation_that_cannot_be_is_an_error_and_no_more(fields, param):
    talk = Talk()
    talk.typed(id="user")
    talk.answer()
    item = of(talk.sent, "response.done")[-1]["response"]["output"][0]["id"]
    good = {"item_id": item, "content_index": 0, "audio_end_ms": 100}
    assert talk.error("conversation.item.truncate", **good | fields)["param"] == param
    assert not talk.calls.of("truncate") and not talk.say("conversation.item.truncate", **good)
    (error,) = talk.tell(SessionError("only the last", talk.calls.ref("truncate")))
    assert error["type"] == "error" and kinds(talk.respond()) == ["response.created"]


def test_turns_that_are_forgotten_are_told_with_the_next_response():
    talk = Talk()
    assert not talk.tell(TurnsForgotten(3))
    assert talk.answer(create=False)[-1]["response"]["mdmspeech"]["forgotten_turns"] == 3


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
