"""Whatever a client and a session say, and in which order: ids are known, what is opened is closed
once, every response that was created is done, and nothing is an exception.
"""

import random

import pytest
from scripted import Talk, check_rules, kinds, message, of, said

from mdmspeech.inference.session_events import (
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
)

REASONS = ("completed", "turn_detected", "cancelled", "max_output_tokens", "error")


class Anything:
    """A client and a session that do as they like, but for the session's own promises."""

    def __init__(self, seed):
        self.random, self.talk = random.Random(seed), Talk()
        self.questions, self.responses, self.seen = 0, 0, 0
        self.running = None  # (number, pieces that are left)
        self.speaking = False
        self.wanted = []  # calls that wait for an event of the session

    def step(self):
        self.random.choice([self.client, self.client, self.session])()
        for name, args, kwargs in self.talk.calls.made[self.seen :]:
            if name in ("note", "note_audio", "insert", "commit", "respond", "truncate"):
                self.wanted.append((name, args, kwargs))
        self.seen = len(self.talk.calls.made)

    def client(self):
        pick = self.random.choice
        items = [e["item"]["id"] for e in of(self.talk.sent, "conversation.item.added")]
        item = pick([*items, "gone", None, 5])
        kind, fields = pick(
            [
                ("session.update", {"session": {"instructions": pick(["a", None, 5])}}),
                ("session.update", {"session": {"include": ["response.output_audio.tokens"]}}),
                ("session.update", {"session": {"output_modalities": pick([["audio"], ["text"]])}}),
                (
                    "session.update",
                    {"session": {"audio": {"input": {"transcription": pick([None, {}])}}}},
                ),
                ("input_audio_buffer.append", {"audio": pick(["AAAA", "A", "", None, "AAA="])}),
                ("input_audio_buffer.commit", {}),
                ("input_audio_buffer.clear", {}),
                ("conversation.item.create", {"item": message(pick(["what is", "?"]))}),
                (
                    "conversation.item.create",
                    {"item": message("yes", pick(["assistant", "system"]))},
                ),
                ("conversation.item.create", {"item": message(id=pick(["a", "b"]))}),
                ("conversation.item.retrieve", {"item_id": item}),
                ("conversation.item.delete", {"item_id": item}),
                (
                    "conversation.item.truncate",
                    {"item_id": item, "content_index": 0, "audio_end_ms": pick([0, 300, -1])},
                ),
                ("response.create", {"response": pick([None, {"output_modalities": ["text"]}, 5])}),
                ("response.create", {}),
                ("response.cancel", {}),
                ("response.cancel", {"response_id": pick(["resp_1", None])}),
                (pick(["nonsense", None]), {}),
            ]
        )
        self.talk.say(kind, **fields)

    def session(self):
        if self.wanted and self.random.random() < 0.6:
            self.answer_call(*self.wanted.pop(0))
        elif self.running:
            self.go_on()
        elif self.speaking or self.random.random() < 0.4:
            self.speech()
        elif self.random.random() < 0.2:
            self.talk.tell(self.random.choice([TurnsForgotten(1), SessionError("x")]))

    def answer_call(self, name, args, kwargs):
        ref = self.talk.calls_ref(args, kwargs)
        if name == "truncate":
            found = self.random.choice(
                [ResponseTruncated(ref, args[1], 0.1, "it"), SessionError("x", ref)]
            )
            self.talk.tell(found)
        elif name == "respond" and self.random.random() < 0.2:
            self.talk.tell(SessionError("x", ref))
        elif name == "respond":
            self.questions += 1
            self.talk.tell(TurnCommitted(ref, self.questions))
            self.wanted.insert(0, ("begin", args, kwargs))
        elif name == "begin" and not self.running and self.random.random() < 0.7:
            self.begin(ref)
        elif name == "begin":
            self.talk.tell(SessionError("x", ref, self.random.choice(REASONS)))
        elif self.random.random() < 0.2:
            self.talk.tell(SessionError("x", ref))
        elif name == "insert":
            self.talk.tell(TurnCommitted(ref, -1))
        else:
            self.questions += 1
            self.talk.tell(TurnCommitted(ref, self.questions))
            if name in ("commit", "note_audio"):
                self.talk.tell(Transcript(self.questions, "what"))

    def begin(self, ref=None):
        self.responses, self.questions = self.responses + 1, self.questions + 1
        pieces = said(self.responses)
        self.running = self.responses, pieces[: self.random.randint(0, len(pieces))]
        self.talk.tell(ResponseStarted(self.responses, self.questions, ref))

    def go_on(self):
        number, pieces = self.running
        if pieces and self.random.random() < 0.8:
            piece = pieces.pop(0)
            response = self.talk.protocol._responses[number]
            if response._spoken or type(piece).__name__ == "ResponseText":
                self.talk.tell(piece)
        else:
            self.end(self.random.choice(REASONS))

    def end(self, reason):
        number, _ = self.running
        self.running = None
        self.talk.tell(ResponseEnded(number, reason, "it", 0.5, 0.1))

    def speech(self):
        if not self.speaking:
            self.talk.tell(SpeechStarted(1.0, self.running[0] if self.running else None))
            if self.running and self.random.random() < 0.5:
                self.end("turn_detected")
        else:
            taken = self.random.random() < 0.8
            self.questions += taken
            self.talk.tell(SpeechStopped(2.0, self.questions if taken else None))
            if taken and self.random.random() < 0.8:
                self.talk.tell(Transcript(self.questions, self.random.choice(["", "what is"])))
            if taken and not self.running and self.random.random() < 0.7:
                self.begin()
        self.speaking = not self.speaking


@pytest.mark.parametrize("seed", range(60))
def test_any_order(seed):
    anything = Anything(seed)
    for _ in range(150):
        anything.step()
    if anything.running:
        anything.end("cancelled")
    anything.talk.tell(SessionClosed())
    sent = anything.talk.sent
    responses = check_rules(sent)
    assert all(found[-1]["type"] == "response.done" for found in responses.values())
    added, done = (
        [e["item"]["id"] for e in of(sent, f"conversation.item.{what}")]
        for what in ("added", "done")
    )
    assert sorted(added) == sorted(done)
    committed = [e["item_id"] for e in of(sent, "input_audio_buffer.committed")]
    assert len(set(committed)) == len(committed) and set(committed) <= set(added)


def test_the_orders_are_of_all_kinds():
    """What the test above has seen, in all."""
    seen = set()
    for seed in range(12):
        anything = Anything(seed)
        for _ in range(150):
            anything.step()
        seen |= set(kinds(anything.talk.sent))
    assert len(seen) >= 26, sorted(seen)
