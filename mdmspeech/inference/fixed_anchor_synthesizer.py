"""A voice with the paper's fixed anchors: it speaks what a Thinker writes, from [Emb(y); h] of each
token.

Source: docs/method.md, "Fixed anchors" and "Stop rules".

Block b of the speech needs the text tokens up to Q(b + 1) and never later ones, so it is decoded as
soon as the Thinker has written them, or has ended. Speech may not end before the block in which the
last text token, the end token, is an anchor; it ends at the first EOS then.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import TEXTS, FixedReader, FixedText
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech
from mdmspeech.inference.speech_stream import SpeechStream
from mdmspeech.inference.symbols import cut, halves
from mdmspeech.inference.synthesizer import SynthesisPlan, Synthesizer, silence_guard
from mdmspeech.inference.thinker_runner import TextDelta, ThinkerRunner
from mdmspeech.inference.utterance import Utterance
from mdmspeech.models.talker import TalkerConfig

_PART = 96  # tokens of a text that is spoken in one go: those of the longest answers
# speech tokens that a text token may take: words of two or three tokens a second are slow speech
_LONGEST = 16
_SPARE = 64  # speech tokens that any text may take besides


class FixedAnchorSynthesizer(Synthesizer):
    """Speaks with a Talker that reads the states of one Thinker.

    Args:
      config, params, mode: a Talker with fixed anchors, see `TalkerEngine`. codec: whose tokens it
        speaks.
      thinker: the Thinker whose states it was trained on.
      silence: codes that sound like silence.

    Raises:
      UserError: a Talker with other anchors, or one that reads states of another width.
    """

    anchors = "fixed"
    reads_states = True

    def __init__(
        self,
        config: TalkerConfig,
        params: dict,
        codec: Codec,
        thinker: ThinkerRunner,
        *,
        mode: str = "mdm",
        silence: Sequence[int] = (),
    ):
        self.thinker = thinker
        super().__init__(config, params, codec, mode, **silence_guard(silence))
        self.reader = FixedReader(self.engine.talker, self.engine.params)

    def plan(self, text: str) -> SynthesisPlan:
        """Parts of the text, each of which the Thinker reads as an answer to the request to repeat it."""
        parts = list(self._parts_of(text))
        return SynthesisPlan(parts, parts, ())

    def stream(self, **generation: Any) -> "FixedAnchorStream":
        """A `FixedAnchorStream`: let it follow the pieces of an answer, take samples. Arguments and
        errors as of `say`.
        """
        return FixedAnchorStream(self, self.check(GenerationConfig.of(generation)))

    def warm_up(self, *, all: bool = False) -> None:
        """Compiles what a first answer needs; all: whatever any answer and any number of them
        need.
        """
        (states,) = self.thinker.hidden_states_of(["Yes."])
        stream = self.stream()
        stream.push_delta(TextDelta("Yes.", True, 1, states, last=True))
        while not stream.done:
            stream.step()
        if not all:
            return
        text = self.text()
        for width in TEXTS:
            text = self.text()
            text.extend(np.zeros((width, states.shape[1]), np.float32))
        self.engine.warm_up(text.inputs)
        self.codec.warm_up(self.engine.longest)

    def _check_talker(self, config: TalkerConfig) -> None:
        super()._check_talker(config)
        if config.text_dim != 2 * self.thinker.width:
            raise UserError(
                f"the Talker reads [Emb(y); h] of width {config.text_dim}, this Thinker makes "
                f"{2 * self.thinker.width}: use the Thinker it was trained with"
            )

    def _parts_of(self, text: str) -> Iterator[str]:
        """The text if it is no longer than answers are, else its pieces, put together as long as
        they are no longer.
        """
        if self._fits(text):
            yield text
            return
        over, last = cut(text)
        part = ""
        for piece in (one for whole in [*over, last] for one in halves(whole, self._fits)):
            if part and not self._fits(f"{part} {piece}"):
                yield part
                part = piece
            else:
                part = f"{part} {piece}".strip()
        yield part

    def _fits(self, text: str) -> bool:
        return len(self.thinker.tokenizer.encode(text)) <= _PART

    def heard(self, segments: Sequence[str], generation: GenerationConfig) -> list[FixedText]:
        """See `Synthesizer`."""
        texts = []
        for row in self.thinker.hidden_states_of(segments):
            texts.append(text := self.text())
            text.extend(row)
            text.end()
        return texts

    def text(self) -> FixedText:
        """A text that is empty so far."""
        anchors = self.engine.config.anchors_per_block
        return FixedText(self.reader, self.block, anchors, _LONGEST, _SPARE)


class FixedAnchorStream(SpeechStream):
    """Speaks an answer while the Thinker writes it."""

    def __init__(self, voice: FixedAnchorSynthesizer, generation: GenerationConfig):
        super().__init__(voice, generation)
        self._text = voice.text()
        self._run = voice.utterance(generation, self._text, 0)

    def push_delta(self, piece: TextDelta) -> None:
        """The next piece of the answer, with its states. UserError: the answer has grown too long."""
        self._pieces.append(piece.text)
        if piece.states is not None:
            began = time.perf_counter()
            if self._text.count + len(piece.states) > TEXTS[-1]:
                raise UserError(
                    f"the answer has more than {TEXTS[-1]} tokens, the most that can be "
                    "spoken in one go; ask for a shorter one"
                )
            self._text.extend(piece.states)
            self.seconds["talker"] += time.perf_counter() - began
        if piece.last:
            self.end()

    def end(self) -> None:
        """There is no more text."""
        self._text.end()

    def result(self) -> Speech:
        """All that was said so far (everything, once `done`)."""
        spoken = self._run.spoken()
        return self._so_far((), [spoken] if len(spoken.tokens) or self.done else [])

    def close(self) -> None:
        """No more is said."""
        self._run.close()
        self.done = True

    def _over(self) -> bool:
        return self._text.ended

    def _current(self) -> Utterance | None:
        if self._run.row.done or (self._text.ended and not self._text.count):
            self._run.close()
            return None
        return self._run
