"""Speaking while the text is still being written: a block is decoded as soon as the text that it
needs is there.

A block of speech needs the symbols spoken in it and the encoder's look-ahead behind them, or the
end of the text. Features and durations of symbols that are complete are kept, so what was said
never changes, and the tokens are those of `PacedSynthesizer.say`.
"""

from collections.abc import Callable

from mdmspeech.inference.conditioning import PacedReader, PacedText
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech
from mdmspeech.inference.speech_stream import SpeechStream
from mdmspeech.inference.symbols import SymbolStream
from mdmspeech.inference.synthesizer import Synthesizer
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.inference.utterance import SpokenSegment, Utterance
from mdmspeech.text.normalise import check_speakable
from mdmspeech.text.pronounce import Spoken


class PacedStream(SpeechStream):
    """`feed` text and `end` it, otherwise as `SpeechStream`.

    Args:
      voice: with paced anchors. reader: of its Talker. pronounce: text -> `Spoken`. generation:
        checked by the voice.
    """

    def __init__(
        self,
        voice: Synthesizer,
        reader: PacedReader,
        pronounce: Callable[[str], Spoken],
        generation: GenerationConfig,
    ):
        super().__init__(voice, generation)
        self._voice, self._reader, self._generation = voice, reader, generation
        self._read = SymbolStream(pronounce)
        self._run: Utterance | None = None
        self._text = PacedText(reader, voice.block)
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
        if self._read.ended and not self._read.words:
            return None  # nothing to say
        while self._run is None or self._settled(self._run, self._text):
            if self._run is not None:
                self._spoken.append(self._run.ended())
                self._run = None
            if len(self._spoken) == len(self._read.segments):
                return None
            number = len(self._spoken)
            self._text = PacedText(self._reader, self._voice.block, self._generation.pace)
            self._run = self._voice.utterance(self._generation, self._text, number)
        return self._run

    def _settled(self, run: Utterance, text: PacedText) -> bool:
        """Reads the symbols that have come; whether the last token of all is out."""
        segment = self._read.segments[len(self._spoken)]
        if text.length is None:
            text.extend(segment.symbols, segment.closed)
            self._voice.check_length(text.lasting)  # a clear error before more is said
        return run.finished
