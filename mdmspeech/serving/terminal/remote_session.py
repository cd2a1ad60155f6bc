"""A session on a server, by the Realtime protocol (docs/realtime.md), with the methods and events of
one in this process.
"""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.event_queue import EventQueue
from mdmspeech.inference.recording import Resampler
from mdmspeech.inference.session_events import (
    Reason,
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    SessionClosed,
    SessionError,
    SessionEvent,
    SessionOpened,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)
from mdmspeech.serving.realtime.audio import encode
from mdmspeech.speech_format import INPUT_RATE, OUTPUT_RATE

_HTTP = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_PATIENCE = 30.0  # seconds for a connection
_REASONS: dict[str, Reason] = {
    "turn_detected": "turn_detected",
    "client_cancelled": "cancelled",
    "max_output_tokens": "max_output_tokens",
}


def socket_url(url: str) -> str:
    """The address of the socket of a server: "http://host:8000" -> "ws://host:8000/v1/realtime".
    UserError: it is no address of one.
    """
    parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
    if parts.scheme not in _HTTP or not parts.hostname:
        raise UserError(f"{url!r} is no address of a server; give one as http://127.0.0.1:8000")
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path = f"{path.removesuffix('/v1')}/v1/realtime"
    return urlunsplit((_HTTP[parts.scheme], parts.netloc, path, parts.query, ""))


class RemoteSession:
    """As `inference.session.Session`: methods return at once, from any thread.

    Attributes:
      events: an `EventQueue`.

    Args:
      url: of the server. key: that lets one in. turn_detection: whether the server finds the turns.
      output: fields of `session.audio.output` (steps, seed, ...).
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        turn_detection: bool = True,
        output: Mapping[str, Any] | None = None,
    ) -> None:
        self.events = EventQueue(lambda: None)
        self._url, self._key = socket_url(url), key
        listening: dict[str, Any] = {
            "format": {"type": "audio/pcm", "rate": INPUT_RATE},
            "transcription": {},
        }
        if not turn_detection:
            listening["turn_detection"] = None
        audio = {"input": listening, "output": dict(output or {})}
        self._settings = {"type": "realtime", "audio": audio}
        self._resampler, self._heard = Resampler(), False
        self._translate = _Translator()
        self._loop = asyncio.new_event_loop()
        self._sending: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._thread = threading.Thread(target=self._run, name="remote session", daemon=True)
        self._thread.start()

    def push_audio(self, samples: Any, rate: float = INPUT_RATE) -> None:
        """More sound."""
        wave = self._resampler.push(samples, rate)
        if len(wave):
            self._heard = True
            self._send("input_audio_buffer.append", audio=encode(wave))

    def push_text(self, text: str) -> None:
        """A typed question. UserError: no words in it."""
        if not text.strip():
            raise UserError("the question is empty; type one")
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        self._send("conversation.item.create", item=item)
        self._heard = False

    def commit(self) -> None:
        """The turn is over."""
        if self._heard:
            self._send("input_audio_buffer.commit")
        self._heard = False
        self._send("response.create")

    def cancel(self) -> None:
        """Stop speaking, now; nothing if nothing is being said."""
        if self._translate.running:
            self._send("response.cancel")

    def played(self, seconds: float) -> None:
        """The server reckons for itself; `truncate` tells it better."""

    def truncate(self, played_s: float, response: int | None = None) -> None:
        """Only so much of a response was played."""
        if (item := self._translate.item_of(response)) is not None:
            at = {"content_index": 0, "audio_end_ms": round(1000 * played_s)}
            self._send("conversation.item.truncate", item_id=item, **at)

    def close(self) -> None:
        """The end; a `SessionClosed` is the last event."""
        self._put(None)

    def _send(self, kind: str, **fields: Any) -> None:
        self._put({"type": kind, **fields})

    def _put(self, event: dict[str, Any] | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._sending.put_nowait, event)

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            message = self._loop.run_until_complete(self._talk())
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        self.events.put(SessionClosed(message))
        self._loop.close()

    async def _talk(self) -> str:
        """Until it is over; why, if that is to be told."""
        import aiohttp

        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        timeout = aiohttp.ClientTimeout(total=None, connect=_PATIENCE)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as client,
                client.ws_connect(self._url, max_msg_size=0, heartbeat=20.0) as socket,
            ):
                await socket.send_json({"type": "session.update", "session": self._settings})
                writer = asyncio.ensure_future(self._write(socket))
                try:
                    async for message in socket:
                        if message.type == aiohttp.WSMsgType.TEXT:
                            for event in self._translate(json.loads(message.data)):
                                self.events.put(event)
                finally:
                    writer.cancel()
                return _closed(socket.close_code)
        except aiohttp.WSServerHandshakeError as error:
            return (
                f"{self._url} lets nobody in ({error.status} {error.message}){_cure(error.status)}"
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"{self._url} cannot be reached ({error}); is `mdmspeech serve` running there?"

    async def _write(self, socket: Any) -> None:
        while (event := await self._sending.get()) is not None:
            await socket.send_json(event)
        await socket.close()


class _Translator:
    """Events of the server -> those of a session."""

    def __init__(self) -> None:
        self.running = False
        self._numbers: dict[str, int] = {}  # of responses
        self._items: dict[str, int] = {}  # of responses
        self._starts: dict[int, float] = {}  # seconds of a response that have come
        self._questions = 0
        self._opened = False

    def item_of(self, response: int | None) -> str | None:
        """The item that a response (None: the last one) makes."""
        numbers = list(self._items.items())
        return next((i for i, n in reversed(numbers) if response in (None, n)), None)

    def __call__(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        made = _EVENTS.get(event["type"])
        return [] if made is None else made(self, event)

    def updated(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        opened, self._opened = self._opened, True
        return [] if opened else [SessionOpened()]

    def started(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        interrupted = self._items.get(event.get("interrupted_item_id") or "")
        return [SpeechStarted(event["audio_start_ms"] / 1000, interrupted)]

    def stopped(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        self._questions += 1
        return [SpeechStopped(event["audio_end_ms"] / 1000)]

    def transcript(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        return [Transcript(self._questions, event["transcript"])]

    def created(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        self.running = True
        number = self._numbers.setdefault(event["response"]["id"], len(self._numbers) + 1)
        return [ResponseStarted(number, self._questions)]

    def item_added(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        self._items[event["item"]["id"]] = self._numbers[event["response_id"]]
        return []

    def text(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        return [ResponseText(self._numbers[event["response_id"]], event["delta"])]

    def audio(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        number = self._numbers[event["response_id"]]
        wave = np.frombuffer(base64.b64decode(event["delta"]), "<i2").astype(np.float32) / 32768
        start = self._starts.get(number, 0.0)
        self._starts[number] = start + len(wave) / OUTPUT_RATE
        return [ResponseAudio(number, wave, OUTPUT_RATE, start, ())]

    def done(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        self.running = False
        response, own = event["response"], event["response"].get("mdmspeech") or {}
        details = response.get("status_details") or {}
        reason: Reason = "error" if response["status"] == "failed" else "completed"
        first = own.get("first_audio_ms")
        number = self._numbers.setdefault(response["id"], len(self._numbers) + 1)
        return [
            ResponseEnded(
                number,
                _REASONS.get(details.get("reason", ""), reason),
                own.get("remembered", ""),
                self._starts.get(number, 0.0),
                None if first is None else first / 1000,
                own.get("underruns", 0),
                own.get("underrun_ms", 0) / 1000,
                tuple(own.get("steps", ())),
                (details.get("error") or {}).get("message", ""),
            )
        ]

    def error(self, event: Mapping[str, Any]) -> list[SessionEvent]:
        return [SessionError(event["error"]["message"])]


_EVENTS: dict[str, Callable[[_Translator, Mapping[str, Any]], list[SessionEvent]]] = {
    "session.updated": _Translator.updated,
    "input_audio_buffer.speech_started": _Translator.started,
    "input_audio_buffer.speech_stopped": _Translator.stopped,
    "conversation.item.input_audio_transcription.completed": _Translator.transcript,
    "response.created": _Translator.created,
    "response.output_item.added": _Translator.item_added,
    "response.output_audio_transcript.delta": _Translator.text,
    "response.output_audio.delta": _Translator.audio,
    "response.done": _Translator.done,
    "error": _Translator.error,
}


def _closed(code: int | None) -> str:
    told = {
        1001: "the conversation has lasted as long as it may on this server",
        1008: "nothing was said for too long",
        1012: "the server stops",
        1013: "the server has no place free; try again later",
    }
    if code in (1000, None):
        return ""
    return told.get(code or 0, f"the connection is lost (code {code})")


def _cure(status: int) -> str:
    told = {
        401: "; give the key by --api-key or in MDMSPEECH_API_KEY",
        404: "; is it the address of `mdmspeech serve`?",
        429: "; try again later",
    }
    return told.get(status, "")
