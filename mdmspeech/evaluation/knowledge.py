"""What a Thinker knows, asked in writing: facts that fine-tuning never saw, and general questions.

The test questions of `hearing` ask for facts of the training in other words. These two sets tell
learnt facts from what was known before, and show whether anything was forgotten.
"""

import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from mdmspeech.evaluation.judging import is_right
from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.scoring import wilson

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

# question, answers any of which is right, family
Asked = tuple[str, tuple[str, ...], str]
GENERAL, HELD_OUT = "general", "held-out facts"
_UNKNOWN = re.compile(r"\b(do not|don't|don’t|cannot|can't) know\b|\bnot sure\b", re.IGNORECASE)


def evaluate_knowledge(assistant: "Assistant", count: int | None = None) -> dict[str, Any]:
    """Right answers to typed questions.

    Args:
      count: questions of a set (None: all).

    Returns:
      sets: name -> {questions, right, right_95 (Wilson's interval of the share), unknown (answers
        that say they do not know), words (an answer, mean)}; items: every question with its answer.
    """
    from mdmspeech.data.texts import chats, questions

    held_out: list[Asked] = [
        (q.text, (q.answer,), q.family) for q in chats.held_out_questions(questions.families())
    ]
    sets: dict[str, list[Asked]] = {GENERAL: general_questions(), HELD_OUT: held_out}
    found: dict[str, Any] = {"sets": {}, "items": []}
    for name, asked in sets.items():
        items = _ask(assistant, name, asked[:count])
        found["items"] += items
        found["sets"][name] = _count(items)
    return {"questions": len(found["items"]), **found}


def general_questions() -> list[Asked]:
    """general.tsv, written before anything was fine-tuned."""
    text = (resources.files("mdmspeech") / "evaluation" / "general.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines()]
    return [(asked, tuple(right.split("|")), GENERAL) for asked, right in rows]


def _ask(assistant: "Assistant", name: str, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    answers = in_batches(assistant.answer_many, [text for text, _, _ in asked], name)
    return [
        {
            "set": name,
            "family": family,
            "question": text,
            "expected": list(wanted),
            "typed": answer,
            "right": any(is_right(answer, one, family, text) for one in wanted),
        }
        for (text, wanted, family), answer in zip(asked, answers, strict=True)
    ]


def _count(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    right = sum(item["right"] for item in items)
    return {
        "questions": len(items),
        "right": right,
        "right_95": [round(bound, 3) for bound in wilson(right, len(items))],
        "unknown": sum(bool(_UNKNOWN.search(item["typed"])) for item in items),
        "words": round(sum(len(item["typed"].split()) for item in items) / len(items), 1),
    }
