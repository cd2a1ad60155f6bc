"""Answers that are a time of day: which times a text states, and which it only was asked with."""

import re

from mdmspeech.evaluation.claims import Claims, Words
from mdmspeech.evaluation.scoring import normalised


def time(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """A time of day: "six fifteen", "6:15", "a quarter past six", "18:15"."""
    right = _times(" ".join(wanted))[-1:]
    stated = [one for one in _times(_stated_text(said)) if not one[1]]
    rest = [
        one[0] for one in stated if one[0] not in {given for given, _ in _times(" ".join(question))}
    ]
    return (
        bool(right)
        and {*rest} == {right[0][0]}
        and stated[-1][0] == right[0][0]
        and "or" not in said.words
    )


def _stated_text(said: Claims) -> str:
    """The text's own spelling where all of it is stated (the tokens have lost the colon of 6:15)."""
    return said.text if not said.denied else " ".join(said.words)


def _times(text: str) -> list[tuple[int, bool]]:
    """(minutes after twelve, whether the time is given: "after six") of each time, lengths of time
    left out.
    """
    text = re.sub(
        r"\b(\d{1,2})[:.](\d\d)(?::\d\d)?\b", r" at\1at\2 ", text.lower().replace("’", "'")
    )
    text = re.sub(r"[ap]\.?m\b\.?|o'clock|oclock", " ", text)
    found = []
    for part in re.split(r"[,.;!?]+(?:\s|$)", text):
        clocks = re.findall(r"at(\d+)at(\d\d)", part)
        words = normalised(re.sub(r"at\d+at\d\d", " clocktime ", part)).split()
        for i, word in enumerate(words):
            before, after = [w for w in words[:i] if w not in ("the", "a")], words[i + 1 : i + 2]
            minutes = _minutes(word, before, after, clocks)
            if minutes is not None:
                given = (
                    any(
                        w
                        in (
                            "after",
                            "from",
                            "starts",
                            "started",
                            "starting",
                            "begins",
                            "since",
                            "start",
                        )
                        for w in before[-3:]
                    )
                    and "past" not in before[-1:]
                )
                found.append((minutes % 720, given))
    return found


def _minutes(word: str, before: Words, after: Words, clocks: list) -> int | None:
    if word == "clocktime":
        hour, minute = map(int, clocks.pop(0))
        return 60 * hour + minute if hour < 24 and minute < 60 else None
    if word in ("noon", "midnight"):
        return 0
    word = "1" if word == "one" and after[:1] not in (["of"], ["hour"]) else word
    if not re.fullmatch(r"\d{1,4}", word) or (
        after and after[0].rstrip("s") in ("hour", "minute", "past", "to", "second", "after")
    ):
        return None
    value = int(word)
    shift = {
        ("half", "past"): 30,
        ("quarter", "past"): 15,
        ("quarter", "after"): 15,
        ("quarter", "to"): -15,
    }.get(tuple(before[-2:]))  # type: ignore[arg-type]
    if len(word) <= 2:
        if len(before) > 1 and before[-1] in ("past", "to") and before[-2].isdigit():
            shift = int(before[-2]) * (1 if before[-1] == "past" else -1)
        return 60 * value + (shift or 0) if value <= 24 else None
    return 60 * (value // 100) + value % 100 if value // 100 < 24 and value % 100 < 60 else None
