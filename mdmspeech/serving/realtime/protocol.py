"""The Realtime protocol without a socket: `received` takes an event of the client, calls the session
and says what is answered at once; `told` takes an event of the session and says what the client is
told. Both in one thread.

The order of events is the session's own: an item is told when the session has taken it, a response
is answered until its `ResponseEnded`, whoever ends it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from typing import Protocol as Interface

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    ResponseTokens,
    ResponseTruncated,
    SessionClosed,
    SessionError,
    SessionEvent,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnCommitted,
    TurnsForgotten,
)
from mdmspeech.serving.checks import mapping, number, text, wrong
from mdmspeech.serving.realtime.audio import Pcm, decode
from mdmspeech.serving.realtime.items import Item, Items, read_item
from mdmspeech.serving.realtime.response import Event, Response
from mdmspeech.serving.realtime.session_object import SessionObject
from mdmspeech.serving.request_error import INVALID, RequestError, kind_of

_SHORTEST_S = 0.1  # of sound that is committed


class Conversation(Interface):
    """What the protocol calls of a `Session`."""

    def push_audio(self, samples: np.ndarray, rate: float) -> None: ...
    def note(self, text: str, ref: str) -> None: ...
    def note_audio(self, samples: np.ndarray, rate: float, ref: str) -> None: ...
    def insert(self, answer: str, ref: str | None = None) -> int: ...
    def commit(self, ref: str | None = None, answer: bool | None = None) -> None: ...
    def respond(self, ref: str | None = None, **changes: Any) -> None: ...
    def forget(self, question: int | None = None, response: int | None = None) -> None: ...
    def clear(self, noted: bool = True) -> None: ...
    def cancel(self) -> None: ...
    def truncate(
        self, played_s: float, response: int | None = None, ref: str | None = None
    ) -> None: ...
    def update(self, **changes: Any) -> None: ...


@dataclasses.dataclass
class _Asked:
    """What was left for the session under a name. event_id: of the client's event."""

    event_id: str | None
    item: Item | None = None
    seconds: float = 0.0


class Protocol:
    """Of one conversation.

    Attributes:
      session: its object.

    Args:
      conversation: a `Session` that has been opened. session: its object. new_id: a prefix -> an id
        that there was not yet.
    """

    def __init__(
        self, conversation: Conversation, session: SessionObject, new_id: Callable[[str], str]
    ) -> None:
        self.session = session
        self._conversation, self._new_id = conversation, new_id
        self._items, self._pcm = Items(new_id), Pcm()
        self._conversation_id = new_id("conv")
        self._asked: dict[str, _Asked] = {}  # by name
        self._responses: dict[str | int, Response] = {}  # by name, then by the session's number
        self._speech: tuple[str, float] | None = None  # the item that is being said, since when
        self._unheard: dict[int, tuple[Item, float]] = {}  # by question: sound without transcript
        self._seconds = 0.0  # of sound since the last commit
        self._forgotten = 0
        self._handlers: dict[str, Callable[[Mapping[str, Any]], list[Event]]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create,
            "conversation.item.retrieve": self._retrieve,
            "conversation.item.delete": self._delete,
            "conversation.item.truncate": self._truncate,
            "response.create": self._respond,
            "response.cancel": self._cancel,
        }

    # ---- Of the client ---------------------------------------------------------------------------

    def opened(self) -> list[Event]:
        """The first event."""
        return self._sent([{"type": "session.created", "session": self.session.shown()}])

    def received(self, event: Any) -> list[Event]:
        """What is answered at once to an event of the client, whatever it is."""
        event_id = None
        try:
            if not isinstance(event, dict):
                raise RequestError(f"an event is an object, this is {kind_of(event)}")
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"][:512]
            elif event.get("event_id") is not None:
                raise wrong("event_id", event["event_id"], "a text")
            return self._sent(self._handler(event.get("type"))(event))
        except UserError as error:
            return self.refused(error, event_id)

    def refused(self, error: UserError, event_id: str | None = None) -> list[Event]:
        """The `error` event of an error."""
        found = error if isinstance(error, RequestError) else RequestError(str(error))
        told = self._error(str(error), event_id, found.param, found.code, found.kind)
        return self._sent(told)

    def _handler(self, kind: Any) -> Callable[[Mapping[str, Any]], list[Event]]:
        if isinstance(kind, str) and kind in self._handlers:
            return self._handlers[kind]
        if not isinstance(kind, str):
            raise wrong("type", kind, "the type of the event, a text")
        told = f"there is no event {kind[:80]!r} here"
        if kind.startswith("output_audio_buffer."):
            told += ": over a WebSocket the client itself plays, and stops to"
        raise RequestError(told, "type", code="unknown_event")

    def _update(self, event: Mapping[str, Any]) -> list[Event]:
        self.session.update(event.get("session"))
        self._conversation.update(**self.session.settings())
        return [{"type": "session.updated", "session": self.session.shown()}]

    def _append(self, event: Mapping[str, Any]) -> list[Event]:
        samples = self._pcm.push(decode(event.get("audio"), "audio"))
        self._conversation.push_audio(samples, self.session.input_rate)
        self._seconds += len(samples) / self.session.input_rate
        return []

    def _commit(self, event: Mapping[str, Any]) -> list[Event]:
        if not self.session.detects_turns and self._seconds < _SHORTEST_S:
            raise RequestError(
                f"the buffer has {1000 * self._seconds:.0f} ms of sound, "
                f"{1000 * _SHORTEST_S:.0f} ms are the least that can be committed",
                code="input_audio_buffer_commit_empty",
            )
        ref = self._ask(event, seconds=self._seconds)
        self._seconds = 0.0
        self._pcm.clear()
        self._conversation.commit(ref, answer=False)
        return []

    def _clear(self, event: Mapping[str, Any]) -> list[Event]:
        self._seconds, self._speech = 0.0, None
        self._pcm.clear()
        self._conversation.clear(noted=False)
        return [{"type": "input_audio_buffer.cleared"}]

    def _create(self, event: Mapping[str, Any]) -> list[Event]:
        model = self.session.model
        new = read_item(event.get("item"), model.max_text)
        item_id = self._items.check_new(event["item"].get("id"))
        self._items.check_place(event.get("previous_item_id"))
        if new.role == "system":
            item = self._items.add("system", "input_text", new.text, item_id)
            self.session.notes.append(new.text)
            self._conversation.update(**self.session.settings())
            return self._added(item)
        if new.role == "assistant":
            item = self._items.add("assistant", "output_text", new.text, item_id)
            ref = self._ask(event, item)
            item.number = self._conversation.insert(new.text, ref)
        elif new.sound is None:
            item = self._items.add("user", "input_text", new.text, item_id)
            self._conversation.note(new.text, self._ask(event, item))
        else:
            rate = self.session.input_rate
            seconds = len(new.sound) / rate
            number(_SHORTEST_S, model.limit_s)("item.content: seconds of sound", seconds)
            item = self._items.add("user", "input_audio", None, item_id)
            ref = self._ask(event, item, seconds)
            self._conversation.note_audio(new.sound, rate, ref)
        return []

    def _retrieve(self, event: Mapping[str, Any]) -> list[Event]:
        item = self._items.find(event.get("item_id"), code="item_retrieve_invalid_item_id")
        return [{"type": "conversation.item.retrieved", "item": item.shown()}]

    def _delete(self, event: Mapping[str, Any]) -> list[Event]:
        item = self._items.find(event.get("item_id"), code="item_delete_invalid_item_id")
        if item.status == "in_progress":
            raise RequestError("that item is being said; cancel its response first", "item_id")
        if not item.told:
            item.doomed = True
            return []
        return self._deleted(item)

    def _deleted(self, item: Item) -> list[Event]:
        self._items.remove(item)
        if item.role == "system":
            self.session.notes.remove(item.text or "")
            self._conversation.update(**self.session.settings())
        elif item.role == "user":
            self._conversation.forget(question=item.number)
        else:
            self._conversation.forget(response=item.number)
        return [{"type": "conversation.item.deleted", "item_id": item.id}]

    def _truncate(self, event: Mapping[str, Any]) -> list[Event]:
        item = self._items.find(event.get("item_id"), code="item_truncate_invalid_item_id")
        if item.role != "assistant" or item.kind != "output_audio":
            raise RequestError("only what the assistant has said aloud can be truncated", "item_id")
        number(0, 0, whole=True)("content_index", event.get("content_index"))
        end = number(0, 10**9, whole=True)("audio_end_ms", event.get("audio_end_ms"))
        self._conversation.truncate(end / 1000, item.number, self._ask(event, item))
        for response in self._responses.values():
            if response.item is item:  # which is stopped by it
                response.cancelled = True
        return []

    def _respond(self, event: Mapping[str, Any]) -> list[Event]:
        # one that was cancelled ends before the session comes to this one
        running = [one.id for one in self._responses.values() if not one.cancelled]
        if running:
            raise RequestError(
                f"the response {running[0]} is not over; wait for its response.done, or cancel it",
                code="conversation_already_has_active_response",
            )
        given = event.get("response")
        fields, changes = self.session.for_response(
            {} if given is None else mapping("response", given)
        )
        ref = self._ask(event)
        self._conversation.respond(ref, **changes)
        self._responses[ref] = self._response(fields)
        return []

    def _cancel(self, event: Mapping[str, Any]) -> list[Event]:
        wanted = event.get("response_id")
        if wanted is not None:
            text(128)("response_id", wanted)
        found = [one for one in self._responses.values() if wanted in (None, one.id)]
        if not found:
            raise RequestError(
                "nothing is being answered" if wanted is None else "that response is not running",
                None if wanted is None else "response_id",
                code="response_cancel_not_active",
            )
        response = next((one for one in found if not one.cancelled), None)
        if response is not None:
            response.cancelled = True
            if response.number:
                self._conversation.cancel()
        return []

    def _ask(self, event: Mapping[str, Any], item: Item | None = None, seconds: float = 0.0) -> str:
        """A name for what the session is asked for."""
        ref, event_id = self._new_id("ref"), event.get("event_id")
        self._asked[ref] = _Asked(event_id, item, seconds)
        return ref

    # ---- Of the session --------------------------------------------------------------------------

    def told(self, event: SessionEvent) -> list[Event]:
        """What the client is told of an event of the session."""
        return self._sent(self._told(event))

    def _told(self, event: SessionEvent) -> list[Event]:
        if isinstance(event, ResponseText | ResponseTokens | ResponseAudio | ResponseEnded):
            return self._told_of_response(event)
        if isinstance(event, SpeechStarted):
            return self._speech_started(event)
        if isinstance(event, SpeechStopped):
            return self._speech_stopped(event)
        if isinstance(event, TurnCommitted):
            asked = self._asked.pop(event.ref)
            if event.ref in self._responses:
                return self._responses[event.ref].created()
            return self._committed(asked, event.number, buffered=asked.item is None)
        if isinstance(event, Transcript):
            return self._transcribed(event)
        if isinstance(event, ResponseStarted):
            return self._response_started(event)
        if isinstance(event, ResponseTruncated):
            return self._truncated(event)
        if isinstance(event, SessionError):
            return self._failed(event)
        if isinstance(event, TurnsForgotten):
            self._forgotten = event.turns
        if isinstance(event, SessionClosed):
            return self._closed(event)
        return []

    def _speech_started(self, event: SpeechStarted) -> list[Event]:
        self._speech = self._new_id("item"), event.at_s
        started: Event = {
            "type": "input_audio_buffer.speech_started",
            "audio_start_ms": round(1000 * event.at_s),
            "item_id": self._speech[0],
        }
        item = self._items.numbered("assistant", event.interrupts or 0)
        if event.interrupts and item is not None:
            started["interrupted_item_id"] = item.id  # not to be played any further
        return [started]

    def _speech_stopped(self, event: SpeechStopped) -> list[Event]:
        item_id, since = self._speech or (self._new_id("item"), event.at_s)
        stopped = {
            "type": "input_audio_buffer.speech_stopped",
            "audio_end_ms": round(1000 * event.at_s),
            "item_id": item_id,
        }
        if event.question is None:  # a commit follows, or an error
            self._speech = item_id, since
            return [stopped]
        self._speech, self._seconds = None, 0.0
        item = self._items.add("user", "input_audio", None, item_id)
        asked = _Asked(None, item, event.at_s - since)
        return [stopped, *self._committed(asked, event.question, buffered=True)]

    def _committed(self, asked: _Asked, number: int, buffered: bool) -> list[Event]:
        """The session has taken a turn: its item is there. buffered: it was in the input buffer."""
        item = asked.item
        if item is None:
            item_id, self._speech = (self._speech or ("",))[0], None
            item = self._items.add("user", "input_audio", None, item_id)
        item.number = number
        if item.kind == "input_audio":
            self._unheard[number] = item, asked.seconds
        told = self._added(item)
        if buffered:
            previous = told[0]["previous_item_id"]
            told.insert(
                0,
                {
                    "type": "input_audio_buffer.committed",
                    "item_id": item.id,
                    "previous_item_id": previous,
                },
            )
        return told + (self._deleted(item) if item.doomed else [])

    def _added(self, item: Item) -> list[Event]:
        previous, shown = self._items.tell(item), item.shown()
        return [
            {"type": f"conversation.item.{what}", "previous_item_id": previous, "item": shown}
            for what in ("added", "done")
        ]

    def _transcribed(self, event: Transcript) -> list[Event]:
        item, seconds = self._unheard.pop(event.question, (None, 0.0))
        if item is None:
            return []
        item.text = event.text
        if not self.session.transcribes or item not in self._items:
            return []
        return [
            {
                "type": "conversation.item.input_audio_transcription.completed",
                "item_id": item.id,
                "content_index": 0,
                "transcript": event.text,
                "usage": {"type": "duration", "seconds": round(seconds, 3)},
            }
        ]

    def _response_started(self, event: ResponseStarted) -> list[Event]:
        told = self._no_transcripts(event.question)
        response = self._responses.pop(event.ref, None) if event.ref is not None else None
        if response is None:
            response = self._response(self.session.for_response({})[0])
            told += response.created()
        response.number = event.response
        self._responses[event.response] = response
        if response.cancelled:
            self._conversation.cancel()
        return told

    def _no_transcripts(self, question: int) -> list[Event]:
        """Of the questions up to this one nothing is written down: their ear makes vectors."""
        unheard = [number for number in self._unheard if number <= question]
        items = [self._unheard.pop(number)[0] for number in unheard]
        error = {
            "type": "server_error",
            "code": "no_transcript",
            "message": "nothing was written down of what was heard",
        }
        return [
            {
                "type": "conversation.item.input_audio_transcription.failed",
                "item_id": item.id,
                "content_index": 0,
                "error": error,
            }
            for item in items
            if self.session.transcribes and item in self._items
        ]

    def _told_of_response(
        self, event: ResponseText | ResponseTokens | ResponseAudio | ResponseEnded
    ) -> list[Event]:
        if (response := self._responses.get(event.response)) is None:
            return []
        if isinstance(event, ResponseText):
            return response.said(event)
        if isinstance(event, ResponseTokens):
            return response.unmasked(event)
        if isinstance(event, ResponseAudio):
            return response.spoke(event)
        del self._responses[event.response]
        return response.ended(event, self._forgotten)

    def _truncated(self, event: ResponseTruncated) -> list[Event]:
        item = self._asked.pop(event.ref).item
        assert item is not None
        item.text = event.text
        return [
            {
                "type": "conversation.item.truncated",
                "item_id": item.id,
                "content_index": 0,
                "audio_end_ms": round(1000 * event.played_s),
            }
        ]

    def _failed(self, event: SessionError) -> list[Event]:
        response = self._responses.pop(event.ref, None) if event.ref else None
        if response is not None and response.told:
            return response.never_began(event.reason, event.message)
        asked = self._asked.pop(event.ref or "", _Asked(None))
        if asked.item is not None and not asked.item.told:
            self._items.remove(asked.item)
        code = "input_audio_buffer_commit_empty" if "nothing to commit" in event.message else None
        return self._error(event.message, asked.event_id, None, code, INVALID)

    def _closed(self, event: SessionClosed) -> list[Event]:
        """Nothing is answered any more."""
        left, self._responses = list(self._responses.values()), {}
        told = event.message or "the session was closed"
        return [
            done
            for response in left
            if response.told
            for done in response.never_began("cancelled", told)
        ]

    # ---- What is sent ----------------------------------------------------------------------------

    def _response(self, fields: dict[str, Any]) -> Response:
        fields = fields | {"conversation_id": self._conversation_id}
        return Response(self._new_id("resp"), fields, self.session, self._items)

    def _error(
        self, message: str, event_id: str | None, param: str | None, code: str | None, kind: str
    ) -> list[Event]:
        error = {
            "type": kind,
            "code": code,
            "message": " ".join(message.split()),
            "param": param,
            "event_id": event_id,
        }
        return [{"type": "error", "error": error}]

    def _sent(self, events: list[Event]) -> list[Event]:
        return [{"event_id": self._new_id("event")} | event for event in events]
