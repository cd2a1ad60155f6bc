"""What requests have done in the thread of the model, unit by unit: see `job.Job`."""

import re
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from mdmspeech.inference.answering import Stream
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.text_synthesizer import TextSynthesizer
from mdmspeech.serving.speaking import Manner

_PIECE = 200  # characters of a text that are read in one unit


class Saying(Iterator[np.ndarray | None]):
    """Speaks a text: each `next` reads a piece of it, or decodes a block and gives its samples
    (float32 [N], Hz `rate`).

    Attributes:
      rate: of the samples. asked: tokens of the text. tokens: spoken, at the end.

    UserError: nothing can be said, or an option that the voice does not take.
    """

    def __init__(self, assistant: Assistant, text: str, manner: Manner) -> None:
        self._voice, generation = assistant.voice(manner.talker), manner.generation
        self.rate, self.tokens = self._voice.codec.sample_rate, 0
        self.asked = len(assistant.thinker.tokenizer.encode(text))
        self._stream: Stream | None = None
        if isinstance(self._voice, TextSynthesizer):
            self._stream = self._voice.stream(**generation)
            self._units = self._block_by_block(self._stream, text)
        else:  # which reads whole sentences
            self._units = self._part_by_part(text, generation)

    @property
    def speaking(self) -> Stream | None:
        """See `Answering.speaking`."""
        stream = self._stream
        return stream if stream is not None and not stream.done and stream.ready() else None

    def __next__(self) -> np.ndarray | None:
        return next(self._units)

    def close(self) -> None:
        """No more is said."""
        self._units.close()
        if self._stream is not None:
            self._stream.close()

    def _block_by_block(self, stream: Any, text: str) -> Generator[np.ndarray | None]:
        pieces = _pieces(text)
        for piece in pieces[:-1]:
            stream.feed(piece)
            yield None
            while stream.ready():
                yield _some(stream.step())
        stream.end(pieces[-1])
        yield None
        while not stream.done:
            yield _some(stream.step())
        self.tokens = len(stream.result().tokens)

    def _part_by_part(self, text: str, generation: dict[str, Any]) -> Generator[np.ndarray | None]:
        for part in self._voice.say_parts(text, **generation):
            self.tokens += len(part.tokens)
            yield _some(part.audio)


def _some(samples: np.ndarray) -> np.ndarray | None:
    return samples if len(samples) else None


def _pieces(text: str) -> list[str]:
    """The text in pieces that end behind a word, where there are words."""
    return re.findall(rf"(?s).{{1,{_PIECE}}}\S*\s*", text) or [""]
