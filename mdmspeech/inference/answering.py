"""One question being answered, a bounded unit of work at a time: hear it, read it, write a token,
speak a block. Who holds it decides when the next unit is done, or that there is none.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.reply import AudioEvent, EndEvent, Event, Reply, TextEvent
from mdmspeech.inference.speech import Speech, Trace, finish_timeline
from mdmspeech.inference.speech_frontend import EncodedSpeech
from mdmspeech.inference.thinker_runner import TextDelta


class Stream(Protocol):
    """Speech of an answer that is being written, see `speech_stream.SpeechStream`."""

    began: float
    done: bool
    seconds: dict[str, float]
    steps: int | None

    def push_delta(self, piece: TextDelta) -> None:
        """More of the answer."""

    def end(self) -> None:
        """There is no more."""

    def ready(self) -> bool:
        """Whether `step` can go on now."""

    def step(self) -> np.ndarray:
        """Decodes a block: the samples that are final now."""

    def result(self) -> Speech:
        """All that was said so far."""

    def close(self) -> None:
        """No more is said."""


class SilentStream:
    """A `Stream` of an answer that is only written."""

    def __init__(self, sample_rate: int) -> None:
        self.began, self.done = time.perf_counter(), False
        self.steps: int | None = None
        self.seconds: dict[str, float] = {}
        self._rate = sample_rate

    def push_delta(self, piece: TextDelta) -> None:
        """Nothing is said of it."""

    def end(self) -> None:
        """There is no more."""
        self.done = True

    def ready(self) -> bool:
        """Never."""
        return False

    def step(self) -> np.ndarray:
        """No samples [0]."""
        return np.zeros(0, np.float32)

    def result(self) -> Speech:
        """Without a sample."""
        none, no_tokens = np.zeros(0, np.float32), np.zeros(0, np.int32)
        trace = Trace(no_tokens, no_tokens, none, none)
        return Speech("", none, self._rate, no_tokens, "silent", (), trace, {})

    def close(self) -> None:
        """There is no more."""
        self.done = True


class LimitedAnswer(Iterator[TextDelta]):
    """The pieces of an answer, as many tokens as there may be.

    Attributes:
      written: tokens so far, thoughts included. cut: whether there were more. full: whether it has
        ended at a limit, this one or the Thinker's own.

    Args:
      most: tokens; None: any number.
    """

    def __init__(self, pieces: Iterator[TextDelta], most: int | None) -> None:
        self.written, self.cut, self.full = 0, False, False
        self._pieces, self._most = pieces, most

    def __next__(self) -> TextDelta:
        if self.cut:
            raise StopIteration
        piece = next(self._pieces)
        if self._most is not None and piece.count > self._most:
            self.cut = self.full = True
            return dataclasses.replace(piece, text="", states=None, count=self._most, last=True)
        self.written = piece.count + piece.thought
        self.full = piece.last and not piece.stopped
        return piece


class Voice(Protocol):
    """A Talker and a codec that can follow an answer, see `synthesizer.Synthesizer`."""

    block: int
    reads_states: bool
    codec: Codec

    def check(self, generation: GenerationConfig) -> GenerationConfig:
        """The same, or a UserError."""

    def stream(self, **generation: Any) -> Stream:
        """A new one."""

    def warm_up(self) -> None:
        """Compiles what a first answer needs."""


class Answering(Iterator[Event | None]):
    """Each `next` does one unit and gives what came of it, None if nothing can be shown of it; the
    last one is the `EndEvent`. Text is spoken as soon as it is there.

    Attributes:
      heard: what was understood, once it is (None before, and where nobody writes it down).
      text: of the answer, so far. stream: its speech.

    Args:
      voice: that speaks. encode: hears the question: (what the Thinker is asked, what was
        understood). ask: reads it and returns the pieces of the answer. stream: of the voice.
      steps: forwards of the next block, asked for each time (None: as the stream was made).
    """

    def __init__(
        self,
        voice: Voice,
        encode: Callable[[], tuple[EncodedSpeech, str | None]],
        ask: Callable[[EncodedSpeech], Iterator[TextDelta]],
        stream: Stream,
        steps: Callable[[], int] | None = None,
    ) -> None:
        self.stream, self.text, self._steps = stream, "", steps
        self.heard: str | None = None
        self._voice, self._encode, self._ask = voice, encode, ask
        self._timeline: dict[str, Any] = {"thinker_decode": 0.0}
        self._first: float | None = None
        self._follows = False  # whether the stream has the answer so far
        self._units = self._work()

    @property
    def speaking(self) -> Stream | None:
        """The stream, if the next unit decodes a block of it: it may as well be decoded now, with
        those of others (`speech_stream.decode_together`).
        """
        if not self._follows or self.stream.done or not self.stream.ready():
            return None
        self._choose_steps()
        return self.stream

    def __next__(self) -> Event | None:
        return next(self._units)

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, so far; those of hearing are its caller's."""
        stages = ("thinker_prefill", "thinker_decode")
        return {key: self._timeline[key] for key in stages if key in self._timeline} | dict(
            self.stream.seconds
        )

    def close(self) -> None:
        """No more units; what the stream holds on the device is free."""
        self._units.close()
        self.stream.close()

    def _work(self) -> Generator[Event | None]:
        self._began = time.perf_counter()
        question, self.heard = self._encode()
        yield None
        asked = time.perf_counter()
        pieces = self._ask(question)
        self._timeline = {
            "encoder": question.encoder_s, "adaptor": question.adaptor_s,
            "thinker_prefill": time.perf_counter() - asked, "thinker_decode": 0.0,
            "thinker_tokens": 0,
        }  # fmt: skip
        yield None
        while True:
            waited = time.perf_counter()
            piece = next(pieces, None)
            self._timeline["thinker_decode"] += time.perf_counter() - waited
            if piece is None:
                break
            self._timeline["thinker_tokens"] = piece.count + piece.thought
            self.text += piece.text
            self.stream.push_delta(piece)
            self._follows = True
            yield TextEvent(piece.text) if piece.text else None
            while self.stream.ready():
                yield self._speak()
        self.stream.end()
        while not self.stream.done:
            yield self._speak()
        yield EndEvent(self._reply())

    def _choose_steps(self) -> None:
        if self._steps is not None:
            self.stream.steps = self._steps()

    def _speak(self) -> AudioEvent | None:
        self._choose_steps()
        audio = self.stream.step()
        if not len(audio):
            return None
        if self._first is None:
            self._first = time.perf_counter() - self._began
            decoding = {"thinker_decode": self._timeline["thinker_decode"]}
            self._timeline["until_first_audio"] = {**decoding, **self.stream.seconds}
        return AudioEvent(audio, self._voice.codec.sample_rate)

    def _reply(self) -> Reply:
        speech = self.stream.result()
        spent = {**self.stream.seconds, "first_audio_s": self._first}
        total = time.perf_counter() - self._began
        timeline = finish_timeline(
            {**self._timeline, **spent}, len(speech.audio), speech.sample_rate, total
        )
        ready_P = speech.trace.ready_P - np.float32(self._began - self.stream.began)
        return Reply(
            self.text.strip(),
            speech.audio,
            speech.sample_rate,
            speech.tokens,
            speech.stop_reason,
            self.heard,
            speech.words,
            dataclasses.replace(speech.trace, ready_P=ready_P),
            timeline,
        )
