"""One response of the protocol, from `response.created` to the one `response.done`: whatever the
session tells, what was opened is closed, once and in order.
"""

from typing import Any

from mdmspeech.inference.session_events import (
    Reason,
    ResponseAudio,
    ResponseEnded,
    ResponseText,
    ResponseTokens,
    Usage,
)
from mdmspeech.inference.speech import Word
from mdmspeech.serving.realtime.audio import encode
from mdmspeech.serving.realtime.items import Item, Items
from mdmspeech.serving.realtime.session_object import TOKENS, WORDS, SessionObject

Event = dict[str, Any]

# reason of the session -> (status, reason of the protocol)
_STATUS: dict[str, tuple[str, str | None]] = {
    "completed": ("completed", None),
    "turn_detected": ("cancelled", "turn_detected"),
    "cancelled": ("cancelled", "client_cancelled"),
    "max_output_tokens": ("incomplete", "max_output_tokens"),
    "error": ("failed", None),
}


class Response:
    """One.

    Attributes:
      id; number: of the session's response, once it has begun. told: whether a client knows of it.
        cancelled: whether a client has
        cancelled it before. item: that it makes. audio_s: of speech that was sent.

    Args:
      fields: of the response, as `SessionObject.for_response` has them.
    """

    def __init__(
        self, response_id: str, fields: dict[str, Any], session: SessionObject, items: Items
    ) -> None:
        self.id, self.number = response_id, 0
        self.told = self.cancelled = False
        self.item: Item | None = None
        self.audio_s = 0.0
        self._fields, self._session, self._items = fields, session, items
        self._text = ""
        self._previous: str | None = None
        self._tokens: list[ResponseTokens] = []
        self._spoken = fields["output_modalities"] == ["audio"]

    def created(self) -> list[Event]:
        """It will be answered."""
        self.told = True
        return [{"type": "response.created", "response": self._shown("in_progress", None, None)}]

    def said(self, event: ResponseText) -> list[Event]:
        """A piece of its text."""
        if not event.text:
            return []
        self._text += event.text
        kind = "output_audio_transcript" if self._spoken else "output_text"
        return [*self._opened(), self._part(f"response.{kind}.delta", delta=event.text)]

    def unmasked(self, event: ResponseTokens) -> list[Event]:
        """A block of tokens, told with the sound that comes of it."""
        if self._session.includes(TOKENS):
            self._tokens.append(event)
        return []

    def spoke(self, event: ResponseAudio) -> list[Event]:
        """A piece of its sound."""
        wanted = self._session.includes(WORDS)
        if not len(event.audio) and not (wanted and event.words):
            return []
        self.audio_s = event.start_s + len(event.audio) / event.sample_rate
        opened = self._opened()
        delta = self._part("response.output_audio.delta", delta=encode(event.audio))
        if wanted:
            delta["words"] = [_word(word) for word in event.words]
        if self._tokens:
            delta["blocks"] = [_block(block) for block in self._tokens]
            self._tokens = []
        return [*opened, delta]

    def ended(self, event: ResponseEnded, forgotten: int = 0) -> list[Event]:
        """It is over."""
        own = {
            "first_audio_ms": _ms(event.first_audio_s),
            "audio_ms": _ms(event.audio_s),
            "underruns": event.underruns,
            "underrun_ms": _ms(event.underrun_s),
            "steps": list(event.steps),
            "stages_ms": {name: _ms(seconds) for name, seconds in event.timeline.items()},
            "remembered": event.text,
            "forgotten_turns": forgotten,
        }
        closing = self._closed(event.reason)
        done = self._done(event.reason, event.message, _usage(event.usage), own)
        if self.item is not None and event.reason != "completed":
            self.item.text = event.text  # what an item is retrieved with
        return [*closing, done]

    def never_began(self, reason: Reason, message: str) -> list[Event]:
        """The session could not answer."""
        return [self._done(reason, message, _usage(Usage()), {})]

    def _opened(self) -> list[Event]:
        if self.item is not None:
            return []
        kind = "output_audio" if self._spoken else "output_text"
        self.item = item = self._items.add("assistant", "")
        item.status, item.number = "in_progress", self.number
        self._previous = previous = self._items.tell(item)
        shown = item.shown()
        item.kind, item.text = kind, ""
        return [
            {
                "type": "response.output_item.added",
                "response_id": self.id,
                "output_index": 0,
                "item": shown,
            },
            {"type": "conversation.item.added", "previous_item_id": previous, "item": shown},
            self._part("response.content_part.added", part=self._content("")),
        ]

    def _closed(self, reason: Reason) -> list[Event]:
        if (item := self.item) is None:
            return []
        item.status = "completed" if reason == "completed" else "incomplete"
        item.text = self._text
        shown = item.shown()
        texts = (
            [
                self._part("response.output_audio.done"),
                self._part("response.output_audio_transcript.done", transcript=self._text),
            ]
            if self._spoken
            else [self._part("response.output_text.done", text=self._text)]
        )
        return [
            *texts,
            self._part("response.content_part.done", part=self._content(self._text)),
            {
                "type": "response.output_item.done",
                "response_id": self.id,
                "output_index": 0,
                "item": shown,
            },
            {"type": "conversation.item.done", "previous_item_id": self._previous, "item": shown},
        ]

    def _done(
        self, reason: Reason, message: str, usage: dict[str, Any], own: dict[str, Any]
    ) -> Event:
        status, told = _STATUS[reason]
        details: dict[str, Any] = {"type": status}
        if told is not None:
            details["reason"] = told
        if reason == "error":
            details["error"] = {"type": "server_error", "code": "failed", "message": message}
        response = self._shown(status, details, usage)
        return {"type": "response.done", "response": response | {"mdmspeech": own}}

    def _shown(
        self, status: str, details: dict[str, Any] | None, usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": [] if self.item is None else [self.item.shown()],
            "usage": usage,
            **self._fields,
        }

    def _part(self, kind: str, **fields: Any) -> Event:
        return {
            "type": kind,
            "response_id": self.id,
            "item_id": "" if self.item is None else self.item.id,
            "output_index": 0,
            "content_index": 0,
            **fields,
        }

    def _content(self, text: str) -> dict[str, Any]:
        if self._spoken:
            return {"type": "audio", "transcript": text}
        return {"type": "text", "text": text}


def _usage(usage: Usage) -> dict[str, Any]:
    into, out = usage.text_in + usage.audio_in, usage.text_out + usage.audio_out
    return {
        "total_tokens": into + out,
        "input_tokens": into,
        "output_tokens": out,
        "input_token_details": {
            "text_tokens": usage.text_in,
            "audio_tokens": usage.audio_in,
            "image_tokens": 0,
            "cached_tokens": usage.cached,
        },
        "output_token_details": {"text_tokens": usage.text_out, "audio_tokens": usage.audio_out},
    }


def _word(word: Word) -> dict[str, Any]:
    return {"text": word.text, "start_ms": _ms(word.start), "end_ms": _ms(word.end)}


def _block(block: ResponseTokens) -> dict[str, Any]:
    return {
        "start": block.start,
        "tokens": block.tokens.tolist(),
        "steps": block.steps.tolist(),
        "confidence": [round(float(one), 4) for one in block.confidence],
    }


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)
