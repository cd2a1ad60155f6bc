"""What streams of all voices share: blocks of tokens go to the codec as they come, and somebody
keeps the books.
"""

import time
from collections.abc import Sequence

import numpy as np

from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech, Word
from mdmspeech.inference.synthesizer import Synthesizer
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.inference.utterance import SpokenSegment, Utterance, advance


class SpeechStream:
    """Feed it text by `push_delta` and `end` it; while `ready()`, `step()` returns samples, until
    `done`; then `result()`. A voice's own stream makes utterances of the text (`_current`).

    Attributes:
      began: when it was made. seconds: spent so far, "talker" and "codec". done: all is said.
      steps: of the blocks to come; None = as the stream was asked for.
    """

    def __init__(self, voice: Synthesizer, generation: GenerationConfig):
        self._speaker, self._codec = voice, voice.codec_for(generation).stream()
        self._pieces: list[str] = []
        self._waves: list[np.ndarray] = []
        self._ready_at: list[float] = []
        self._decoded: np.ndarray | None = None  # a block that is not spoken yet
        self.began = time.perf_counter()
        self.done = False
        self.steps: int | None = None
        self.seconds = {"talker": 0.0, "codec": 0.0}

    def push_delta(self, piece: TextDelta) -> None:
        """The next piece of an answer that is being written."""
        raise NotImplementedError

    def end(self) -> None:
        """There is no more text."""
        raise NotImplementedError

    def result(self) -> Speech:
        """All that was said so far (everything, once `done`)."""
        raise NotImplementedError

    def close(self) -> None:
        """No more is said: what it holds on the device is free for others."""
        raise NotImplementedError

    def _current(self) -> Utterance | None:
        """The utterance being spoken; None if all there are so far have been spoken."""
        raise NotImplementedError

    def _over(self) -> bool:
        """Whether there is nothing to say any more, now and later."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether `step` can go on now."""
        if self.done or self._decoded is not None:
            return not self.done
        began = time.perf_counter()
        current = self._current()
        ready = self._over() if current is None else current.ready()
        self.seconds["talker"] += time.perf_counter() - began
        return ready

    def step(self) -> np.ndarray:
        """Decodes the next block and returns the samples that are final now (at the end: all that
        are left).
        """
        if self._decoded is None:
            decode_together([self])
        tokens, self._decoded = self._decoded, None
        assert tokens is not None
        began = time.perf_counter()
        if len(tokens):
            self._ready_at.append(began - self.began)
        wave = self._codec.push(tokens)
        if self._current() is None and self._over():
            wave, self.done = np.concatenate([wave, self._codec.finish()]), True
        self.seconds["codec"] += time.perf_counter() - began
        self._waves.append(wave)
        return wave

    def _so_far(self, words: tuple[Word, ...], spoken: Sequence[SpokenSegment]) -> Speech:
        """All that was said so far."""
        wave = np.concatenate([np.zeros(0, np.float32), *self._waves])
        total = time.perf_counter() - self.began
        return self._speaker.joined(
            "".join(self._pieces), words, spoken, wave, dict(self.seconds), total, self._ready_at
        )


def decode_together(streams: Sequence[SpeechStream]) -> None:
    """Decodes the next block of streams that are all `ready`, those of one Talker in one go; `step`
    speaks it. Each comes out as it does alone.

    RuntimeError: one is not ready.
    """
    if not all(stream.ready() for stream in streams):
        raise RuntimeError("step() without ready()")
    waiting = [stream for stream in streams if stream._decoded is None]
    engines = {id(stream._speaker.engine): stream._speaker.engine for stream in waiting}
    for engine in engines.values():
        began = time.perf_counter()
        mine = [stream for stream in waiting if stream._speaker.engine is engine]
        speaking = [(stream, one) for stream in mine if (one := stream._current()) is not None]
        for stream, one in speaking:
            one.steps = stream.steps
        tokens = advance([one for _, one in speaking])
        talked = time.perf_counter() - began
        for stream in mine:
            stream._decoded = np.zeros(0, np.int32)  # of one that only has to end
            stream.seconds["talker"] += talked
        for (stream, _), new in zip(speaking, tokens, strict=True):
            stream._decoded = new
