"""Written conversations for supervised fine-tuning of the Thinker: the questions of the corpus by
family, and JSONL files of chat messages.

A record is {id, family, turns: [(user, assistant), ...]}.
"""

import dataclasses
import os
import pathlib
import random
import zlib
from collections.abc import Container, Iterator, Sequence
from typing import Any

from mdmspeech.data.storage.json_lines import BadRecord, read_objects
from mdmspeech.data.texts.family import Family, Question, fact_key
from mdmspeech.data.texts.rewordings import rewordings
from mdmspeech.errors import UserError

Chat = dict[str, Any]
QUESTIONS = "questions"  # the name of the corpus' own among the parts of a data set
VALIDATION = 50  # one conversation of so many of a file is for validation
_SHOWN = 3  # of the lines that cannot be used
_HELD_OUT = 20  # one entity of so many is held out
# Families whose facts have to be known; of the others an answer can be worked out.
_KNOWN = frozenset({
    "capitals", "cities", "continents", "currencies", "languages", "neighbours", "people",
    "elements", "opposites", "word forms",
})  # fmt: skip


def held_out_questions(families: Sequence[Family]) -> list[Question]:
    """Questions about entities that fine-tuning never sees (`is_held_out`), worded as test questions
    are, in an order that depends on each alone: they tell what was known before from what was
    learnt.
    """
    found = []
    for family, facts in _held_out(families):
        for n, fact in enumerate(sorted(facts, key=fact_key)):
            found.append(family.ask(fact, n % len(family.test_asks), "test"))
    return sorted(found, key=lambda q: zlib.crc32(q.text.encode()))


def validation_questions(
    questions: Sequence[Question], families: Sequence[Family], count: int
) -> list[Question]:
    """Facts of the training in words of validation (`rewordings`), `count` of each family in an
    order that depends on each alone: they tell before a test whether a fact is known however it is
    asked for.
    """
    told = _told(questions, families)
    by_family: dict[str, list[Question]] = {}
    for family in families:
        by_family.setdefault(family.name, []).extend(_reworded(family, told, "val", 1))
    by_text = lambda question: zlib.crc32(question.text.encode())
    found = [one for asked in by_family.values() for one in sorted(asked, key=by_text)[:count]]
    return sorted(found, key=by_text)


def question_chats(
    questions: Sequence[Question], families: Sequence[Family], split: str, reworded: int = 0
) -> dict[str, list[Chat]]:
    """Family -> its conversations of one turn, of split "train" or "val", without the questions
    about held-out entities.

    reworded: for "train", each fact so many times more, in other words (`rewordings`); for "val"
      once, if it is not 0, in words of its own.
    """
    hidden = _hidden_facts(families)
    chats: dict[str, list[Chat]] = {}
    for question in questions:
        if question.split == split and (question.family, question.fact) not in hidden:
            chats.setdefault(question.family, []).append(_as_chat(question))
    if reworded:
        told, count = _told(questions, families), reworded if split == "train" else 1
        for family in families:
            more = [_as_chat(asked) for asked in _reworded(family, told, split, count)]
            chats.setdefault(family.name, []).extend(more)
    return chats


def _as_chat(question: Question) -> Chat:
    return {
        "id": question.phrasing,
        "family": question.family,
        "turns": [(question.text, question.answer)],
    }


def _told(questions: Sequence[Question], families: Sequence[Family]) -> set[tuple[str, str]]:
    """(family, fact) of all that training asks for."""
    asked = {(q.family, q.fact) for q in questions if q.split == "train"}
    return asked - _hidden_facts(families)


def _hidden_facts(families: Sequence[Family]) -> set[tuple[str, str]]:
    return {
        (family.name, f"{family.kind}|{fact_key(fact)}")
        for family, facts in _held_out(families)
        for fact in facts
    }


def _reworded(
    family: Family, told: Container[tuple[str, str]], split: str, count: int
) -> Iterator[Question]:
    """Of each fact that training asks for: so many questions."""
    ways = rewordings(split).get((family.name, family.kind), ())
    other = dataclasses.replace(family, asks=ways)
    for fact in family.facts:
        if (family.name, f"{family.kind}|{fact_key(fact)}") not in told:
            continue
        rng = random.Random(zlib.crc32(f"{family.name}/{family.kind}/{fact_key(fact)}".encode()))
        for k in rng.sample(range(len(ways)), min(count, len(ways))):
            asked = other.ask(fact, k, "train")
            phrasing = f"{asked.phrasing} reworded {split}"
            yield dataclasses.replace(asked, phrasing=phrasing, split=split)


def is_held_out(entity: str) -> bool:
    """Whether a country, element or word belongs to the twentieth that is held out where no test
    question asks for it.
    """
    return zlib.crc32(f"held out/{entity}".encode()) % _HELD_OUT == 0


def read_chats(path: str | os.PathLike, split: str) -> list[Chat]:
    """The conversations of a JSONL file with {"messages": [{"role", "content"}, ...]} a line, "user"
    and "assistant" in turn; of its validation share for "val", of the others for "train".

    Optional: "family", and "split" ("train" or "val") in place of ours, which follows from the first
    message. UserError: a line that is none, with its number.
    """
    found, wrong = [], []
    for where, given in read_objects(pathlib.Path(path)):
        try:
            chat, chosen = _chat(given, where)
        except BadRecord as problem:
            wrong.append(f"{where}: {problem}")
            continue
        if chosen == split:
            found.append(chat)
    if wrong:
        told = "; ".join(wrong[:_SHOWN])
        raise UserError(f"{len(wrong)} lines of {path} are no conversations, first: {told}")
    if not found:
        raise UserError(f"{path} has no conversation for {split!r}")
    return found


def _chat(given: dict[str, Any] | BadRecord, where: str) -> tuple[Chat, str]:
    if isinstance(given, BadRecord):
        raise given
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages or len(messages) % 2:
        raise BadRecord('"messages" is no list of user and assistant in turn')
    for message, role in zip(messages, ("user", "assistant") * (len(messages) // 2), strict=True):
        if (
            not isinstance(message, dict)
            or message.get("role") != role
            or not isinstance(message.get("content"), str)
            or not message["content"].strip()
        ):
            raise BadRecord(f'a message is no {{"role": "{role}", "content": text}}')
    said = [message["content"].strip() for message in messages]
    by_text = "val" if zlib.crc32(said[0].lower().encode()) % VALIDATION == 0 else "train"
    split = given.get("split", by_text)
    if split not in ("train", "val"):
        raise BadRecord(f"split is {str(split)[:20]!r}; use train or val, or leave it out")
    turns = list(zip(said[::2], said[1::2], strict=True))
    return {"id": where, "family": str(given.get("family", "")), "turns": turns}, split


def _held_out(families: Sequence[Family]) -> list[tuple[Family, list[dict[str, str]]]]:
    """Each family with its facts that are held out."""
    asked = _asked(families)
    return [
        (family, [fact for fact in family.facts if _hidden(family.name, fact, asked)])
        for family in families
    ]


def _asked(families: Sequence[Family]) -> set[str]:
    """Entities that test questions ask for, whatever the family."""
    return {
        value
        for family in families
        if family.name in _KNOWN
        for fact in family.test_facts()
        for value in fact.values()
    }


def _hidden(name: str, fact: dict[str, str], asked: set[str]) -> bool:
    entity = next(iter(fact.values()))
    return name in _KNOWN and entity not in asked and is_held_out(entity)
