"""How well speech is written down, beside Whisper-base as it was published: test voices, real people,
rare words and names.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdmspeech.data.datasets.corpus import whole
from mdmspeech.errors import UserError
from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.scoring import canonical, difference, score
from mdmspeech.evaluation.testset import RARE, human_clips, question_set, spread, wave_of

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

TIMED = 20  # clips


@dataclasses.dataclass(frozen=True)
class Clips:
    """What is to be written down. rare: of each clip the rare words in it, none in other sets."""

    name: str
    waves: list[tuple[np.ndarray, int]]  # with their rates
    texts: list[str]
    rare: list[list[str]]


def written_by(
    recogniser: Recogniser,
    root: str | Path | None = None,
    count: int | None = None,
    split: str = "test",
) -> dict[str, Any]:
    """What the recogniser writes of each clip, one at a time: sets: of each, texts and said."""
    sets = {}
    for one in _sets(root, count, split):
        write = lambda waves: [recogniser.transcribe(*wave) for wave in waves]
        said = in_batches(write, one.waves, f"{one.name}: {recogniser.name}")
        sets[one.name] = {"texts": one.texts, "said": said}
    return {"recogniser": recogniser.name, "sets": sets}


def evaluate_recognition(
    assistant: "Assistant",
    recogniser: Recogniser,
    theirs: Mapping[str, Any],
    root: str | Path | None = None,
    count: int | None = None,
    split: str = "test",
) -> dict[str, Any]:
    """Word errors of the frontend and of the recogniser on the same clips.

    Args:
      theirs: of `written_by`. count: at most so many clips of a set (None: all). split: "test", or
        "val" for the clips by which an ear is chosen, of which none are of real people.

    Returns:
      sets: of each, clips, `ours` and `whisper` (errors, with rare words how many were written
        exactly), `difference`: ours less Whisper's, percentage points of the words, with a 95 %
        interval over clips.
      clip_ms: medians for one clip, in turns; recogniser: its name; items: every transcript.

    Raises:
      UserError: the test questions are missing, the adaptor writes nothing down, or `theirs` is of
        other clips.
    """
    sets = _sets(root, count, split)
    if {one.name: one.texts for one in sets} != {
        name: one["texts"] for name, one in theirs["sets"].items()
    }:
        raise UserError(
            "the corpus has other clips than Whisper's kept transcripts: make both again with "
            f"mdmspeech eval --split {split} --parts recognition --force"
        )
    ours = partial(assistant.transcripts, unheard="")
    result: dict[str, Any] = {"recogniser": recogniser.name, "sets": {}}
    items = []
    for one in sets:
        written = {
            "ours": in_batches(ours, one.waves, f"{one.name}: ours"),
            "whisper": theirs["sets"][one.name]["said"],
        }
        scores = {way: score(one.texts, said) for way, said in written.items()}
        result["sets"][one.name] = {
            "clips": len(one.texts),
            **{
                way: scores[way].report() | _exactly(said, one.rare)
                for way, said in written.items()
            },
            "difference": difference(scores["ours"], scores["whisper"]),
        }
        items += [
            {"set": one.name, "text": text, "ours": mine, "whisper": other}
            for text, mine, other in zip(one.texts, *written.values(), strict=True)
        ]
    ways: dict[str, Callable] = {
        "ours": ours,
        "whisper": lambda waves: [recogniser.transcribe(*w) for w in waves],
    }
    return result | {"clip_ms": _clip_ms(ways, sets[0].waves[:TIMED]), "items": items}


def _sets(root: str | Path | None, count: int | None, split: str) -> list[Clips]:
    """Those that were made."""
    rare: list[dict] = []
    try:
        store = whole(root, "recordings", RARE[split])
        rare = [store[i] for i in spread(len(store), count)]
    except UserError:
        pass  # `mdmspeech data --parts rare_test` makes it
    records = {
        f"{split} voices": question_set(root, count, split),
        "real people": human_clips(root, "human", count) if split == "test" else [],
        "rare words": rare,
    }
    return [_clips(name, found) for name, found in records.items() if found]


def _clips(name: str, records: Sequence[dict]) -> Clips:
    rare = [r["answer"].split(";") if r["family"] == "rare words" else [] for r in records]
    waves = [(wave_of(record), record["rate"]) for record in records]
    return Clips(name, waves, [record["text"] for record in records], rare)


def _exactly(written: Sequence[str], rare: Sequence[Sequence[str]]) -> dict[str, int]:
    """How many of the rare words stand in what was written."""
    found = [
        f" {canonical(word)} " in f" {canonical(text)} "
        for text, words in zip(written, rare, strict=True)
        for word in words
    ]
    return {"rare_right": sum(found), "rare": len(found)} if found else {}


def _clip_ms(
    ways: dict[str, Callable], waves: Sequence[tuple[np.ndarray, int]]
) -> dict[str, float]:
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for wave in waves:
        for way, write in ways.items():
            write([wave])  # what is compiled for this length, is
            began = time.perf_counter()
            write([wave])
            spent[way].append(time.perf_counter() - began)
    return {way: round(1e3 * float(np.median(times)), 1) for way, times in spent.items()}
