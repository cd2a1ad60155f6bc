"""Sentences with rare words and names, written for this project: some to learn to hear from, others
to test with. No rare word of the test is in the training ones, nor is another form of it.

`rare_words.tsv`: a line a sentence: train, val or test, the sentence, its rare words with ; between.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable
from importlib import resources

from mdmspeech.errors import UserError

FILE = "rare_words.tsv"
_WORD = re.compile(r"[^\W\d_]+")
_STEM, _SHORT = 6, 3  # letters: so many alike are forms of one word; words that are none
# beginnings of common words that stand in rare names
_COMMON = frozenset(
    {"united", "republ", "saint", "south", "north", "mount", "river", "great", "queen"}
)


@dataclasses.dataclass(frozen=True)
class RareSentence:
    """A sentence as it is written, and its rare words as they stand in it. split: train, val or test."""

    text: str
    words: tuple[str, ...]
    split: str


@functools.cache
def rare_sentences() -> tuple[RareSentence, ...]:
    """All of them, in the order of the file. UserError: a line that is not as it should be."""
    table = (resources.files("mdmspeech.data.texts") / FILE).read_text(encoding="utf-8")
    found = []
    for number, line in enumerate(table.splitlines(), 1):
        split, _, rest = line.partition("\t")
        text, _, words = rest.partition("\t")
        rare = tuple(words.split(";"))
        if split not in ("train", "val", "test") or not all(word and word in text for word in rare):
            raise UserError(f"{FILE}, line {number}: not a split, a sentence and words of it")
        found.append(RareSentence(text, rare, split))
    return tuple(found)


def _stems(texts: Iterable[str]) -> set[str]:
    """The first six letters, small, of each word of the texts that has more than three."""
    words = (word for text in texts for word in _WORD.findall(text.lower()))
    return {word[:_STEM] for word in words if len(word) > _SHORT}


def has_tested_word(text: str) -> bool:
    """Whether a word of the text is, or may be another form of, a rare word of the test."""
    return not _stems([text]).isdisjoint(_tested())


@functools.cache
def _tested() -> frozenset[str]:
    tested = [s for s in rare_sentences() if s.split == "test"]
    return frozenset(_stems(word for s in tested for word in s.words) - _COMMON)
