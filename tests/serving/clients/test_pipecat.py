"""pipecat's parser over every event that is sent. It raises on what it does not expect, and gives
nothing for a type that it does not know. Not in the environment of the other tests: its dependencies
are many.
"""

import json
import random

import pytest
from scripted import Talk, kinds, message, spoken_turn

from mdmspeech.inference.session_events import (
    ResponseEnded,
    ResponseStarted,
    ResponseTruncated,
    SpeechStarted,
    TurnCommitted,
)

events = pytest.importorskip(
    "pipecat.services.openai.realtime.events",
    reason="pipecat is not installed; `make clients` tests it",
)


def parsed(sent):
    for event in sent:
        found = events.parse_server_event(json.dumps(event))
        assert found is not None, event["type"]
        assert found.type == event["type"]


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order(seed):
    from test_any_order import Anything

    anything = Anything(seed)
    for _ in range(200):
        anything.step()
    parsed(anything.talk.sent)


def test_a_whole_conversation():
    talk = Talk(
        audio={"input": {"transcription": {"model": "whisper-1"}}},
        include=["response.output_audio.words", "response.output_audio.tokens"],
    )
    talk.tell(*spoken_turn())
    talk.answer(create=False)
    talk.say("conversation.item.create", item=message("it is good", "assistant"))
    talk.tell(TurnCommitted(talk.calls.ref("insert"), -1))
    talk.typed()
    talk.respond(response={"output_modalities": ["text"], "metadata": {"a": "b"}})
    talk.tell(
        ResponseStarted(2, 9, talk.calls.ref("respond")), ResponseEnded(2, "completed", "", 0, None)
    )
    talk.tell(SpeechStarted(9.0, 1))
    item = next(e["item_id"] for e in talk.sent if e["type"] == "response.output_audio.done")
    talk.say("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=10)
    talk.tell(ResponseTruncated(talk.calls.ref("truncate"), 1, 0.01, ""))
    talk.say("input_audio_buffer.clear")
    parsed(talk.sent)
    assert "conversation.item.truncated" in kinds(talk.sent)


def test_what_pipecat_sends_is_taken():
    """Its own events, as it writes them."""
    properties = events.SessionProperties(
        instructions="be brief",
        audio=events.AudioConfiguration(
            input=events.AudioInput(
                format=events.PCMAudioFormat(),
                transcription=events.InputAudioTranscription(),
                turn_detection=events.TurnDetection(threshold=random.Random(0).uniform(0.1, 0.9)),
            ),
            output=events.AudioOutput(format=events.PCMAudioFormat(), voice="alloy", speed=1.0),
        ),
    )
    item = events.ConversationItem(
        type="message",
        role="user",
        content=[events.ItemContent(type="input_text", text="what is it ?")],
    )
    talk = Talk()
    for event in (
        events.SessionUpdateEvent(session=properties),
        events.ConversationItemCreateEvent(item=item),
        events.InputAudioBufferAppendEvent(audio="AAAA"),
        events.InputAudioBufferClearEvent(),
        events.ResponseCreateEvent(
            response=events.ResponseProperties(output_modalities=["audio"], instructions="hello")
        ),
    ):
        found = talk.protocol.received(event.model_dump(exclude_none=True))
        assert "error" not in kinds(found), found
    assert talk.protocol.session.settings()["instructions"] == "be brief"
