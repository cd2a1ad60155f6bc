"""`POST /v1/audio/transcriptions`: what is understood of a recording."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from aiohttp import web

from mdmspeech.audio.wave import load_wave
from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.serving.fields import Fields
from mdmspeech.serving.forms import form_body
from mdmspeech.serving.keys import ENGINE, METRICS, SETTINGS, TEXT_LOG
from mdmspeech.serving.models import take_model
from mdmspeech.serving.request_error import RequestError, refused
from mdmspeech.serving.settings import Settings
from mdmspeech.serving.speaking import (
    Spoken,
    errors_as_events,
    event_stream,
    write_event,
)
from mdmspeech.speech_format import INPUT_RATE

_TIMED = "when each word was said is not known here; use json or text"


async def transcriptions(request: web.Request) -> web.StreamResponse:
    """The handler."""
    engine, settings = request.app[ENGINE], request.app[SETTINGS]
    content, fields = await form_body(request, "file", settings.max_body)
    as_text, streamed = _read(fields, settings)
    wave = await load(content, "file", settings)
    with Spoken().told(request.app[METRICS]):
        async with engine.run(partial(_hearing, engine.assistant, wave)) as job:
            text = await anext(job)
    request.app[TEXT_LOG]("heard", text)
    usage = {"type": "duration", "seconds": len(wave) / INPUT_RATE}
    if streamed:
        response = event_stream()
        await response.prepare(request)
        async with errors_as_events(request, response):
            await write_event(response, {"type": "transcript.text.delta", "delta": text})
            await write_event(response, {"type": "transcript.text.done", "text": text})
            await response.write_eof()
        return response
    if as_text:
        return web.Response(text=text + "\n")
    return web.json_response({"text": text, "usage": usage})


async def load(content: Any, param: str, settings: Settings) -> np.ndarray:
    """A recording (bytes, or samples and their rate) as a wave at 16 kHz, decoded outside the event
    loop. RequestError: it is none, or too long.
    """
    try:
        return await asyncio.to_thread(
            load_wave, content, INPUT_RATE, max_seconds=settings.max_audio_s
        )
    except UserError as error:
        raise RequestError(str(error), param, code="invalid_audio") from error


def _read(fields: Fields, settings: Settings) -> tuple[bool, bool]:
    """(as plain text, streamed)."""
    take_model(fields, settings)
    fields.only("language", ("en",), "the model hears English; give en, or nothing")
    fields.only("prompt", ("",), "the ear cannot be guided")
    fields.only("temperature", ("0", "0.0"), "what was most likely said is written down; give 0")
    fields.only("chunking_strategy", ("auto",), "a recording is heard in one go")
    for name in ("include", "timestamp_granularities", "known_speaker_names",
                 "known_speaker_references", "keywords", "languages"):  # fmt: skip
        for spelled in (name, f"{name}[]"):
            fields.only(spelled, (), "the ear gives a text, and nothing else")
    form = fields.choice(
        "response_format", ("json", "text", "verbose_json", "srt", "vtt", "diarized_json"), "json"
    )
    if form not in ("json", "text"):
        raise refused("response_format", _TIMED, form)
    streamed = fields.choice("stream", ("true", "false", "True", "False", "1", "0"), "false")
    fields.done()
    return form == "text", streamed.lower() in ("true", "1")


def _hearing(assistant: Assistant, wave: np.ndarray) -> Iterator[str]:
    """The one unit of it. UserError: the ear does not write down what it hears."""
    heard = assistant.frontend.encode(wave).transcript
    if heard is None:
        raise RequestError(
            "this model's ear makes no text; ask /v1/chat/completions for an answer",
            code="unsupported_model",
        )
    yield heard
