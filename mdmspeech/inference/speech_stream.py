"""What streams of both kinds of voices share: blocks of tokens go to the codec as they come, and
somebody keeps the books.
"""

import time
from collections.abc import Sequence

import numpy as np

from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech, Word
from mdmspeech.inference.synthesizer import SpokenSegment, Synthesizer


class SpeechStream:
    """While `ready()`, `step()` returns samples, until `done`. A voice's own stream says when a
    block can be decoded (`ready`) and does it (`_next`).

    Attributes:
      began: when it was made. seconds: spent so far, "talker" and "codec". done: all is said.
    """

    def __init__(self, voice: Synthesizer, generation: GenerationConfig):
        self._speaker, self._codec = voice, voice.codec_for(generation).stream()
        self._pieces: list[str] = []
        self._waves: list[np.ndarray] = []
        self._ready_at: list[float] = []
        self.began = time.perf_counter()
        self.done = False
        self.seconds = {"talker": 0.0, "codec": 0.0}

    def ready(self) -> bool:
        """Whether `step` can go on now."""
        raise NotImplementedError

    def _next(self) -> tuple[np.ndarray, bool]:
        """(the next block's tokens, perhaps none; whether the speech is over with them)."""
        raise NotImplementedError

    def step(self) -> np.ndarray:
        """Decodes the next block and returns the samples that are final now (at the end: all that
        are left).
        """
        if not self.ready():
            raise RuntimeError("step() without ready()")
        began = time.perf_counter()
        tokens, over = self._next()
        talked = time.perf_counter()
        if len(tokens):
            self._ready_at.append(talked - self.began)
        wave = self._codec.push(tokens)
        if over:
            wave, self.done = np.concatenate([wave, self._codec.finish()]), True
        self.seconds["talker"] += talked - began
        self.seconds["codec"] += time.perf_counter() - talked
        self._waves.append(wave)
        return wave

    def _so_far(self, words: tuple[Word, ...], spoken: Sequence[SpokenSegment]) -> Speech:
        """All that was said so far."""
        wave = np.concatenate([np.zeros(0, np.float32), *self._waves])
        total = time.perf_counter() - self.began
        return self._speaker.joined(
            "".join(self._pieces), words, spoken, wave, dict(self.seconds), total, self._ready_at
        )
