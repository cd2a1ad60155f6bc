"""Speaking while the text is still being written: a block is decoded as soon as the text that it
needs is there.

A block of speech needs the symbols spoken in it and the encoder's look-ahead behind them, or the
end of the text. Features and durations of symbols that are complete are kept, so what was said
never changes, and the tokens are those of `PacedSynthesizer.say`.
"""

import dataclasses
import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from mdmspeech.decoding.state import FinishReason
from mdmspeech.diffusion.layout import NO_END
from mdmspeech.inference.engine import PacedInputs, known_length
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech
from mdmspeech.inference.speech_stream import SpeechStream
from mdmspeech.inference.symbols import SYMBOLS, SymbolStream
from mdmspeech.inference.synthesizer import BLOCKS, SpokenSegment, Synthesizer
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.models.anchors import MIN_DURATION
from mdmspeech.padding import bucket, stack
from mdmspeech.text.normalise import check_speakable
from mdmspeech.text.pronounce import Spoken


def paced(durations: np.ndarray, generation: GenerationConfig) -> np.ndarray:
    """Durations (speech tokens, float of any shape) at the wanted pace, none below the shortest."""
    return (
        np.maximum(durations / np.float32(generation.pace), np.float32(MIN_DURATION))
        if generation.pace != 1.0
        else durations
    )


class PacedStream(SpeechStream):
    """`feed` text and `end` it; while `ready()`, `step()` returns samples; `result()` when `done`.

    Args:
      voice: with paced anchors. pronounce: text -> `Spoken`. generation: checked by the voice.
    """

    def __init__(
        self, voice: Synthesizer, pronounce: Callable[[str], Spoken], generation: GenerationConfig
    ):
        super().__init__(voice, generation)
        self._voice, self._generation = voice, generation
        self._read = SymbolStream(pronounce)
        self._run: _Run | None = None
        self._spoken: list[SpokenSegment] = []  # of the segments before

    def feed(self, piece: str) -> None:
        """More text."""
        self._pieces.append(piece)
        self._read.feed(piece)

    def push_delta(self, piece: TextDelta) -> None:
        """The next piece of an answer that is being written. An answer without words is silence, no
        error.
        """
        if piece.text:
            self.feed(piece.text)
        if piece.last:
            self._read.end()

    def end(self, last: str = "") -> None:
        """The last piece; there is no more text. UserError: nothing in all of it can be said."""
        if not self._read.ended:
            self._pieces.append(last)
            self._read.end(last)
            check_speakable("".join(self._pieces))

    def ready(self) -> bool:
        """Whether `step` can go on now."""
        if self.done:
            return False
        began = time.perf_counter()
        run = self._current()
        ready = run is not None and run.ready()
        self.seconds["talker"] += time.perf_counter() - began
        return ready or (run is None and self._read.ended)

    def result(self) -> Speech:
        """All that was said so far (everything, once `done`)."""
        spoken = self._spoken if self._run is None else [*self._spoken, self._run.spoken()]
        return self._so_far(
            self._voice.words(self._read.words, self._read.segments, spoken), spoken
        )

    def _next(self) -> tuple[np.ndarray, bool]:
        run = self._current()
        tokens = np.zeros(0, np.int32) if run is None else run.block()
        return tokens, self._current() is None and self._read.ended

    def _current(self) -> "_Run | None":
        """The segment being spoken; None if all segments there are have been spoken. Of those only
        the tokens are kept.
        """
        if self._read.ended and not self._read.words:
            return None  # nothing to say
        while self._run is None or self._run.finished():
            if self._run is not None:
                self._spoken.append(self._run.spoken())
                self._run = None
            if len(self._spoken) == len(self._read.segments):
                return None
            number = len(self._spoken)
            self._run = _Run(self._voice, self._generation, self._read.segments[number], number)
        return self._run


class _Run:
    """One segment on its way."""

    def __init__(self, voice: Synthesizer, generation: GenerationConfig, segment, number: int):
        self._voice, self._engine, self._generation, self._segment = (
            voice,
            voice.engine,
            generation,
            segment,
        )
        self._features = np.zeros((1, SYMBOLS[-1], voice.engine.config.dim), np.float32)
        self._durations = np.zeros((1, SYMBOLS[-1]), np.float32)
        self._final = 0  # symbols whose features can no longer change
        self._blocks, self._room = 0, BLOCKS[0]
        self._length: int | None = None
        self._state = self._engine.begin(
            voice.request(generation, [number], min_len=NO_END), self._room
        )
        self._out: list = []
        self._reason = 0

    def finished(self) -> bool:
        """Whether its last token is out."""
        self._read()
        return self._length is not None and self._blocks * self._voice.block >= self._length

    def ready(self) -> bool:
        """Whether the next block's symbols are known."""
        self._read()
        if self._length is not None:
            return True
        return (
            float(self._durations.sum(dtype=np.float64))
            >= (self._blocks + 1) * self._voice.block + 1e-3
        )

    def block(self) -> np.ndarray:
        """Decodes the next block: its tokens [n]."""
        # A row ends where its room ends, so there is always
        # more room than what is said, unless the end is known.
        needed = (
            (self._blocks + 1) * self._voice.block + 1 if self._length is None else self._length
        )
        if needed > self._room * self._voice.block:
            self._room = self._voice.room(needed)
            self._state = self._engine.grow(self._state, self._room)
        if self._length is not None:
            target = dataclasses.replace(
                self._state.request, target_len_B=jnp.full(1, self._length, jnp.int32)
            )
            self._state = dataclasses.replace(self._state, request=target)
        valid = np.arange(SYMBOLS[-1])[None] < self._final
        self._state, tokens = self._engine.block(
            PacedInputs(self._features, self._durations, valid), self._state
        )
        self._blocks += 1
        count = int(tokens.count_B[0])
        self._out.append(
            (tokens.ids_BL[0, :count], tokens.step_BL[0, :count], tokens.confidence_BL[0, :count])
        )
        self._reason = int(self._state.reason_B[0])
        return np.asarray(tokens.ids_BL[0, :count])

    def spoken(self) -> SpokenSegment:
        """What is out so far."""
        empty = (np.zeros(0, np.int32),) * 3
        tokens, steps, confidence = (
            np.concatenate(parts) for parts in zip(empty, *self._out, strict=True)
        )
        # All said when the end of the text came to be known: no block was left to carry the reason.
        reason = FinishReason.LENGTH if self.finished() else self._reason
        return SpokenSegment(
            tokens.astype(np.int32),
            steps,
            confidence,
            self._durations[0, : self._final],
            int(reason),
        )

    def _read(self) -> None:
        """Reads the symbols that have come; features of those whose look-ahead is complete are kept
        for good.
        """
        segment, count = self._segment, len(self._segment.symbols)
        final = count if segment.closed else max(count - self._engine.lookahead, 0)
        if final > self._final:
            symbols, valid = stack([np.array(segment.symbols, np.int32)], bucket(count, SYMBOLS), 1)
            features, durations = self._engine.read(symbols, valid)
            new = slice(self._final, final)
            self._features[:, new] = features[:, new]
            self._durations[:, new] = paced(durations[:, new], self._generation)
            self._final = final
        if segment.closed and self._length is None:
            self._length = known_length(self._durations[0, :final])
            self._voice.room(self._length)  # a clear error before more is said
