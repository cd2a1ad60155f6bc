"""How well a spoken question is understood, measured by the answers: the same questions are typed and spoken (issue 2, acceptance 2).

Hearing is judged against typing, not against the truth alone: what the text model does not know when it reads, it need not know when it listens.
"""

import collections
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdmspeech.errors import UserError
from mdmspeech.evaluation.judging import is_right
from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.scoring import score
from mdmspeech.evaluation.testset import HUMAN_REPEAT, human_clips, question_set, wave_of

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

REPEAT = "repeat"


def evaluate_hearing(assistant: "Assistant", root: str | Path | None = None, count: int | None = None) -> dict[str, Any]:
    """Answers to typed and to spoken test questions, by family; "repeat after me" on test voices and on real people; what the ear writes down.

    Args:
      count: how many questions, and at most how many human clips of each kind (None: all).

    Returns:
      families: {family: questions, typed_right, spoken_right, ratio}; all: the same over all of them (`facts`: without repeating and small talk).
      repeat, human_repeat: word errors of the answer against what was to be repeated, spoken and (`typed`) typed.
      transcript, human_transcript: word errors of what the ear wrote down; absent for an adaptor that makes vectors.
      items: every question with its answers, to be read.
    """
    questions = question_set(root, count)
    humans = human_clips(root, HUMAN_REPEAT, count)
    items = _ask(assistant, questions + humans)
    ours, theirs = items[: len(questions)], items[len(questions) :]
    result: dict[str, Any] = {"questions": len(ours), **right_by_family(ours)}
    for name, rows in (("repeat", [i for i in ours if i["family"] == REPEAT]), ("human_repeat", theirs)):
        if rows:
            result[name] = _repeated(rows)
    clips = human_clips(root, "human", count)
    result |= _transcripts(assistant, questions, items, clips)
    return {**result, "items": items}


def right_by_family(items: Sequence[dict]) -> dict[str, Any]:
    """Counts of right answers. items: dicts with family, typed_right, spoken_right."""
    groups: dict[str, list[dict]] = collections.defaultdict(list)
    for item in items:
        groups[item["family"]].append(item)
    facts = [item for item in items if item["family"] not in (REPEAT, "small talk")]
    return {
        "all": _count(items),
        "facts": _count(facts),
        "families": {family: _count(groups[family]) for family in sorted(groups)},
    }


def _ask(assistant: "Assistant", records: Sequence[dict]) -> list[dict]:
    waves = [(wave_of(record), record["rate"]) for record in records]
    typed = in_batches(assistant.answer_many, [record["text"] for record in records], "typed questions")
    spoken = in_batches(partial(assistant.hear_many, unheard=""), waves, "spoken questions")
    items = []
    for record, by_text, by_ear in zip(records, typed, spoken, strict=True):
        question = {"id": record["id"], "family": record["family"], "voice": record["voice"], "question": record["text"]}
        answers = {"expected": record["answer"], "typed": by_text, "spoken": by_ear}
        judged = {
            f"{way}_right": is_right(said, record["answer"], record["family"], record["text"])
            for way, said in (("typed", by_text), ("spoken", by_ear))
        }
        items.append({**question, **answers, **judged})
    return items


def _count(items: Sequence[dict]) -> dict[str, float | int | None]:
    typed, spoken = sum(item["typed_right"] for item in items), sum(item["spoken_right"] for item in items)
    return {
        "questions": len(items),
        "typed_right": typed,
        "spoken_right": spoken,
        "ratio": round(spoken / typed, 3) if typed else None,
    }


def _repeated(items: Sequence[dict]) -> dict[str, Any]:
    wanted = [item["expected"] for item in items]
    return {
        "clips": len(items),
        "spoken": score(wanted, [item["spoken"] for item in items]).report(),
        "typed": score(wanted, [item["typed"] for item in items]).report(),
    }


def _transcripts(assistant: "Assistant", questions: Sequence[dict], items: Sequence[dict], clips: Sequence[dict]) -> dict[str, Any]:
    """Also writes each transcript into its item."""
    found: dict[str, Any] = {}
    try:
        for name, records in (("transcript", questions), ("human_transcript", clips)):
            if records:
                heard = in_batches(partial(assistant.transcripts, unheard=""), [(wave_of(r), r["rate"]) for r in records], "transcripts")
                found[name] = {"clips": len(records)} | score([r["text"] for r in records], heard).report()
                if name == "transcript":
                    for item, text in zip(items, heard, strict=False):
                        item["transcript"] = text
    except UserError:
        return {}  # a vector-making adaptor writes nothing down
    return found
