"""A voice whose text stands in front of its speech (CosyVoice2's language model, and what is trained
from it): text -> ids -> keys and values, once -> speech tokens, block by block -> samples.

Source: docs/method.md, "Text prefix". The text is spoken sentence by sentence, each one with
nothing but itself in front of it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mdmspeech.codec.base import Codec
from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import TEXTS, PrefixReader, PrefixText
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.symbols import cut, halves
from mdmspeech.inference.synthesizer import silence_guard
from mdmspeech.inference.text_synthesizer import TextSynthesizer
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.text.normalise import normalise
from mdmspeech.text.tokenizer import ChatTokenizer

# speech tokens that an id of the text takes, at least and at most: CosyVoice2's own
_SHORTEST, _LONGEST = 2, 20


@dataclasses.dataclass(frozen=True)
class TextSegment:
    """Words as they are said, and their ids."""

    text: str
    ids: tuple[int, ...]


class SentenceReader:
    """A growing text in sentences, or parts of long ones. `feed` pieces of any size, then `end`;
    `segments` grow meanwhile and never change.

    Args:
      encode: words -> ids. longest: ids of a segment, at most.
    """

    def __init__(self, encode: Callable[[str], list[int]], longest: int):
        self.segments: list[TextSegment] = []
        self.words: list[str] = []  # whose times are known: none
        self.ended = False
        self._encode, self._longest = encode, longest
        self._text = ""  # of the piece that is not over

    @property
    def texts(self) -> list[str]:
        """The words of each segment."""
        return [segment.text for segment in self.segments]

    @property
    def silent(self) -> bool:
        """Whether there is nothing to say so far."""
        return not self.segments

    def feed(self, text: str) -> None:
        """The next part of the text, of any size."""
        over, self._text = cut(self._text + text)
        for piece in over:
            self._add(piece)

    def end(self, last: str = "") -> None:
        """The last part; there is no more text."""
        if not self.ended:
            self.feed(last)
            self._add(self._text)
            self.ended = True

    def _add(self, piece: str) -> None:
        for part in halves(normalise(piece), lambda said: len(self._encode(said)) <= self._longest):
            if any(character.isalnum() for character in part):
                self.segments.append(TextSegment(part, tuple(self._encode(part))))


# How CosyVoice2's language model draws its tokens, where a temperature is asked for.
COSYVOICE2_SAMPLING = dict(top_k=25, top_p=0.8, repetition_window=10, repetition_share=0.1)


class PrefixSynthesizer(TextSynthesizer):
    """Speaks text with one Talker and one codec.

    Args:
      config, params, mode: a Talker with prefix anchors, see `TalkerEngine`.
      codec: a `codec.base.Codec` whose tokens the Talker speaks.
      tokenizer: of the text it was trained on.
      silence: codes that sound like silence.
      options: further fields of `decoding.state.DecodingConfig`, such as top_k and top_p.

    Raises:
      UserError: a Talker with other anchors, or a tokenizer with more ids than it has embeddings.
    """

    anchors = "prefix"

    def __init__(
        self,
        config: TalkerConfig,
        params: dict,
        codec: Codec,
        tokenizer: ChatTokenizer,
        *,
        mode: str = "mdm",
        silence: Sequence[int] = (),
        **options: Any,
    ):
        self.tokenizer = tokenizer
        super().__init__(config, params, codec, mode, **silence_guard(silence) | options)
        self.reader = PrefixReader(self.engine.talker, self.engine.params)

    def reading(self) -> SentenceReader:
        """See `TextSynthesizer`."""
        return SentenceReader(self.tokenizer.encode, self.reader.longest)

    def text(self, generation: GenerationConfig) -> PrefixText:
        """See `TextSynthesizer`."""
        return PrefixText(self.reader, _SHORTEST, _LONGEST)

    def hear(self, text: PrefixText, segment: TextSegment) -> None:
        """See `TextSynthesizer`."""
        if not text.count:
            text.extend(segment.ids)

    def _check_talker(self, config: TalkerConfig) -> None:
        super()._check_talker(config)
        if self.tokenizer.vocab_size > config.text_vocab_size:
            raise UserError(
                f"the Talker knows {config.text_vocab_size} ids of text, this tokenizer has "
                f"{self.tokenizer.vocab_size}: use the tokenizer it was trained with"
            )

    def _longest_text(self) -> PrefixText:
        for width in TEXTS:
            text = PrefixText(self.reader, _SHORTEST, _LONGEST)
            text.extend([0] * (width - 1))
        return text
