"""Voices that read a text by themselves, in segments, each of which is one utterance. A whole text
and one that is still being written are read alike: a block is decoded as soon as the text that it
needs is there.

With paced anchors a block of speech needs the symbols spoken in it and the encoder's look-ahead
behind them, or the end of the text; with a text prefix it needs the whole of its segment. What has
been read is kept, so what was said never changes, and the tokens of a stream are those of `say`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import TextConditioner
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech
from mdmspeech.inference.speech_stream import SpeechStream
from mdmspeech.inference.synthesizer import SynthesisPlan, Synthesizer
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.inference.utterance import SpokenSegment, Utterance
from mdmspeech.text.normalise import check_speakable


class Reading(Protocol):
    """A growing text in segments that never change, but the last may grow. See
    `symbols.SymbolStream`.
    """

    segments: list[Any]
    words: list[str]
    ended: bool

    @property
    def texts(self) -> list[str]:
        """The words of each segment."""

    @property
    def silent(self) -> bool:
        """Whether there is nothing to say so far."""

    def feed(self, text: str) -> None:
        """The next part of the text."""

    def end(self, last: str = "") -> None:
        """The last part; there is no more."""


class TextSynthesizer(Synthesizer):
    """A `Synthesizer` whose own class says how it reads (`reading`) and what of a segment its Talker
    hears (`text`, `hear`).
    """

    def reading(self) -> Reading:
        """A text before its first word."""
        raise NotImplementedError

    def text(self, generation: GenerationConfig) -> TextConditioner:
        """What is heard of a segment, nothing so far."""
        raise NotImplementedError

    def hear(self, text: Any, segment: Any) -> None:
        """Tells `text` what there is of its segment. UserError: more than can be spoken at once."""
        raise NotImplementedError

    def plan(self, text: str) -> SynthesisPlan:
        """Its segments. UserError: there is nothing to say in it."""
        read = self.reading()
        read.end(text)
        if read.silent:
            raise UserError(f"there is nothing to say in {text[:40]!r}; give words")
        return SynthesisPlan(read.segments, read.texts, read.words)

    def heard(
        self, segments: Sequence[Any], generation: GenerationConfig
    ) -> Sequence[TextConditioner]:
        """See `Synthesizer`."""
        texts = [self.text(generation) for _ in segments]
        for text, segment in zip(texts, segments, strict=True):
            self.hear(text, segment)
        return texts

    def stream(self, **generation: Any) -> "SegmentStream":
        """A `SegmentStream`: feed it text, take samples. Arguments and errors as of `say`."""
        return SegmentStream(self, self.check(GenerationConfig.of(generation)))

    def warm_up(self, *, all: bool = False) -> None:
        """Compiles what a first sentence needs, streamed; all: whatever any text and any number of
        them need.
        """
        stream = self.stream()
        stream.end("This is a sentence.")
        while not stream.done:
            stream.step()
        if all:
            self.engine.warm_up(self._longest_text().inputs)
            self.codec.warm_up(self.engine.longest)

    def _longest_text(self) -> TextConditioner:
        """A text of the greatest length, after one of every other at which texts are padded."""
        raise NotImplementedError


class SegmentStream(SpeechStream):
    """`feed` text and `end` it, otherwise as `SpeechStream`.

    Args:
      voice: that reads text by itself. generation: checked by the voice.
    """

    def __init__(self, voice: TextSynthesizer, generation: GenerationConfig):
        super().__init__(voice, generation)
        self._voice, self._generation = voice, generation
        self._read = voice.reading()
        self._run: Utterance | None = None
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

    def result(self) -> Speech:
        """All that was said so far (everything, once `done`)."""
        spoken = self._spoken if self._run is None else [*self._spoken, self._run.spoken()]
        return self._so_far(
            self._voice.words(self._read.words, self._read.segments, spoken), spoken
        )

    def close(self) -> None:
        """No more is said."""
        if self._run is not None:
            self._spoken.append(self._run.ended())
            self._run = None
        self.done = True

    def _over(self) -> bool:
        return self._read.ended

    def _current(self) -> Utterance | None:
        """The segment being spoken; of those before only the tokens are kept."""
        if self._read.ended and self._read.silent:
            return None  # nothing to say
        while self._run is None or self._settled(self._run):
            if self._run is not None:
                self._spoken.append(self._run.ended())
                self._run = None
            if len(self._spoken) == len(self._read.segments):
                return None
            text = self._voice.text(self._generation)
            self._run = self._voice.utterance(self._generation, text, len(self._spoken))
        return self._run

    def _settled(self, run: Utterance) -> bool:
        """Reads what has come of the segment; whether the last token of all is out."""
        self._voice.hear(run.text, self._read.segments[len(self._spoken)])
        return run.finished
