"""Items of a conversation: created, retrieved, deleted; and what is refused by its name."""

import numpy as np
import pytest
from scripted import (
    Talk,
    b64,
    check_rules,
    kinds,
    message,
    of,
    said,
)

from mdmspeech.inference.session_events import (
    ResponseEnded,
    ResponseStarted,
    SessionError,
    TurnCommitted,
)


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
