"""How well a spoken question is understood, measured by the answers: the same questions are typed
and spoken.

Hearing is judged against typing, not against the truth alone: what the text model does not know
when it reads, it need not know when it listens.
"""

import collections
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdmspeech.errors import UserError
from mdmspeech.evaluation.judging import is_right
from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.scoring import score, wilson
from mdmspeech.evaluation.testset import HUMAN_REPEAT, human_clips, question_set, wave_of

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

REPEAT = "repeat"


def evaluate_hearing(
    assistant: "Assistant", root: str | Path | None = None, count: int | None = None
) -> dict[str, Any]:
    """Answers to typed and to spoken test questions, by family; "repeat after me" on test voices
    and on real people; what the frontend writes down.

    Args:
      count: how many questions, and at most how many human clips of each kind (None: all).

    Returns:
      families: {family: questions, typed_right, spoken_right, both_right, share (both of typed),
        share_95}; all: the same over all of them (`facts`: without repeating and small talk).
      repeat, human_repeat: word errors of the answer against what was to be repeated, spoken and
        (`typed`) typed.
      transcript, human_transcript: word errors of what the frontend wrote down; absent for an
        adaptor that makes vectors.
      items: every question with its answers, to be read.
    """
    questions = question_set(root, count)
    humans = human_clips(root, HUMAN_REPEAT, count)
    items = _ask(assistant, questions + humans)
    ours, theirs = items[: len(questions)], items[len(questions) :]
    result: dict[str, Any] = {"questions": len(ours), **right_by_family(ours)}
    for name, rows in (
        ("repeat", [i for i in ours if i["family"] == REPEAT]),
        ("human_repeat", theirs),
    ):
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
    typed = in_batches(
        assistant.answer_many, [record["text"] for record in records], "typed questions"
    )
    spoken = in_batches(partial(assistant.hear_many, unheard=""), waves, "spoken questions")
    items = []
    for record, by_text, by_ear in zip(records, typed, spoken, strict=True):
        question = {
            "id": record["id"],
            "family": record["family"],
            "voice": record["voice"],
            "question": record["text"],
        }
        answers = {"expected": record["answer"], "typed": by_text, "spoken": by_ear}
        items.append({**question, **answers})
    return judge(items)


def _count(items: Sequence[dict]) -> dict[str, Any]:
    typed, spoken = (
        sum(item["typed_right"] for item in items),
        sum(item["spoken_right"] for item in items),
    )
    both = sum(item["typed_right"] and item["spoken_right"] for item in items)
    found = {
        "questions": len(items),
        "typed_right": typed,
        "spoken_right": spoken,
        "both_right": both,
    }
    if not typed:
        return {**found, "share": None, "share_95": None}
    return {
        **found,
        "share": round(both / typed, 3),
        "share_95": [round(bound, 3) for bound in wilson(both, typed)],
    }


def judge(items: Sequence[dict]) -> list[dict]:
    """The items with `typed_right` and `spoken_right` by the judge as it is now."""
    return [
        item
        | {
            f"{way}_right": is_right(item[way], item["expected"], item["family"], item["question"])
            for way in ("typed", "spoken")
        }
        for item in items
    ]


def rejudged(part: dict[str, Any]) -> dict[str, Any]:
    """A kept part judged again: its answers stay, what counts as right is made anew; the old counts
    stay beside it as `before`.

    `before` says of the facts, for each way of asking, how many were right, how many of these still
    are (`stand`), and how many were counted as wrong and are right (`found`). UserError: the part
    holds no answers.
    """
    items = part.get("items", [])
    if not items:
        raise UserError(
            "the kept result holds no answers to judge; make it again: mdmspeech "
            "eval --parts hearing --force"
        )
    new = judge(items)
    if [(one["typed_right"], one["spoken_right"]) for one in new] == [
        (one["typed_right"], one["spoken_right"]) for one in items
    ]:
        return part
    # people's clips stand after the questions
    count = len(part["items"]) - sum(item["family"] == HUMAN_REPEAT for item in items)
    facts = [
        (a, b)
        for a, b in zip(items, new, strict=True)
        if a["family"] not in (REPEAT, HUMAN_REPEAT, "small talk")
    ]
    before: dict[str, Any] = {"facts": {"questions": len(facts)}}
    for way in ("typed_right", "spoken_right"):
        pairs = [(old[way], now[way]) for old, now in facts]
        stand = sum(old and now for old, now in pairs)
        before["facts"][way] = {
            "before": sum(old for old, _ in pairs),
            "stand": stand,
            "found": sum(now for _, now in pairs) - stand,
        }
    before["made"] = {
        key: part["made"][key]
        for key in ("date", "commit", "recorded")
        if key in part.get("made", {})
    }
    return {**part, **right_by_family(new[:count]), "items": new, "rejudged": before}


def _repeated(items: Sequence[dict]) -> dict[str, Any]:
    wanted = [item["expected"] for item in items]
    return {
        "clips": len(items),
        "spoken": score(wanted, [item["spoken"] for item in items]).report(),
        "typed": score(wanted, [item["typed"] for item in items]).report(),
    }


def _transcripts(
    assistant: "Assistant", questions: Sequence[dict], items: Sequence[dict], clips: Sequence[dict]
) -> dict[str, Any]:
    """Also writes each transcript into its item."""
    found: dict[str, Any] = {}
    try:
        for name, records in (("transcript", questions), ("human_transcript", clips)):
            if records:
                heard = in_batches(
                    partial(assistant.transcripts, unheard=""),
                    [(wave_of(r), r["rate"]) for r in records],
                    "transcripts",
                )
                found[name] = {"clips": len(records)} | score(
                    [r["text"] for r in records], heard
                ).report()
                if name == "transcript":
                    for item, text in zip(items, heard, strict=False):
                        item["transcript"] = text
    except UserError:
        return {}  # a vector-making adaptor writes nothing down
    return found
