"""`POST /v1/chat/completions`: questions, typed or spoken; answers, written or spoken."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiohttp import web

from mdmspeech.inference.reply import AudioEvent, EndEvent, Event, TextEvent
from mdmspeech.serving.audio_memory import AudioMemory
from mdmspeech.serving.chat_request import ChatRequest, read_chat
from mdmspeech.serving.chatting import Chatting
from mdmspeech.serving.encoders import Encoder
from mdmspeech.serving.fields import json_body
from mdmspeech.serving.job import Job
from mdmspeech.serving.keys import ENGINE, METRICS, SETTINGS, TEXT_LOG
from mdmspeech.serving.speaking import (
    Spoken,
    base64_of,
    encoded,
    errors_as_events,
    event_stream,
    write_event,
)

MEMORY = web.AppKey("memory", AudioMemory)


async def chat(request: web.Request) -> web.StreamResponse:
    """The handler. Its own fields: steps, seed, talker, speed; `temperature` is that of the speech
    tokens, the words are always the likeliest.
    """
    engine, settings, memory = request.app[ENGINE], request.app[SETTINGS], request.app[MEMORY]
    wanted = await read_chat(await json_body(request), settings, engine.assistant.talkers, memory)
    for part in wanted.question:
        if isinstance(part, str):
            request.app[TEXT_LOG]("question", part)
    spoken, made = Spoken(), list[Chatting]()

    def begin() -> Iterator[Event | None]:
        made.append(Chatting(engine.assistant, wanted, settings.context))
        return made[0]

    running: AbstractAsyncContextManager[Job[Event]] = engine.run(begin)
    with spoken.told(request.app[METRICS]):
        async with running as job:
            first = await anext(job)  # what cannot be answered is an error before any byte
            answer = _Answer(request, wanted, made[0], spoken)
            pieces = answer.pieces(first, job)
            response = await (answer.stream(pieces) if wanted.streamed else answer.whole(pieces))
            spoken.reason = "length" if made[0].full else "completed"
    request.app[TEXT_LOG]("answer", answer.text)
    return response


class _Answer:
    """One completion on its way out.

    Attributes:
      text: so far.
    """

    def __init__(
        self, request: web.Request, wanted: ChatRequest, made: Chatting, spoken: Spoken
    ) -> None:
        self.text = ""
        self._request, self._wanted, self._made, self._spoken = request, wanted, made, spoken
        self._memory = request.app[MEMORY]
        self._name = self._memory.new_id()
        self._encoder = Encoder(wanted.format, made.rate, whole=not wanted.streamed)
        self._audio_tokens = 0
        self._shared = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.app[SETTINGS].model_id,
        }

    async def pieces(self, first: Event, rest: Job[Event]) -> AsyncIterator[tuple[str, bytes]]:
        """Pieces of the text, and bytes of the speech, as they come."""
        event: Event | None = first
        while event is not None:
            if isinstance(event, TextEvent):
                self.text += event.text
                yield event.text, b""
            elif isinstance(event, AudioEvent):
                self._spoken.add(len(event.audio), event.sample_rate)
                yield "", await encoded(self._encoder, event.audio)
            elif isinstance(event, EndEvent):
                self._audio_tokens = len(event.reply.tokens)
                yield "", await encoded(self._encoder, None) if self._wanted.spoken else b""
            event = await anext(rest, None)

    async def whole(self, pieces: AsyncIterator[tuple[str, bytes]]) -> web.Response:
        """As one JSON object."""
        data = b"".join([data async for _, data in pieces])
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.text.strip(),
            "refusal": None,
        }
        if self._wanted.spoken:
            message["content"] = None
            message["audio"] = {
                "id": self._name,
                "data": base64_of(data),
                "expires_at": self._memory.keep(self._name, self.text.strip()),
                "transcript": self.text.strip(),
            }
        choice = {"index": 0, "message": message, "finish_reason": self._ending, "logprobs": None}
        return web.json_response(
            {**self._shared, "object": "chat.completion", "choices": [choice], "usage": self._usage}
        )

    async def stream(self, pieces: AsyncIterator[tuple[str, bytes]]) -> web.StreamResponse:
        """As server-sent events."""
        response, spoken = event_stream(), self._wanted.spoken
        await response.prepare(self._request)
        async with errors_as_events(self._request, response):
            first = {"audio": {"id": self._name, "transcript": ""}} if spoken else {"content": ""}
            await write_event(response, self._chunk({"role": "assistant", **first}))
            async for text, data in pieces:
                if text:
                    said = {"audio": {"transcript": text}} if spoken else {"content": text}
                    await write_event(response, self._chunk(said))
                if data:
                    await write_event(response, self._chunk({"audio": {"data": base64_of(data)}}))
            if spoken:
                kept = self._memory.keep(self._name, self.text.strip())
                await write_event(response, self._chunk({"audio": {"expires_at": kept}}))
            await write_event(response, self._chunk({}, self._ending))
            if self._wanted.with_usage:
                await write_event(
                    response, {**self._chunk({}), "choices": [], "usage": self._usage}
                )
            await write_event(response, "[DONE]")
            await response.write_eof()
        return response

    @property
    def _ending(self) -> str:
        return "length" if self._made.full else "stop"

    @property
    def _usage(self) -> dict[str, Any]:
        texts, vectors, cached = self._made.read
        written = self._made.written + self._audio_tokens
        return {
            "prompt_tokens": texts + vectors,
            "completion_tokens": written,
            "total_tokens": texts + vectors + written,
            "prompt_tokens_details": {
                "text_tokens": texts, "audio_tokens": vectors, "cached_tokens": cached,
            },
            "completion_tokens_details": {
                "text_tokens": self._made.written, "audio_tokens": self._audio_tokens,
            },
        }  # fmt: skip

    def _chunk(self, delta: dict[str, Any], ending: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": ending, "logprobs": None}
        return {**self._shared, "object": "chat.completion.chunk", "choices": [choice]}
