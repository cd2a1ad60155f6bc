"""What a chat completion asks for, read from its JSON: the conversation so far, the question, how the
answer is to be given. What the model cannot do is refused by name.
"""

import asyncio
import base64
import binascii
import dataclasses
from typing import Any

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.questions import check_question
from mdmspeech.serving.audio_memory import AudioMemory
from mdmspeech.serving.fields import Fields
from mdmspeech.serving.models import take_model
from mdmspeech.serving.request_error import RequestError, refused
from mdmspeech.serving.settings import Settings
from mdmspeech.serving.speaking import Manner, take_format, take_manner, take_voice
from mdmspeech.serving.transcriptions import load
from mdmspeech.speech_format import OUTPUT_RATE

_MOST_MESSAGES = 256
_MOST_RECORDINGS = 16
_MOST_TOKENS = 2**20
_INPUTS = ("wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "pcm16")
# parameters that change nothing here
_HARMLESS = (
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "service_tier", "parallel_tool_calls",
)  # fmt: skip
# parameters that may only say what is done anyway
_ONLY: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("n", (1,), "one answer is given"),
    ("top_p", (1, 1.0), "the likeliest words are taken"),
    ("frequency_penalty", (0, 0.0), "the likeliest words are taken"),
    ("presence_penalty", (0, 0.0), "the likeliest words are taken"),
    ("logit_bias", ({},), "the likeliest words are taken"),
    ("logprobs", (False,), "they are not kept"),
    ("top_logprobs", (0,), "they are not kept"),
    ("store", (False,), "nothing is stored"),
    ("stop", ([],), "an answer ends by itself"),
    ("tools", ([],), "the model calls no tools"),
    ("tool_choice", ("none", "auto"), "the model calls no tools"),
    ("functions", ([],), "the model calls no functions"),
    ("function_call", ("none", "auto"), "the model calls no functions"),
    ("response_format", ({"type": "text"},), "answers are plain text"),
    ("reasoning_effort", ("none",), "the model thinks as it was made to"),
    ("verbosity", ("medium",), "answers are as long as the model makes them"),
    ("prediction", (), "nothing is predicted"),
    ("moderation", (), "there is none"),
    ("web_search_options", (), "the model has no web"),
)

Asked = str | np.ndarray  # a text, or a wave at 16 kHz


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """turns: (what was asked, what was answered), oldest first. question: what is asked now.
    instructions: the system message, if one is given. spoken: whether the answer is said, in
    `format`. max_tokens: of its text.
    """

    turns: tuple[tuple[tuple[Asked, ...], str], ...]
    question: tuple[Asked, ...]
    instructions: str | None
    spoken: bool
    format: str
    manner: Manner
    max_tokens: int | None
    streamed: bool
    with_usage: bool


async def read_chat(
    fields: Fields, settings: Settings, talkers: tuple[str, ...], memory: AudioMemory
) -> ChatRequest:
    """Checks all of it. RequestError: something that is wrong, or not supported."""
    take_model(fields, settings)
    fields.ignore(*_HARMLESS)
    for name, harmless, why in _ONLY:
        fields.only(name, harmless, why)
    spoken = _takes_audio(fields)
    form = "wav"
    if (audio := fields.take("audio")) is not None:
        inner = Fields(audio, "audio.")
        take_voice(inner, "voice", required=False)
        form = take_format(inner, "format", "wav")
        inner.done()
    elif spoken:
        raise RequestError('audio is missing; give {"voice": "default", "format": "wav"}', "audio")
    manner = take_manner(fields, talkers, "speed")
    limits = [fields.whole(name, 1, _MOST_TOKENS, None) for name in
              ("max_completion_tokens", "max_tokens")]  # fmt: skip
    streamed, options = fields.flag("stream"), fields.take("stream_options")
    with_usage = False
    if options is not None:
        inner = Fields(options, "stream_options.")
        with_usage = inner.flag("include_usage")
        inner.ignore("include_obfuscation")
        inner.done()
    messages = fields.take("messages")
    fields.done()
    reader = _Messages(settings, memory)
    await reader.read(messages)
    return ChatRequest(
        turns=tuple(reader.turns),
        question=tuple(reader.open),
        instructions="\n".join(reader.system) if reader.system else None,
        spoken=spoken,
        format=form,
        manner=manner,
        max_tokens=next((limit for limit in limits if limit is not None), None),
        streamed=streamed,
        with_usage=with_usage,
    )


def _takes_audio(fields: Fields) -> bool:
    given = fields.take("modalities", ["text"])
    good = isinstance(given, list) and given and all(one in ("text", "audio") for one in given)
    if not good:
        raise fields.wrong("modalities", given, '["text"] or ["text", "audio"]')
    return "audio" in given


class _Messages:
    """Reads a chat. Its questions may be of several messages, and of several parts.

    Attributes:
      system: instructions. turns: questions with their answers. open: the question without one.
    """

    def __init__(self, settings: Settings, memory: AudioMemory) -> None:
        self.system: list[str] = []
        self.turns: list[tuple[tuple[Asked, ...], str]] = []
        self.open: list[Asked] = []
        self._settings, self._memory = settings, memory
        self._characters, self._recordings = 0, 0

    async def read(self, messages: Any) -> None:
        """All of them. RequestError: no chat that ends with a question."""
        if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_MESSAGES:
            raise RequestError(f"messages is no list of 1 to {_MOST_MESSAGES} messages", "messages")
        for number, message in enumerate(messages):
            where = f"messages[{number}]"
            fields = Fields(message, f"{where}.")
            role = fields.required("role")
            fields.ignore("name")
            if role in ("system", "developer"):
                await self._instruct(fields, where)
            elif role == "user":
                self.open += await self._parts(fields, where)
            elif role == "assistant":
                await self._answer(fields, where)
            else:
                raise refused(
                    f"{where}.role", "there are messages of system, developer, user and assistant"
                )
            fields.done()
        if not self.open:
            raise RequestError("the last message is no question; let it be the user's", "messages")
        if all(isinstance(part, str) for part in self.open):
            try:
                check_question(" ".join(map(str, self.open)))
            except UserError as error:
                raise RequestError(str(error), "messages") from error

    async def _instruct(self, fields: Fields, where: str) -> None:
        if self.turns or self.open:
            raise refused(where, "instructions come before the first question")
        for part in await self._parts(fields, where):
            if not isinstance(part, str):
                raise refused(f"{where}.content", "instructions are written")
            self.system.append(part)

    async def _answer(self, fields: Fields, where: str) -> None:
        if not self.open:
            raise refused(where, "an answer comes behind a question")
        for name in ("tool_calls", "function_call"):
            fields.only(name, ([],), "the model calls no tools")
        fields.ignore("refusal", "annotations")
        if (audio := fields.take("audio")) is not None:
            inner = Fields(audio, f"{where}.audio.")
            name = inner.required("id")
            inner.ignore("data", "expires_at", "transcript")
            inner.done()
            fields.take("content")
            answered = self._memory.find(name)
            if answered is None:
                raise RequestError(
                    f"{where}.audio.id is no answer of this server, or one of long ago; send its "
                    "transcript as content",
                    f"{where}.audio.id",
                )
        else:
            parts = await self._parts(fields, where)
            answered = " ".join(part for part in parts if isinstance(part, str))
            if len(parts) != sum(isinstance(part, str) for part in parts) or not answered.strip():
                raise RequestError(f"{where}.content has no text in it", f"{where}.content")
        self.turns.append((tuple(self.open), answered))
        self.open = []

    async def _parts(self, fields: Fields, where: str) -> list[Asked]:
        content, found = fields.take("content"), list[Asked]()
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            raise RequestError(
                f"{where}.content is no text and no list of parts", f"{where}.content"
            )
        for number, part in enumerate(content):
            name = f"{where}.content[{number}]"
            inner = Fields(part, f"{name}.")
            kind = inner.required("type")
            if kind == "text":
                text = inner.text("text", "") or ""
                self._characters += len(text)
                if self._characters > 16 * self._settings.max_text:
                    raise too_long("messages")
                if text.strip():
                    found.append(text)
            elif kind == "input_audio":
                found.append(
                    await self._recording(inner.take("input_audio"), f"{name}.input_audio")
                )
            else:
                raise refused(f"{name}.type", "the model takes text and input_audio")
            inner.ignore("prompt_cache_breakpoint")
            inner.done()
        return found

    async def _recording(self, given: Any, where: str) -> np.ndarray:
        inner = Fields(given, f"{where}.")
        data, form = inner.required("data"), inner.choice("format", _INPUTS, "wav")
        inner.done()
        self._recordings += 1
        if self._recordings > _MOST_RECORDINGS:
            raise refused("messages", f"{_MOST_RECORDINGS} recordings are the most")
        try:
            content = await asyncio.to_thread(base64.b64decode, data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"{where}.data is no base64", f"{where}.data") from error
        if form == "pcm16":
            samples = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
            return await load((samples, OUTPUT_RATE), f"{where}.data", self._settings)
        return await load(content, f"{where}.data", self._settings)


def too_long(param: str) -> RequestError:
    """Of a chat for which there is no room."""
    return RequestError(
        "the conversation is longer than the model remembers; send fewer or shorter messages",
        param,
        code="context_length_exceeded",
    )
