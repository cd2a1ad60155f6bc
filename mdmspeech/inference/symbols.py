"""Text -> the symbol segments that a paced Talker speaks, all at once or while the text is still
being written, at a cost linear in the text.

The text is read in pieces: a sentence or a few, and parts of a long one. What is said of a piece
depends on it alone, so it is settled once the piece is over. Where a piece or a segment ends
depends on the text before only, so a stream cuts like a whole text. A segment is one utterance for
the Talker: whole pieces, started anew before they grow longer than what it was trained on.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator

import numpy as np

from mdmspeech.text.pronounce import BOUNDARY, Spoken

# symbols (about 5 s): the next sentence starts a new segment once one is as long as this
SEGMENT = 80
LONGEST = 320  # symbols of a segment, at most
SYMBOLS = (32, 96, 192, 512)  # padded lengths of a segment
# characters: a longer sentence is cut after a clause, or else at the last space that is in time
CLAUSE, PIECE = 180, 280
_SHORT = 3  # letters: a word up to this long is said as its successor asks ("a", "to", "the")

# Only ends that are certain, which no abbreviation, initial, number or wrapped line makes: a piece
# of two sentences only takes longer.
_END = re.compile(
    r"""(?:\b(?:[a-z]{2,}|[A-Za-z]{5,})\.|[!?…])["”’')\]]*\s+(?=["“‘(\[]?[A-Z])"""
    r"""|\n\s*\n|(?<![,\s])[ \t\r]*\n\s*(?=[^a-zß-ÿ\s])"""
)
_CLAUSE_END = re.compile(r"(?<=[^\W\d][,;:—])\s+(?=[^\W\d])")
_TAG_BEGINS = re.compile(r"<[A-Za-z/!?][^>]*$")
# not between numbers, if that can be
_SPACES = re.compile(r"(?<![\d\s])\s+(?=[^\d\s])"), re.compile(r"\s+(?=\S)")


@dataclasses.dataclass
class Segment:
    """symbols, owner: ids and the word (number in the whole text, -1 at boundaries) of each.
    closed: nothing more will be added.
    """

    symbols: list[int]
    owner: list[int]
    closed: bool = False

    def add(self, symbol: int, word: int) -> None:
        """One more."""
        self.symbols.append(symbol)
        self.owner.append(word)


class SymbolStream:
    """Symbols of a growing text. `feed` pieces of any size, then `end`; `segments` and `words` grow
    meanwhile and never change.

    How a word is said depends on the one after it ("the apple"), and through a short one on the
    next but one ("used to a"), so it waits for them; a digit waits for the end of its number, a tag
    for its bracket. (Of 130 answers and open sentences fed word by word none came out otherwise
    than whole; 4 did when every word waited for its successor only.)
    """

    def __init__(self, pronounce: Callable[[str], Spoken], limit: int = SEGMENT):
        self.segments: list[Segment] = []
        self.words: list[str] = []
        self.ended = False
        self._pronounce, self._limit = pronounce, limit
        self._text = ""  # of the piece that is not over, from its beginning
        self._before = 0  # words of the pieces before

    @property
    def texts(self) -> list[str]:
        """The words of each segment."""
        return [
            " ".join(self.words[word] for word in sorted({*segment.owner} - {-1}))
            for segment in self.segments
        ]

    @property
    def silent(self) -> bool:
        """Whether there is nothing to say so far."""
        return not self.words

    def feed(self, text: str) -> None:
        """The next part of the text, of any size."""
        self._text += text
        if any(character.isspace() for character in text):
            self._commit()

    def end(self, last: str = "") -> None:
        """The last part; there is no more text."""
        if not self.ended:
            self.ended, self._text = True, self._text + last
            self._commit()
            if not self.segments:
                self.segments.append(Segment([BOUNDARY, BOUNDARY], [-1, -1]))
            self.segments[-1].closed = True

    def _commit(self) -> None:
        over, self._text = cut(self._text)
        for piece in over:
            self._say(piece, over=True)
        if self.ended:
            self._say(self._text, over=True)
        elif (complete := _complete(self._text)) and not _open(complete):
            self._say(complete, over=False)

    def _say(self, text: str, *, over: bool) -> None:
        """Gives out what is settled of a piece and has not been given out yet."""
        spoken = self._pronounce(text)
        given, count = (
            len(self.words) - self._before,
            len(spoken.words) if over else _settled(spoken.words),
        )
        if count > given:
            owner = spoken.word_of_symbol
            # A piece's first boundary is the last one of the piece before.
            first = _begin(owner, given) if given or self.segments else 0
            new = slice(first, len(owner) if over else _begin(owner, count))
            for symbol, word in zip(spoken.symbols[new].tolist(), owner[new].tolist(), strict=True):
                self._add(symbol, word + self._before if word >= 0 else -1)
            self.words += spoken.words[given:count]
        if over:
            if self.segments and self.segments[-1].symbols[-1] != BOUNDARY:
                self._add(BOUNDARY, -1)
            self._before = len(self.words)

    def _add(self, symbol: int, word: int) -> None:
        segment = self.segments[-1] if self.segments else None
        if segment is not None and symbol != BOUNDARY and len(segment.symbols) == LONGEST - 1:
            # a word without an end is where it begins
            word = -1 if segment.owner[-1] == word else word
            segment.add(BOUNDARY, -1)
        if segment is None or (
            symbol != BOUNDARY
            and segment.symbols[-1] == BOUNDARY
            and len(segment.symbols) > self._limit
        ):
            if segment is not None:
                segment.closed = True
            segment = Segment([BOUNDARY], [-1])
            self.segments.append(segment)
            if symbol == BOUNDARY:
                return
        segment.add(symbol, word)


def cut(text: str) -> tuple[list[str], str]:
    """The pieces of a growing text that are over, and the beginning of the next one (of a whole
    text: the last one, perhaps "").
    """
    over, at = [], 0
    while True:
        while text[at : at + 1].isspace():
            at += 1
        if not (length := _piece(text[at : at + PIECE + 2])):
            return over, text[at:]
        over.append(text[at : at + length])
        at += length


def halves(piece: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """A piece that fits, or what it has to be cut into; nothing if it is empty."""
    piece = piece.strip()
    if fits(piece) or len(piece) <= 1:
        yield from [piece] * bool(piece)
        return
    middle = max(piece.find(" ", len(piece) // 2), len(piece) // 2)
    yield from halves(piece[:middle], fits)
    yield from halves(piece[middle:], fits)


def _piece(window: str) -> int:
    """Length of the first piece of a text of which the first `PIECE` + 2 characters are given; 0:
    it is not known yet, or it ends with the text.
    """
    end = _END.search(window)
    clause = _CLAUSE_END.search(window, CLAUSE)
    ends = [found.end() for found in (end, clause) if found and found.end() <= PIECE]
    if ends or len(window) < PIECE + 2:
        return min(ends, default=0)
    for space in _SPACES:
        if ends := [
            found.end() for found in space.finditer(window, PIECE // 2) if found.end() <= PIECE
        ]:
            return ends[-1]
    return PIECE


def _complete(text: str) -> str:
    """The words of a growing text that have a space behind them."""
    return text.rstrip() if text[-1:].isspace() else "".join(text.rsplit(maxsplit=1)[:-1])


def _open(complete: str) -> bool:
    """Whether the words so far may become others: a number goes on, or a tag has no end yet."""
    return bool(_TAG_BEGINS.search(complete)) or any(
        c.isdigit() for word in complete.split()[-2:] for c in word
    )


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
