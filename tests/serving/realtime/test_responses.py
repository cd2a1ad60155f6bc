"""Responses: asked for, cancelled, interrupted, truncated; and the traps that others fell into."""

import pytest
from scripted import (
    COMPLETED,
    Talk,
    check_rules,
    kinds,
    message,
    of,
    said,
    spoken_turn,
)

from mdmspeech.inference.session_events import (
    ResponseEnded,
    ResponseStarted,
    ResponseTruncated,
    SessionError,
    SpeechStarted,
    Transcript,
    TurnCommitted,
    TurnsForgotten,
)

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


@pytest.mark.parametrize("by", ["cancel", "truncate"])
def test_the_next_response_may_be_asked_for_behind_one_that_is_stopped(by):
    """Who types while an answer is spoken stops it and asks at once, before it hears that it ended."""
    talk = Talk()
    talk.respond()
    found = talk.tell(ResponseStarted(1, 1, talk.calls.ref("respond")), *said(1)[:2])
    first, item = found[-1]["response_id"], found[-1]["item_id"]
    if by == "cancel":
        assert not talk.say("response.cancel", response_id=first)
    else:
        talk.say("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=100)
    talk.say("conversation.item.create", item=message())
    assert not talk.say("response.create") and len(talk.calls.of("respond")) == 2
    # the second is one that runs
    assert "not over" in talk.error("response.create")["message"]
    stopped = len(talk.calls.of("cancel"))
    assert not talk.say("response.cancel", response_id=first)  # again: it is being stopped
    assert len(talk.calls.of("cancel")) == stopped
    found = talk.tell(
        ResponseEnded(1, "cancelled", "it", 0.2, 0.1), TurnCommitted(talk.calls.ref("note"), 2),
        TurnCommitted(talk.calls.ref("respond"), 3), ResponseStarted(2, 3, talk.calls.ref("respond")),
    )  # fmt: skip
    done, created = (one for one in found if one["type"] in ("response.done", "response.created"))
    assert (done["type"], done["response"]["id"]) == ("response.done", first)
    assert not talk.say("response.cancel") and len(talk.calls.of("cancel")) == stopped + 1
    found = talk.tell(ResponseEnded(2, "cancelled", "", 0.0, None))
    assert found[-1]["response"]["id"] == created["response"]["id"] != first
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
