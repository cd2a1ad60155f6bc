"""A conversation whose session is a script: calls are written down, events are told by hand. And the
rules that everything sent must keep.
"""

import base64
import collections
import itertools

import numpy as np

from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    ResponseTokens,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnCommitted,
)
from mdmspeech.inference.speech import Word
from mdmspeech.serving.realtime.protocol import Protocol
from mdmspeech.serving.realtime.session_object import Model, SessionObject

TRANSCRIBE = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
PUSH_TO_TALK = {"audio": {"input": {"turn_detection": None}}}
COMPLETED = "conversation.item.input_audio_transcription.completed"
MODEL = Model("small", "be kind", 16, "mdm", 30.0, 4096)


class Calls:
    """Writes down what is called of a session."""

    def __init__(self):
        self.made = []
        self._inserted = itertools.count(1)

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.made.append((name, args, kwargs))
            return -next(self._inserted) if name == "insert" else None

        return call

    def of(self, name):
        return [(args, kwargs) for one, args, kwargs in self.made if one == name]

    def last(self, name):
        return self.of(name)[-1]

    def ref(self, name):
        """The name that the last call of this kind was given."""
        return Talk.calls_ref(*self.last(name))


class Talk:
    """A protocol over `Calls`; `say` of the client, `tell` of the session: what is sent."""

    def __init__(self, **session):
        self.calls, count = Calls(), itertools.count(1)
        new_id = lambda kind: f"{kind}_{next(count)}"
        self.protocol = Protocol(self.calls, SessionObject(MODEL, "sess_0", 99), new_id)
        self.sent = self.protocol.opened()
        if session:
            self.say("session.update", session={"type": "realtime", **session})

    def say(self, kind, **fields):
        return self._kept(self.protocol.received({"type": kind, **fields}))

    def tell(self, *events):
        return self._kept([one for event in events for one in self.protocol.told(event)])

    def _kept(self, found):
        self.sent += found
        return found

    def error(self, kind, **fields):
        """Of an event that is refused, with nothing else sent."""
        (found,) = self.say(kind, **fields)
        assert found["type"] == "error", found
        return found["error"]

    def typed(self, text="what is it ?", **item):
        """A text question that the session has taken: its id."""
        found = self.say("conversation.item.create", item=message(text, **item))
        assert not found
        self.tell(TurnCommitted(self.calls.ref("note"), 1))
        return self.sent[-1]["item"]["id"]

    @staticmethod
    def calls_ref(args, kwargs):
        """The name that a call was given."""
        return kwargs.get("ref") or next(one for one in args if str(one).startswith("ref_"))

    def respond(self, **fields):
        """A client asks for a response, the session has heard of it."""
        assert not self.say("response.create", **fields)
        return self.tell(TurnCommitted(self.calls.ref("respond"), 9))

    def answer(self, number=1, reason="completed", create=True, **ended):
        """A whole response."""
        if create:
            self.respond()
        ref = self.calls.ref("respond") if create else None
        return self.tell(
            ResponseStarted(number, number, ref),
            *said(number),
            ResponseEnded(number, reason, "it is good", 0.5, 0.1, **ended),
        )


def message(text="what is it ?", role="user", **item):
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **item}


def said(number):
    """Text and sound of a response."""
    tokens = np.arange(16, dtype=np.int32)
    return [
        ResponseText(number, "it is"),
        ResponseTokens(number, 0, tokens, tokens % 2, np.full(16, 0.5, np.float32)),
        ResponseAudio(number, sound(0), 24_000, 0.0, (Word("it", 0.0, 0.1),)),
        ResponseText(number, " good"),
        ResponseTokens(number, 16, tokens, tokens % 2, np.full(16, 0.5, np.float32)),
        ResponseAudio(
            number, sound(1), 24_000, 0.25, (Word("is", 0.1, 0.3), Word("good", 0.3, 0.5))
        ),
    ]


def sound(seed, samples=6000):
    return np.random.default_rng(seed).uniform(-1.2, 1.2, samples).astype(np.float32)


def b64(samples):
    """As a client sends int16 samples."""
    return base64.b64encode(np.asarray(samples, "<i2").tobytes()).decode()


def spoken_turn(question=1, at=0.5, text="what is it ?"):
    return [SpeechStarted(at), SpeechStopped(at + 1.0, question), Transcript(question, text)]


def kinds(events):
    return [event["type"] for event in events]


def of(events, kind):
    return [event for event in events if event["type"] == kind]


def check_rules(sent):
    """Of everything that was sent in a conversation: ids are unique and known, what is opened is
    closed once, in the order of the protocol.
    """
    ids = [event["event_id"] for event in sent]
    assert len(set(ids)) == len(ids)
    assert sent[0]["type"] == "session.created" and len(of(sent, "session.created")) == 1
    items, finished, ever = [], set(), set()  # an id of one that was deleted may come again
    responses = collections.defaultdict(list)
    for event in sent:
        kind = event["type"]
        item = event.get("item_id") or event.get("item", {}).get("id")
        if kind == "conversation.item.added":
            assert item not in items and event["previous_item_id"] in (None, *items)
            items.append(item)
            ever.add(item)
        elif kind == "conversation.item.done":
            assert item in items and item not in finished
            finished.add(item)
        elif kind == "conversation.item.deleted":
            assert item in items
            items.remove(item)
            finished.discard(item)
        elif kind.startswith("conversation.item.") and kind != "conversation.item.retrieved":
            assert item in ever, kind
        if kind.startswith("response."):
            responses[event.get("response_id") or event["response"]["id"]].append(event)
    for found in responses.values():
        check_response(found)
    return responses


def check_response(events):
    """One, as far as it has come."""
    order = kinds(events)
    assert order[0] == "response.created" and order.count("response.created") == 1
    assert order.count("response.done") <= 1
    if "response.done" not in order:
        return
    assert order[-1] == "response.done"
    done = events[-1]["response"]
    assert (
        done["object"] == "realtime.response" and done["status"] == done["status_details"]["type"]
    )
    assert {"input_token_details", "output_token_details"} <= set(done["usage"])
    if len(order) == 2:
        assert done["output"] == []
        return
    spoken = done["output_modalities"] == ["audio"]
    closing = [
        *(
            ["output_audio.done", "output_audio_transcript.done"]
            if spoken
            else ["output_text.done"]
        ),
        "content_part.done",
        "output_item.done",
    ]
    opening = ["output_item.added", "content_part.added"]
    assert order[1:3] == [f"response.{one}" for one in opening]
    assert order[-1 - len(closing) : -1] == [f"response.{one}" for one in closing]
    deltas = order[3 : -1 - len(closing)]
    kinds_of_text = ["response.output_audio_transcript.delta", "response.output_text.delta"]
    assert set(deltas) <= {kinds_of_text[not spoken], *["response.output_audio.delta"] * spoken}
    text = "".join(one["delta"] for one in events if one["type"] in kinds_of_text)
    last = next(one for one in events if one["type"] == "response.content_part.done")
    assert last["part"]["transcript" if spoken else "text"] == text
    (item,) = done["output"]
    assert item["content"][0]["transcript" if spoken else "text"] == text
    assert len({one["item_id"] for one in events if "item_id" in one} | {item["id"]}) == 1
