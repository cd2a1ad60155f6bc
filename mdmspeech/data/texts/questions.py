"""All questions and answers of the corpus, each with its family, phrasing and split; and the hook
for answers from elsewhere.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from mdmspeech.data.storage.json_lines import BadRecord, read_objects
from mdmspeech.data.storage.splits import words_of
from mdmspeech.data.texts import calendar, chat, geography, numbers, science, words
from mdmspeech.data.texts.family import Family, Question
from mdmspeech.errors import UserError

TEMPLATED = (
    geography.families,
    science.elements,
    numbers.families,
    calendar.families,
    science.units,
    words.families,
)
EXTRA_FAMILY = "extra"
_MOST_LETTERS = 1000  # of a question or an answer: both are spoken in 30 s
_SHOWN = 5  # of the lines that were left out


def families() -> list[Family]:
    """Every templated family, one entry a set of templates."""
    return [family for made in TEMPLATED for family in made()] + [chat.repeat_family()]


def questions(extra: str | os.PathLike | None = None) -> list[Question]:
    """Every question once (by its words), test questions first so that no training question can
    equal one.

    extra: a JSONL file of further pairs, for example the Thinker's own answers to typed questions:
      {"text", "answer"} and optionally "family" and "split".
    """
    more = _read_extra(pathlib.Path(extra)) if extra else []  # first: it may be refused
    found = [q for family in families() for q in family.questions()] + chat.small_talk() + more
    unique: dict[tuple[str, ...], Question] = {}
    for question in sorted(found, key=lambda q: ("test", "val", "train").index(q.split)):
        unique.setdefault(words_of(question.text), question)
    return list(unique.values())


def sources() -> dict[str, str]:
    """Family -> where its facts come from, with the licence."""
    return {f.name: f.source for f in families()} | {"small talk": "chatterbot-corpus (BSD)"}


def leaks(
    found: Sequence[Question],
    unseen_families: Sequence[str] = ("arithmetic", "comparison", "repeat"),
) -> list[str]:
    """What the test questions share with training and must not: wordings, phrasings, and (in
    `unseen_families`) facts. Empty when the split is clean.
    """
    train = [q for q in found if q.split != "test"]
    test = [q for q in found if q.split == "test"]
    wordings, phrasings = {words_of(q.text) for q in train}, {q.phrasing for q in train}
    facts = {(q.family, q.fact) for q in train}
    problems = [f"wording {q.text!r}" for q in test if words_of(q.text) in wordings]
    problems += [f"phrasing {q.phrasing}" for q in test if q.phrasing in phrasings]
    return problems + [
        f"fact {q.fact!r}"
        for q in test
        if q.family in unseen_families and (q.family, q.fact) in facts
    ]


def _read_extra(path: pathlib.Path) -> list[Question]:
    """The pairs of a file; lines that are none are left out and told of on stderr. UserError when
    none is left.
    """
    found: list[Question] = []
    left_out: list[str] = []
    for where, pair in read_objects(path):
        try:
            found.append(_pair(pair, where.rpartition(" ")[2]))
        except BadRecord as problem:
            left_out.append(f"{where}: {problem}")
    if not found:
        raise UserError(f"{path} has no question with an answer, first: {left_out[0]}")
    if left_out:
        told = "\n".join(f"  {line}" for line in left_out[:_SHOWN])
        print(
            f"{len(left_out)} lines of {path} were left out:\n{told}"
            + ("\n  ..." if len(left_out) > _SHOWN else ""),
            file=sys.stderr,
        )
    return found


def _pair(pair: dict[str, Any] | BadRecord, number: str) -> Question:
    if isinstance(pair, BadRecord):
        raise pair
    family, split = pair.get("family", EXTRA_FAMILY), pair.get("split", "train")
    for name in ("text", "answer"):
        if not isinstance(pair.get(name), str) or not any(
            character.isalnum() for character in pair[name]
        ):
            raise BadRecord(f"{name} missing or without words")
        if len(pair[name]) > _MOST_LETTERS:
            raise BadRecord(
                f"{name} has {len(pair[name]):,} characters; at most {_MOST_LETTERS:,} are spoken"
            )
    if not isinstance(family, str) or not family.isprintable() or not family:
        raise BadRecord("family is no word; leave it out")
    if split not in ("train", "val", "test"):
        raise BadRecord(f"split is {str(split)[:20]!r}; use train, val or test, or leave it out")
    return Question(pair["text"], pair["answer"], family, f"{family}/{number}", pair["text"], split)
