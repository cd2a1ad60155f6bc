"""What a Thinker knows, asked in writing: facts that fine-tuning never saw, general and everyday
questions, and questions that nobody here can answer.

The test questions of `hearing` ask for facts of the training in other words. These sets tell learnt
facts from what was known before, show whether anything was forgotten, and whether it says so when
it cannot know. On validation data there are three: facts of the training in other words than those
of training and test, general questions of its own, and sentences to repeat.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from mdmspeech.evaluation.judging import is_right
from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.scoring import wilson

if TYPE_CHECKING:
    from mdmspeech.data.texts.family import Question
    from mdmspeech.inference.assistant import Assistant

# question, answers any of which is right, family
Asked = tuple[str, tuple[str, ...], str]
GENERAL, HELD_OUT = "general", "held-out facts"
# General questions were written before any training. Of the training's everyday questions the first
# 449 are by somebody who knew them and asks for others in the same form; the rest by somebody who
# knew none, and what asked for a fact of theirs was taken out. These two are by a writer who had seen
# neither; of its everyday facts `experiments/everyday.tsv` happens to have many.
EVERYDAY, UNANSWERABLE = "everyday", "unanswerable"
REWORDED = "facts in other words"  # of the training, in words that validation alone asks in
REPEATED = "to repeat"  # sentences of validation, asked for in words that validation alone has
_REPEATED = 60
# as a recogniser writes it, so that what is to be repeated is a sentence of its own
_REPEAT_AS = (
    "Let me hear this from you. {}", "Pronounce this for me. {}", "It is your turn to say: {}",
    "With your voice, please. {}", "Say it too, {}",
)  # fmt: skip
_OF_A_FAMILY = 12  # as many as the test has
_UNKNOWN = re.compile(r"\b(do not|don't|don’t|cannot|can't) know\b|\bnot sure\b", re.IGNORECASE)


def evaluate_knowledge(
    assistant: "Assistant", asked: Mapping[str, Sequence[Asked]], count: int | None = None
) -> dict[str, Any]:
    """Right answers to typed questions; of unanswerable ones, those that say they do not know.

    Args:
      asked: of `question_sets`.
      count: questions of a set (None: all).

    Returns:
      sets: name -> {questions, right, right_95 (Wilson's interval of the share), unknown (answers
        that say they do not know), words (an answer, mean)}; items: every question with its answer.
    """
    found: dict[str, Any] = {"sets": {}, "items": []}
    for name, questions in asked.items():
        items = _ask(assistant, name, questions[:count])
        found["items"] += items
        found["sets"][name] = _count(items)
    return {"questions": len(found["items"]), **found}


def digest(asked: Mapping[str, Sequence[Asked]]) -> str:
    """Of questions and right answers: other ones are another test."""
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def question_sets(split: str = "test") -> dict[str, list[Asked]]:
    """Set -> its questions. "val" has the sets to choose by: `REWORDED`, general questions that no
    test asks, and `REPEATED`.
    """
    from mdmspeech.data.texts import chats, questions

    def of_corpus(found: Sequence["Question"]) -> list[Asked]:
        return [(q.text, (q.answer,), q.family) for q in found]

    families = questions.families()
    if split == "val":
        asked = chats.validation_questions(questions.questions(), families, _OF_A_FAMILY)
        general = read_questions(GENERAL, split)
        return {REWORDED: of_corpus(asked), GENERAL: general, REPEATED: _to_repeat()}
    written = {name: read_questions(name) for name in (GENERAL, EVERYDAY, UNANSWERABLE)}
    return written | {HELD_OUT: of_corpus(chats.held_out_questions(families))}


def _to_repeat() -> list[Asked]:
    from mdmspeech.data.texts.chat import short_sentences
    from mdmspeech.text.normalise import sentence

    said = [sentence(text) for text in short_sentences("val")][:_REPEATED]
    ways = len(_REPEAT_AS)
    return [(_REPEAT_AS[n % ways].format(one), (one,), "repeat") for n, one in enumerate(said)]


def read_questions(name: str, split: str = "test") -> list[Asked]:
    """Those of NAME.tsv, for `GENERAL`, `EVERYDAY` and `UNANSWERABLE`; of validation, which is of
    `GENERAL` alone, NAME_val.tsv.
    """
    file = f"{name}.tsv" if split == "test" else f"{name}_{split}.tsv"
    text = (resources.files("mdmspeech") / "evaluation" / file).read_text("utf-8")
    rows = [line.partition("\t") for line in text.splitlines()]
    return [(asked, tuple(right.split("|")) if right else (), name) for asked, _, right in rows]


def _ask(assistant: "Assistant", name: str, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    answers = in_batches(assistant.answer_many, [text for text, _, _ in asked], name)
    return [
        {
            "set": name,
            "family": family,
            "question": text,
            "expected": list(wanted),
            "typed": answer,
            "right": _is_right(answer, wanted, family, text),
        }
        for (text, wanted, family), answer in zip(asked, answers, strict=True)
    ]


def _is_right(answer: str, wanted: Sequence[str], family: str, asked: str) -> bool:
    if family == UNANSWERABLE:
        return _says_unknown(answer)
    return any(is_right(answer, one, family, asked) for one in wanted)


def _says_unknown(answer: str) -> bool:
    return bool(_UNKNOWN.search(answer))


def _count(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    right = sum(item["right"] for item in items)
    return {
        "questions": len(items),
        "right": right,
        "right_95": [round(bound, 3) for bound in wilson(right, len(items))],
        "unknown": sum(_says_unknown(item["typed"]) for item in items),
        "words": round(sum(len(item["typed"].split()) for item in items) / len(items), 1),
    }
