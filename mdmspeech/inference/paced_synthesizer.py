"""A voice: text -> symbols -> durations and conditions -> speech tokens, block by block -> samples.

`say` and `say_many` speak whole texts, in batches; `stream` (paced_stream.py) speaks a text that is
still being written. `PacedSynthesizer` has paced anchors and reads the text itself;
fixed_anchor_synthesizer.py has the one with the paper's fixed anchors, which reads the Thinker's
states.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import PacedReader, PacedText
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.paced_stream import PacedStream
from mdmspeech.inference.speech import Word
from mdmspeech.inference.symbols import SYMBOLS, Segment, read_text
from mdmspeech.inference.synthesizer import SynthesisPlan, Synthesizer
from mdmspeech.inference.utterance import SpokenSegment, speak_whole
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.text.normalise import normalise
from mdmspeech.text.pronounce import Spoken, pronouncer


def pronounce_text(text: str) -> Spoken:
    """The symbols of any written text, numbers and signs included."""
    return pronouncer()(normalise(text))


class PacedSynthesizer(Synthesizer):
    """Speaks text with one Talker and one codec.

    Args:
      config, params, mode: a Talker with paced anchors, see `TalkerEngine`.
      codec: a `codec.base.Codec` whose tokens the Talker speaks.
      pronounce: text -> `Spoken`.
      silence: codes that sound like silence.

    Raises:
      UserError: a Talker with fixed anchors.
    """

    reads_states = False

    def __init__(
        self,
        config: TalkerConfig,
        params: dict,
        codec: Codec,
        *,
        mode: str = "mdm",
        pronounce: Callable[[str], Spoken] = pronounce_text,
        silence=(),
    ):
        if config.anchors != "paced":
            raise UserError(
                f"a Talker with {config.anchors!r} anchors reads Thinker states "
                "and cannot speak text by itself; use a FixedAnchorSynthesizer"
            )
        super().__init__(config, params, codec, mode, silence_ids=tuple(silence))
        self.reader = PacedReader(self.engine.talker, self.engine.params)
        self.pronounce = pronounce

    def plan(self, text: str) -> SynthesisPlan:
        """Its symbols in segments. UserError: it has none."""
        read = read_text(self.pronounce, text)
        if not read.words:
            raise UserError(f"there is nothing to say in {text[:40]!r}; give words")
        texts = [
            " ".join(read.words[word] for word in sorted({*segment.owner} - {-1}))
            for segment in read.segments
        ]
        return SynthesisPlan(read.segments, texts, read.words)

    def tokens_at(
        self, symbols: Sequence[np.ndarray], durations: Sequence[np.ndarray], steps: int = 4
    ) -> list[np.ndarray]:
        """Speech tokens int32 [L] of symbols [M] spoken at given durations (speech tokens, float
        [M]) instead of the Talker's own; L is their sum, rounded up.
        """
        segments = [Segment(row.tolist(), [-1] * len(row), True) for row in symbols]
        spoken = self._speak(
            segments, [0] * len(segments), self.check(GenerationConfig(steps)), durations
        )
        return [np.asarray(one.tokens, np.int32) for one in spoken]

    def stream(self, **generation: Any) -> PacedStream:
        """A `PacedStream`: feed it text, take samples. Arguments and errors as of `say`."""
        return PacedStream(
            self, self.reader, self.pronounce, self.check(GenerationConfig.of(generation))
        )

    def warm_up(self, *, all: bool = False) -> None:
        """Compiles what a first sentence needs, streamed; all: whatever any text and any number of
        them need.
        """
        stream = self.stream()
        stream.end("This is a sentence.")
        while not stream.done:
            stream.step()
        if not all:
            return
        text = PacedText(self.reader, self.block)
        for width in SYMBOLS:
            text = PacedText(self.reader, self.block)
            text.extend([0] * width, closed=True)
        self.engine.warm_up(text.inputs)
        self.codec.warm_up(self.engine.longest)

    def _speak(
        self,
        segments: Sequence[Segment],
        numbers: Sequence[int],
        generation: GenerationConfig,
        given: Sequence[np.ndarray] | None = None,
    ) -> list[SpokenSegment]:
        texts = []
        for number, segment in enumerate(segments):
            texts.append(text := PacedText(self.reader, self.block, generation.pace))
            text.extend(segment.symbols, closed=True)  # alone, so that it is read as it is alone
            if given is not None:
                text.give(np.asarray(given[number], np.float32))
        for text in texts:
            self.check_length(text.lasting)
        return speak_whole(
            [partial(self.utterance, generation, *one) for one in zip(texts, numbers, strict=True)],
            [text.lasting for text in texts],
        )

    def words(
        self,
        words: Sequence[str],
        segments: Sequence[Segment],
        spoken: Sequence[SpokenSegment],
        begin: float = 0.0,
    ) -> tuple[Word, ...]:
        """When each word of consecutive segments is spoken: from the first to the last of its symbols."""
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        for segment, said in zip(segments, spoken, strict=False):
            times = (
                np.concatenate([[0.0], np.cumsum(said.durations, dtype=np.float64)])
                * self.token_seconds
                + begin
            )
            for m, word in enumerate(segment.owner[: len(said.durations)]):
                if word >= 0:
                    first.setdefault(word, float(times[m]))
                    last[word] = float(times[m + 1])
            begin += len(said.tokens) * self.token_seconds
        return tuple(Word(words[word], first[word], last[word]) for word in sorted(first))
