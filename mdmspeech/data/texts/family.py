"""A family of questions: facts, several ways to ask for them, and which of those are for testing
only.

A test question is always worded with a phrasing that training never sees. Where `unseen` facts are
given (arithmetic, sentences to repeat), the facts themselves are new as well.
"""

import dataclasses
import random
import re
import string
import zlib
from collections.abc import Iterator, Sequence

from mdmspeech.text.normalise import sentence

Fact = dict[str, str]
VALIDATION_SHARE = 0.02


@dataclasses.dataclass(frozen=True)
class Question:
    """One question and its answer, both as spoken. phrasing: `family/kind/number`; fact: kind and
    fields of what it asks for, the same for all phrasings of it.
    """

    text: str
    answer: str
    family: str
    phrasing: str
    fact: str
    split: str


@dataclasses.dataclass(frozen=True)
class Family:
    """Templates are filled from a fact's fields by `str.format`: "What is the capital of
    {country}?".

    name: the family; kind: tells apart several sets of templates of one family. asks / test_asks:
      phrasings for training / for testing.
    answers: wordings; the k-th phrasing is always answered with wording k modulo their number, so
      that a question has one answer.
    facts: what can be asked. unseen: facts for testing only (empty: test questions ask for training
      facts in new words).
    per_fact: training questions a fact; test_count: test questions. source: where the facts come
      from, with the licence.
    """

    name: str
    kind: str
    source: str
    asks: Sequence[str]
    test_asks: Sequence[str]
    answers: Sequence[str]
    facts: Sequence[Fact]
    unseen: Sequence[Fact] = ()
    per_fact: int = 2
    test_count: int = 14

    def questions(self, seed: int = 0) -> Iterator[Question]:
        """All its questions, the same for the same seed."""
        rng = random.Random(zlib.crc32(f"{self.name}/{self.kind}/{seed}".encode()))
        for fact in self.facts:
            for k in rng.sample(range(len(self.asks)), min(self.per_fact, len(self.asks))):
                yield self.ask(fact, k, "val" if rng.random() < VALIDATION_SHARE else "train")
        pool = list(self.unseen or self.facts)
        rng.shuffle(pool)
        for n, fact in enumerate(pool[: self.test_count]):
            yield self.ask(fact, n % len(self.test_asks), "test")

    def test_facts(self, seed: int = 0) -> list[Fact]:
        """What its test questions ask for."""
        wanted = {q.fact for q in self.questions(seed) if q.split == "test"}
        return [f for f in self.unseen or self.facts if f"{self.kind}|{fact_key(f)}" in wanted]

    def ask(self, fact: Fact, k: int, split: str) -> Question:
        """The question for a fact in phrasing k of `test_asks` for split "test", else of `asks`."""
        template = (self.test_asks if split == "test" else self.asks)[k]
        answer = self.answers[k % len(self.answers)]
        phrasing = f"{self.name}/{self.kind}/{'test' if split == 'test' else 'train'}{k}"
        text, said = sentence(template.format(**fact)), sentence(answer.format(**fact))
        return Question(text, said, self.name, phrasing, f"{self.kind}|{fact_key(fact)}", split)


def fact_key(fact: Fact) -> str:
    """A stable name of a fact: its fields' values."""
    return "|".join(str(value) for value in fact.values())


def speakable(text: str) -> bool:
    """True for plain English letters and the usual punctuation: nothing a reader must guess at."""
    return bool(text) and not set(text) - set(string.ascii_letters + " -'.,")


def with_article(noun: str) -> str:
    """ "a" or "an" before a noun, by its spelling and the common exceptions."""
    silent_h = noun.startswith(("hour", "honest", "heir", "honor"))
    you_sound = re.match(r"(uni|use|usu|eu|one|ur[aei]|ute)", noun)
    return ("an " if silent_h or (noun[0].lower() in "aeiou" and not you_sound) else "a ") + noun


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b, and c"."""
    if len(words) < 3:
        return " and ".join(words)
    return ", ".join(words[:-1]) + ", and " + words[-1]


def spelled(word: str) -> str:
    """The letters as the answer voice reads them one by one: "cat" -> "C, A, T"."""
    return ", ".join(word.upper())
