"""Text -> phoneme symbols, word by word, with the table-based English G2P of the `hibari-tts`
library (misaki's alphabet: one character, one symbol).

The Talker's paced anchors (docs/method.md, "Paced anchors") read these symbols instead of BPE
pieces: a word seen never before is still spelled out in sounds.

Ids are dense and stable: 0 is the boundary (start, end, and between two sentences); 1, 2, ... are
the characters of hibari's `vocab.json` in the order of that file's own (sparse) ids.
`Pronouncer.symbols[id]` is the character, `Pronouncer.native_ids[id]` is hibari's id.
"""

import dataclasses
import functools
import importlib
import itertools
import json
import pathlib
from typing import NamedTuple

import numpy as np

from mdmspeech.errors import UserError

BOUNDARY = 0
# symbols; the acoustic model was not trained on longer sentences, so they are cut after a clause
MAX_SENTENCE = 400
CLAUSE_ENDS = tuple(",;:—")
_VOWELS = frozenset("aeiouyAEIOUY")


class Spoken(NamedTuple):
    """How a text is said. M symbols, W words.

    symbols: int32 [M], first and last are `BOUNDARY`; one more stands between two sentences.
    words: the W words of the text, punctuation attached.
    word_of_symbol: int32 [M], the word each symbol belongs to; the space and punctuation after a
      word are its own; -1 at boundaries.
    """

    symbols: np.ndarray
    words: list[str]
    word_of_symbol: np.ndarray


@dataclasses.dataclass
class _Word:
    text: str
    phonemes: str = ""


class _Speller:
    """Callable unknown word -> phonemes: hibari's network, loaded at the first unknown word. It
    reads `maxlen` letters, so longer words come in pieces.
    """

    @functools.cached_property
    def _network(self):
        return import_hibari("hibari.g2p.oov").OOV()

    def __call__(self, word: str) -> str | None:
        read, longest = self._network, self._network.maxlen
        said = ""
        while len(word) > longest:
            syllables = [
                i
                for i in range(longest // 2, longest + 1)
                if word[i - 1] in _VOWELS and word[i] not in _VOWELS
            ]
            cut = syllables[-1] if syllables else longest
            said, word = said + (read(word[:cut]) or ""), word[cut:]
        return said + (read(word) or "") or None


class Pronouncer:
    """Callable text -> `Spoken`. Construction loads the lexicon (about a second); a call takes well
    under a millisecond a word.
    """

    def __init__(self):
        self._split_sentences = import_hibari("hibari").Hibari.split_sentences
        self._g2p = import_hibari("hibari.g2p").G2P(oov=_Speller())
        native = _native_vocabulary()
        self.symbols: tuple[str, ...] = ("", *native)
        self.native_ids = np.array([0, *native.values()], np.int64)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols) if i}

    @property
    def vocabulary_size(self) -> int:
        """Number of symbols, the boundary included."""
        return len(self.symbols)

    def __call__(self, text: str) -> Spoken:
        """Pronounces `text`, which is words already (`normalise.normalise`): no word is replaced
        here. Nothing to say gives two boundaries and no words.
        """
        symbols, words, owner = [BOUNDARY], [], [-1]
        for sentence in self._sentences(text):
            for word in sentence:
                ids = [self._ids[c] for c in word.phonemes if c in self._ids]
                symbols += ids
                owner += [len(words)] * len(ids)
                words.append(word.text)
            symbols.append(BOUNDARY)
            owner.append(-1)
        if len(symbols) == 1:
            symbols, owner = [BOUNDARY, BOUNDARY], [-1, -1]
        return Spoken(np.array(symbols, np.int32), words, np.array(owner, np.int32))

    def phonemes(self, spoken: Spoken) -> str:
        """The symbols as a readable string, boundaries as `|`."""
        return "".join(self.symbols[i] or "|" for i in spoken.symbols)

    def _sentences(self, text: str) -> list[list[_Word]]:
        sentences = []
        for sentence in self._split_sentences(text):
            sentences += _cut_long(self._words(sentence))
        return [words for words in map(_strip, sentences) if any(w.phonemes for w in words)]

    def _words(self, sentence: str) -> list[_Word]:
        """Whitespace-separated words; each keeps the phonemes of its tokens and the space that
        follows it.
        """
        tokens = self._g2p.phonemize_tokens(self._g2p.tokenize(sentence))
        words, inside = [], False
        for token in tokens:
            if not inside:
                words.append(_Word(""))
            words[-1].text += token.text
            words[-1].phonemes += (token.phonemes or "") + (" " if token.whitespace else "")
            inside = not token.whitespace
        return words


@functools.lru_cache(maxsize=1)
def pronouncer() -> Pronouncer:
    """The shared instance of this process."""
    return Pronouncer()


def split_at_boundaries(spoken: Spoken) -> list[np.ndarray]:
    """The symbols of each sentence, without boundaries: a list of int32 arrays."""
    at = np.flatnonzero(spoken.symbols == BOUNDARY)
    return [spoken.symbols[a + 1 : b] for a, b in itertools.pairwise(at) if b > a + 1]


def import_hibari(module: str):
    """A module of the `hibari-tts` package; a `UserError` that names the cure when it is not
    installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"the pronunciation tables are missing ({error}): pip install hibari-tts"
        ) from error


def _native_vocabulary() -> dict[str, int]:
    """hibari's character -> id table, ordered by id."""
    path = pathlib.Path(import_hibari("hibari.tts").ASSETS) / "vocab.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    return dict(sorted(table.items(), key=lambda item: item[1]))


def _strip(words: list[_Word]) -> list[_Word]:
    """No space at either end of a sentence (the acoustic model never saw one there)."""
    for word in words:
        word.phonemes = word.phonemes.lstrip()
        if word.phonemes:
            break
    for word in reversed(words):
        word.phonemes = word.phonemes.rstrip()
        if word.phonemes:
            break
    return words


def _cut_long(words: list[_Word]) -> list[list[_Word]]:
    """One sentence, or several if it is longer than the acoustic model takes: cut after a clause,
    or after any word when no clause ends in time.
    """
    if sum(len(w.phonemes) for w in words) <= MAX_SENTENCE:
        return [words]
    parts, current, length, clause_end = [], [], 0, 0
    for word in words:
        if current and length + len(word.phonemes) > MAX_SENTENCE:
            cut = clause_end or len(current)
            parts.append(current[:cut])
            current, clause_end = current[cut:], 0
            length = sum(len(w.phonemes) for w in current)
        current.append(word)
        length += len(word.phonemes)
        if word.phonemes.rstrip()[-1:] in CLAUSE_ENDS:
            clause_end = len(current)
    return [*parts, current]
