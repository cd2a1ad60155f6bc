"""What all routes that speak share: the fields that say how, and how speech goes out as it is made."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from aiohttp import web

from mdmspeech.errors import UserError
from mdmspeech.inference.generation_config import PACES, SEEDS, TEMPERATURES
from mdmspeech.inference.playback import Playback
from mdmspeech.serving.encoders import FORMATS, Encoder
from mdmspeech.serving.errors import as_request_error, error_body
from mdmspeech.serving.fields import Fields
from mdmspeech.serving.keys import TOLD
from mdmspeech.serving.metrics import Metrics
from mdmspeech.serving.request_error import RequestError, refused
from mdmspeech.serving.voices import OPENAI_VOICES, VOICE

_MOST_STEPS = 64  # the voice knows better: its block
_AAC = "use mp3, opus, flac, wav or pcm"


@dataclasses.dataclass(frozen=True)
class Manner:
    """How to speak. talker, and generation: see `Assistant.say`."""

    talker: str
    generation: dict[str, Any]


def take_voice(fields: Fields, name: str = "voice", required: bool = True) -> None:
    """A voice by name or as {"id": name}; there is one, with names of others."""
    given = fields.take(name)
    if isinstance(given, dict):
        inner = Fields(given, fields.name(f"{name}."))
        given = inner.required("id")
        inner.done()
    if given is None and not required:
        return
    if not isinstance(given, str):
        told = "is missing" if given is None else "is neither a name nor an object with an id"
        raise RequestError(f'{fields.name(name)} {told}; give "{VOICE}"', fields.name(name))
    if given.lower() not in (VOICE, *OPENAI_VOICES):
        raise RequestError(
            f'{fields.name(name)} {given[:40]!r} is not here; there is "{VOICE}", and the names of OpenAI\'s '
            "voices, which are the same one",
            fields.name(name),
            code="voice_not_found",
        )


def take_manner(fields: Fields, talkers: tuple[str, ...], pace: str) -> Manner:
    """Our own fields, and how fast, by the name `pace`. talkers: those that there are."""
    talker = fields.choice("talker", talkers, talkers[0])
    return Manner(
        talker,
        {
            "pace": fields.real(pace, *PACES, 1.0),
            "steps": fields.whole("steps", 1, _MOST_STEPS, 4),
            "seed": fields.whole("seed", 0, SEEDS - 1, 0),
            "temperature": fields.real("temperature", *TEMPERATURES, 0.0),
        },
    )


def take_format(fields: Fields, name: str, default: str | None) -> str:
    """The name of a format of `FORMATS`; pcm16 is pcm."""
    given = fields.text(name, default)
    if given == "aac":
        raise refused(fields.name(name), _AAC, "aac")
    if given == "pcm16":
        return "pcm"
    if given not in FORMATS:
        raise fields.wrong(name, given, ", ".join(FORMATS))
    return given


class Spoken:
    """Books of one answer: its samples as a player has them.

    Attributes:
      first_s: from the request to the first samples. playback: of a player that begins at once.
      reason: why it has ended, if it has not failed.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first_s: float | None = None
        self.playback, self.reason = Playback(), "completed"

    async def heard(self, waves: AsyncIterator[np.ndarray], rate: int) -> AsyncIterator[np.ndarray]:
        """The same samples, written down when they go out."""
        async for wave_N in waves:
            self.add(len(wave_N), rate)
            yield wave_N

    def add(self, samples: int, rate: int) -> None:
        """Samples go out."""
        now = time.monotonic()
        if self.first_s is None:
            self.first_s = now - self.began
        self.playback.add(now, samples / rate)

    @contextlib.contextmanager
    def told(self, metrics: Metrics) -> Iterator[None]:
        """At the end of the block the metrics are told of it. Requests that were refused are not
        counted.
        """
        reason = ""
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            reason = "cancelled"
            raise
        except UserError:
            reason = "refused" if self.first_s is None else "error"
            raise
        except BaseException:
            reason = "error"
            raise
        finally:
            if reason != "refused":
                metrics.ended(
                    reason or self.reason,
                    time.monotonic() - self.began,
                    audio_s=self.playback.audio_s,
                    first_audio_s=self.first_s,
                    underrun_s=self.playback.underrun_s,
                )


async def encoded(encoder: Encoder, wave_N: np.ndarray | None) -> bytes:
    """Bytes of the next samples (None: the last bytes), made outside the event loop."""
    if wave_N is None:
        return await asyncio.to_thread(encoder.finish)
    return await asyncio.to_thread(encoder.push, wave_N)


async def write_event(response: web.StreamResponse, event: dict[str, Any] | str) -> None:
    """A server-sent event: JSON, or a word."""
    data = event if isinstance(event, str) else json.dumps(event)
    await response.write(f"data: {data}\n\n".encode())


@contextlib.asynccontextmanager
async def errors_as_events(
    request: web.Request, response: web.StreamResponse
) -> AsyncIterator[None]:
    """What goes wrong after the beginning of an answer is its last event."""
    try:
        yield
    except ConnectionError:
        raise
    except Exception as error:
        told = as_request_error(error)
        await write_event(response, error_body(told))
        request[TOLD] = True
        raise told from error


def event_stream() -> web.StreamResponse:
    """An answer of server-sent events, which no proxy holds back."""
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    return response


def base64_of(data: bytes) -> str:
    """As text."""
    return base64.b64encode(data).decode()
