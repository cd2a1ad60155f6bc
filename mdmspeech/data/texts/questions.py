"""All questions and answers of the corpus, each with its family, phrasing and split; and the hook for answers from elsewhere."""

import json
import os
import pathlib
from collections.abc import Sequence

from mdmspeech.data.texts import calendar, chat, elements, geography, numbers, units, words
from mdmspeech.data.texts.family import Family, Question
from mdmspeech.data.texts.open_sentences import words_of
from mdmspeech.errors import UserError

TEMPLATED = (geography, elements, numbers, calendar, units, words)
EXTRA_FAMILY = "extra"


def families() -> list[Family]:
    """Every templated family, one entry a set of templates."""
    return [family for module in TEMPLATED for family in module.families()] + [chat.repeat_family()]


def questions(extra: str | os.PathLike | None = None) -> list[Question]:
    """Every question once (by its words), test questions first so that no training question can equal one.

    extra: a JSONL file of further pairs, for example the Thinker's own answers to typed questions: {"text", "answer"} and optionally "family" and "split".
    """
    found = [q for family in families() for q in family.questions()] + chat.small_talk()
    found += _read_extra(pathlib.Path(extra)) if extra else []
    unique: dict[tuple[str, ...], Question] = {}
    for question in sorted(found, key=lambda q: ("test", "val", "train").index(q.split)):
        unique.setdefault(words_of(question.text), question)
    return list(unique.values())


def sources() -> dict[str, str]:
    """Family -> where its facts come from, with the licence."""
    return {f.name: f.source for f in families()} | {"small talk": "chatterbot-corpus (BSD)"}


def leaks(found: Sequence[Question], unseen_families: Sequence[str] = ("arithmetic", "comparison", "repeat")) -> list[str]:
    """What the test questions share with training and must not: wordings, phrasings, and (in `unseen_families`) facts. Empty when the split is clean."""
    train = [q for q in found if q.split != "test"]
    test = [q for q in found if q.split == "test"]
    wordings, phrasings = {words_of(q.text) for q in train}, {q.phrasing for q in train}
    facts = {(q.family, q.fact) for q in train}
    problems = [f"wording {q.text!r}" for q in test if words_of(q.text) in wordings]
    problems += [f"phrasing {q.phrasing}" for q in test if q.phrasing in phrasings]
    return problems + [f"fact {q.fact!r}" for q in test if q.family in unseen_families and (q.family, q.fact) in facts]


def _read_extra(path: pathlib.Path) -> list[Question]:
    found = []
    for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            pair = json.loads(line)
            family = pair.get("family", EXTRA_FAMILY)
            found.append(Question(pair["text"], pair["answer"], family, f"{family}/{n}", pair["text"], pair.get("split", "train")))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {n}: not a JSON object with text and answer ({type(error).__name__}: {error})") from error
    return found
