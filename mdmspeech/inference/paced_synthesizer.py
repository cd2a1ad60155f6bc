"""A voice with paced anchors: text -> symbols -> durations and conditions -> speech tokens, block by
block -> samples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.inference.conditioning import PacedReader, PacedText
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Word
from mdmspeech.inference.symbols import SYMBOLS, Segment, SymbolStream
from mdmspeech.inference.text_synthesizer import TextSynthesizer
from mdmspeech.inference.utterance import SpokenSegment
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.text.normalise import normalise
from mdmspeech.text.pronounce import Spoken, pronouncer


def pronounce_text(text: str) -> Spoken:
    """The symbols of any written text, numbers and signs included."""
    return pronouncer()(normalise(text))


class PacedSynthesizer(TextSynthesizer):
    """Speaks text with one Talker and one codec.

    Args:
      config, params, mode: a Talker with paced anchors, see `TalkerEngine`.
      codec: a `codec.base.Codec` whose tokens the Talker speaks.
      pronounce: text -> `Spoken`.
      silence: codes that sound like silence.

    Raises:
      UserError: a Talker with other anchors.
    """

    anchors = "paced"
    takes_pace = True

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
        super().__init__(config, params, codec, mode, silence_ids=tuple(silence))
        self.reader = PacedReader(self.engine.talker, self.engine.params)
        self.pronounce = pronounce

    def reading(self) -> SymbolStream:
        """See `TextSynthesizer`."""
        return SymbolStream(self.pronounce)

    def text(self, generation: GenerationConfig) -> PacedText:
        """See `TextSynthesizer`."""
        return PacedText(self.reader, self.block, generation.pace)

    def hear(self, text: PacedText, segment: Segment) -> None:
        """See `TextSynthesizer`."""
        if text.length is None:
            text.extend(segment.symbols, segment.closed)
            self.check_length(text.lasting)  # a clear error before more is said

    def tokens_at(
        self, symbols: Sequence[np.ndarray], durations: Sequence[np.ndarray], steps: int = 4
    ) -> list[np.ndarray]:
        """Speech tokens int32 [L] of symbols [M] spoken at given durations (speech tokens, float
        [M]) instead of the Talker's own; L is their sum, rounded up.
        """
        generation, texts = self.check(GenerationConfig(steps)), []
        for row, lasting in zip(symbols, durations, strict=True):
            texts.append(text := self.text(generation))
            text.extend(row.tolist(), closed=True)
            text.give(np.asarray(lasting, np.float32))
            self.check_length(text.lasting)
        spoken = self._spoken(texts, [0] * len(texts), generation)
        return [np.asarray(one.tokens, np.int32) for one in spoken]

    def _longest_text(self) -> PacedText:
        for width in SYMBOLS:
            text = PacedText(self.reader, self.block)
            text.extend([0] * width, closed=True)
        return text

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
