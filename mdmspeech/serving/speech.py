"""`POST /v1/audio/speech`: a text is read aloud, and goes out block by block as it is spoken."""

import dataclasses
from collections.abc import AsyncIterator

import numpy as np
from aiohttp import web

from mdmspeech.serving.encoders import FORMATS, Encoder
from mdmspeech.serving.fields import Fields, json_body
from mdmspeech.serving.keys import ENGINE, METRICS, SETTINGS, TEXT_LOG
from mdmspeech.serving.models import take_model
from mdmspeech.serving.request_error import RequestError, refused
from mdmspeech.serving.settings import Settings
from mdmspeech.serving.speaking import (
    Manner,
    Spoken,
    base64_of,
    encoded,
    errors_as_events,
    event_stream,
    take_format,
    take_manner,
    take_voice,
    write_event,
)
from mdmspeech.serving.work import Saying


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is asked for. streamed: whether bytes go out as they are made. events: as such."""

    text: str
    manner: Manner
    format: str
    streamed: bool
    events: bool


async def speech(request: web.Request) -> web.StreamResponse:
    """The handler. Fields of its own: steps, seed, talker, temperature, and `stream`: false for a
    whole file with its length in the header.
    """
    engine, settings = request.app[ENGINE], request.app[SETTINGS]
    wanted = _read(await json_body(request), settings, engine.assistant.talkers)
    request.app[TEXT_LOG]("speech", wanted.text)
    spoken = Spoken()
    made: list[Saying] = []

    def begin() -> Saying:
        made.append(Saying(engine.assistant, wanted.text, wanted.manner))
        return made[0]

    with spoken.told(request.app[METRICS]):
        async with engine.run(begin) as job:
            first = await anext(job, None)  # what cannot be said is an error before any byte
            encoder = Encoder(wanted.format, made[0].rate, whole=not wanted.streamed)
            waves = spoken.heard(_all(first, job), made[0].rate)
            if wanted.events:
                return await _send_events(request, encoder, waves, wanted, made[0])
            if wanted.streamed:
                return await _send_bytes(request, encoder, waves, wanted)
            async for wave_N in waves:
                await encoded(encoder, wave_N)
            body = await encoded(encoder, None)
        return web.Response(body=body, content_type=FORMATS[wanted.format].mime)


def _read(fields: Fields, settings: Settings, talkers: tuple[str, ...]) -> _Wanted:
    text = fields.required("input")
    if len(text) > settings.max_text:
        raise RequestError(
            f"input has {len(text)} characters, {settings.max_text} are the most; send it in parts",
            "input",
            code="string_above_max_length",
        )
    if not any(character.isalnum() for character in text):
        raise RequestError("there is nothing to say in input; give words", "input")
    take_model(fields, settings)
    take_voice(fields)
    if fields.text("instructions"):
        raise refused("instructions", "the voice cannot be told how to feel")
    name = take_format(fields, "response_format", "mp3")
    given = fields.choice("stream_format", ("audio", "sse", ""), "")
    # a file whose header programs rely on is whole, unless streaming is asked for
    streamed = fields.flag("stream", bool(given) or not FORMATS[name].headed)
    if given == "sse" and not streamed:
        raise RequestError("stream is false, stream_format sse; leave one of them out", "stream")
    manner = take_manner(fields, talkers, "speed")
    fields.done()
    return _Wanted(text, manner, name, streamed, given == "sse")


async def _all(
    first: np.ndarray | None, rest: AsyncIterator[np.ndarray]
) -> AsyncIterator[np.ndarray]:
    if first is not None:
        yield first
    async for wave_N in rest:
        yield wave_N


async def _send_bytes(
    request: web.Request, encoder: Encoder, waves: AsyncIterator[np.ndarray], wanted: _Wanted
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
    response.content_type = FORMATS[wanted.format].mime
    await response.prepare(request)
    async for wave_N in waves:
        if data := await encoded(encoder, wave_N):
            await response.write(data)
    if data := await encoded(encoder, None):
        await response.write(data)
    await response.write_eof()
    return response


async def _send_events(
    request: web.Request,
    encoder: Encoder,
    waves: AsyncIterator[np.ndarray],
    wanted: _Wanted,
    saying: Saying,
) -> web.StreamResponse:
    response = event_stream()
    await response.prepare(request)

    async def send(data: bytes) -> None:
        if data:
            event = {"type": "speech.audio.delta", "audio": base64_of(data)}
            await write_event(response, event)

    async with errors_as_events(request, response):
        async for wave_N in waves:
            await send(await encoded(encoder, wave_N))
        await send(await encoded(encoder, None))
        asked, spoken = saying.asked, saying.tokens
        usage = {"input_tokens": asked, "output_tokens": spoken, "total_tokens": asked + spoken}
        await write_event(response, {"type": "speech.audio.done", "usage": usage})
        await response.write_eof()
    return response
