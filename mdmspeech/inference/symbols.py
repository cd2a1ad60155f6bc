"""Text -> the symbol segments that a paced Talker speaks, all at once or while the text is still being written.

A segment is one utterance for the Talker: whole sentences, started anew before they grow longer than what it was trained on. Where a segment ends
depends on the text before only, so a stream cuts like a whole text.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from mdmspeech.text.pronounce import BOUNDARY, Spoken

SEGMENT = 80  # symbols (about 5 s): the next sentence starts a new segment once one is as long as this
_SHORT = 3  # letters: a word up to this long is said as its successor asks ("a", "to", "the")


@dataclasses.dataclass
class Segment:
    """symbols, owner: ids and the word (number in the whole text, -1 at boundaries) of each. closed: nothing more will be added."""

    symbols: list[int]
    owner: list[int]
    closed: bool = False


class SymbolStream:
    """Symbols of a growing text. `feed` pieces, then `end`; `segments` and `words` grow meanwhile and never change.

    How a word is said depends on the one after it ("the apple"), and through a short one on the next but one ("used to a"), so it waits for them;
    a digit waits for the end of its number. (Of 130 answers and open sentences fed word by word none came out otherwise than whole; 4 did when
    every word waited for its successor only.)
    """

    def __init__(self, pronounce: Callable[[str], Spoken], limit: int = SEGMENT):
        self.segments: list[Segment] = []
        self.words: list[str] = []
        self.ended = False
        self._pronounce, self._limit, self._text = pronounce, limit, ""

    def feed(self, piece: str) -> None:
        """The next piece of the text, of any size."""
        self._text += piece
        if any(character.isspace() for character in piece):
            self._commit()

    def end(self, last: str = "") -> None:
        """The last piece; there is no more text."""
        if not self.ended:
            self.ended, self._text = True, self._text + last
            self._commit()
            self.segments[-1].closed = True

    def _commit(self) -> None:
        text = self._text
        if not self.ended:
            complete = text.rstrip() if text[-1:].isspace() else text.rpartition(" ")[0]
            if any(character.isdigit() for word in complete.split()[-2:] for character in word):
                return
            text = complete
        spoken = self._pronounce(text)
        owner = spoken.word_of_symbol
        stop = len(spoken.words) if self.ended else _settled(spoken.words)
        first = 0 if not self.segments else _begin(owner, len(self.words))
        last = len(owner) if self.ended else _begin(owner, stop)
        if stop > len(self.words) or self.ended:
            self.words += spoken.words[len(self.words) : stop]
            for symbol, word in zip(spoken.symbols[first:last].tolist(), owner[first:last].tolist(), strict=True):
                self._add(symbol, word)

    def _add(self, symbol: int, word: int) -> None:
        segment = self.segments[-1] if self.segments else None
        if segment is None or (segment.symbols[-1] == BOUNDARY and symbol != BOUNDARY and len(segment.symbols) > self._limit):
            if segment is not None:
                segment.closed = True
            segment = Segment([BOUNDARY], [-1])
            self.segments.append(segment)
            if symbol == BOUNDARY:
                return
        segment.symbols.append(symbol)
        segment.owner.append(word)


def _settled(words: list[str]) -> int:
    """How many of the complete words so far will be said the same whatever follows."""
    count = len(words) - 1
    if count > 0 and sum(character.isalpha() for character in words[count]) <= _SHORT:
        count -= 1
    return max(count, 0)


def _begin(owner: np.ndarray, word: int) -> int:
    """Index of the first symbol of `word` or a later one; the length if there is none."""
    at = np.flatnonzero(owner >= word)
    return int(at[0]) if len(at) else len(owner)


def read_text(pronounce: Callable[[str], Spoken], text: str) -> SymbolStream:
    """The segments of a whole text."""
    stream = SymbolStream(pronounce)
    stream.end(text)
    return stream
