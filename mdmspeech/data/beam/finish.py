"""The parts of all units become the datasets: shards get their names, columns are joined, counts are
checked, statistics and dead letters are written. Nothing is decoded.

    <dataset>/statistics.json     hours, speakers, languages, licences, counts of every stage
    <dataset>/dead_letters.jsonl  a line for each record that was left out: stage, kind, reason, where, id
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.data.beam.parts import PUBLISHED, Part, Target, made_from_of, published, read_part
from mdmspeech.data.beam.records import IMPORT
from mdmspeech.data.datasets.array_record import ShardInfo
from mdmspeech.data.datasets.features import TEXTS, ExampleFormat
from mdmspeech.data.datasets.writer import publish, shard_name, write_index, write_info
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.errors import UserError
from mdmspeech.files import replace_folder

STATISTICS, DEAD_LETTERS = "statistics.json", "dead_letters.jsonl"


def finish(target: Target, stages: Sequence[str], imported: int) -> dict[str, Any]:
    """Publishes the datasets; returns the statistics.

    Args:
      stages: names of those after the import, in their order. imported: entries that were read, as
        they were counted before they were gathered.

    Raises:
      UserError: a unit is missing, no record is left, or the counts of a stage do not add up.
    """
    parts = [_part(target, number) for number in range(target.units)]
    statistics = _statistics(parts, [IMPORT, *stages], imported)
    if not statistics["records"]:
        first = next((told for part in parts for told in part.rejected), None)
        why = f", first: {first.where}: {first.reason}" if first else ": it lists nothing"
        raise UserError(f"none of the {imported} records can be used{why}")
    held = published(target)
    made_from = _made_from(parts)
    for kind in target.kinds:
        _publish(target, kind, parts, statistics, made_from, held)
    units = {str(part.number): part.digest for part in parts}
    made = {kind: made_from for kind in target.kinds if _total(parts, kind)}
    said = {"made_from": made, "kinds": sorted(target.kinds), "units": units}
    remote.write_text(remote.join(target.work, PUBLISHED), json.dumps(said))
    _tidy(target)
    return statistics


def read_statistics(target: Target) -> dict[str, Any]:
    """Those of the dataset that is there."""
    return remote.read_json(remote.join(target.folder("recordings"), STATISTICS))


def _part(target: Target, number: int) -> Part:
    part = read_part(target, number)
    if part is None:
        raise UserError(
            f"{remote.shown(target.part(number))} is missing or damaged; run the same command again"
        )
    return part


def _statistics(parts: Sequence[Part], stages: Sequence[str], imported: int) -> dict[str, Any]:
    counts = {stage: _sum([part.counts[stage] for part in parts]) for stage in stages}
    _check(counts, imported, sum(len(part.rejected) for part in parts), parts)
    splits: dict[str, Any] = {}
    for split in SPLITS:
        found = [part.statistics[split] for part in parts if split in part.statistics]
        if found:
            splits[split] = _joined(found)
    reasons: dict[str, int] = {}
    for told in (told for part in parts for told in part.rejected):
        key = f"{told.stage}: {told.kind}"
        reasons[key] = reasons.get(key, 0) + 1
    return {
        "records": sum(split["records"] for split in splits.values()),
        "hours": round(sum(split["hours"] for split in splits.values()), 6),
        "splits": splits,
        "stages": {
            stage: {"in": came, "out": left, "rejected": rejected}
            for stage, (came, left, rejected) in counts.items()
        },
        "rejected": dict(sorted(reasons.items())),
    }


def _check(
    counts: Mapping[str, tuple[int, int, int]], imported: int, told: int, parts: Sequence[Part]
) -> None:
    """In = out + rejected, of every stage; what leaves one comes to the next; what leaves the last is
    written, and there is a dead letter for each that does not.
    """
    wrong, before = [], imported
    for stage, (came, left, rejected) in counts.items():
        if came != before:
            wrong.append(f"{before} went to {stage}, {came} came")
        if came != left + rejected:
            wrong.append(f"{stage}: {came} came, {left} left, {rejected} were rejected")
        before = left
    written = _total(parts, "recordings")
    if before != written:
        wrong.append(f"{before} were to be written, {written} are")
    if told != sum(rejected for _, _, rejected in counts.values()):
        wrong.append(f"there are {told} dead letters")
    if wrong:
        raise UserError(
            f"the counts do not add up, so nothing was published: {'; '.join(wrong)}; this is a "
            "fault of the program or of its storage: run it again, and report it if it stays"
        )


def _sum(counts: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    came, left, rejected = (sum(column) for column in zip(*counts, strict=True))
    return came, left, rejected


def _total(parts: Sequence[Part], kind: str) -> int:
    return sum(part.shards[kind, split].records for part in parts for split in SPLITS)


def _joined(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    samples: dict[str, int] = {}
    named: dict[str, dict[str, int]] = {"voice": {}, "language": {}, "licence": {}}
    for one in found:
        for rate, count in one["samples"].items():
            samples[rate] = samples.get(rate, 0) + count
        for name, counted in named.items():
            for key, count in one[name].items():
                counted[key] = counted.get(key, 0) + count
    return {
        "records": sum(one["records"] for one in found),
        "hours": round(sum(n / int(rate) for rate, n in samples.items()) / 3600, 6),
        "speakers": len(set(named["voice"]) - {""}),
        **{f"{name}s": dict(sorted(counted.items())) for name, counted in named.items()},
    }


def _made_from(parts: Sequence[Part]) -> str:
    """Of what the recordings are, wherever and whenever they were made."""
    sums = [part.shards["recordings", split].checksum for part in parts for split in SPLITS]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]


def _publish(
    target: Target,
    kind: str,
    parts: Sequence[Part],
    statistics: Mapping[str, Any],
    made_from: str,
    held: Mapping[str, str],
) -> None:
    """One dataset: on a disk in a folder beside its place, which then takes its name; in a bucket in
    its place, what tells that it is there last.
    """
    folder = target.folder(kind)
    if not _total(parts, kind):
        return
    if (
        held
        and made_from_of(folder) == made_from
        and all(held.get(str(part.number)) == part.digest for part in parts)
    ):
        return
    about = {"part": target.name, "made_from": made_from, **target.kinds[kind]}
    if remote.is_remote(folder):
        with tempfile.TemporaryDirectory(prefix="mdmspeech-finish-") as made:
            names = _write_columns(Path(made), target, kind, parts, statistics, about)
            publish(Path(made), folder, names)
        return
    place = remote.local(folder)
    new = place.with_name(f".{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    names = _write_columns(new, target, kind, parts, statistics, about)
    for name, source in names.items():
        remote.copy(_there(source, place / name), new / name)
    old = place.with_name(f".{place.name}.old")
    if place.exists():  # what a kill may have left
        shutil.rmtree(old, ignore_errors=True)
    replace_folder(new, place, old)


def _write_columns(
    folder: Path,
    target: Target,
    kind: str,
    parts: Sequence[Part],
    statistics: Mapping[str, Any],
    about: Mapping[str, Any],
) -> dict[str, str]:
    """All but the shards, which are empty yet; returns name of a shard -> where it is, unless it has
    been published.
    """
    example, infos, names = target.example(kind), {}, {}
    for split in SPLITS:
        shards = [part.shards[kind, split] for part in parts]
        if not sum(shard.records for shard in shards):
            continue
        infos[split] = shards
        _write_split(folder, example, split, parts, shards, about)
        for part in parts:
            name = shard_name(kind, split, part.number, len(parts))
            names[name] = target.shard(kind, split, part.number)
    for name in names:  # TFDS looks for them
        (folder / name).touch()
    write_info(folder, example, infos, f"{kind} of {target.name}, prepared by mdmspeech")
    text = json.dumps(statistics, indent=1, ensure_ascii=False)
    (folder / STATISTICS).write_text(text + "\n", encoding="utf-8")
    with open(folder / DEAD_LETTERS, "w", encoding="utf-8") as file:
        for told in (told for part in parts for told in part.rejected):
            file.write(json.dumps(dataclasses.asdict(told), ensure_ascii=False) + "\n")
    return names


def _write_split(
    folder: Path,
    example: ExampleFormat,
    split: str,
    parts: Sequence[Part],
    shards: list[ShardInfo],
    about: Mapping[str, Any],
) -> None:
    kind = example.kind
    numbers = {
        name: np.concatenate([part.numbers(kind, split, name) for part in parts])
        for name in (*example.column_names(), "digest")
    }
    texts: dict[str, np.ndarray] = {}
    for name in TEXTS[kind]:
        found = [part.text(kind, split, name) for part in parts]
        data = np.concatenate([data for data, _ in found])
        if len(data):
            before = np.cumsum([0, *(len(data) for data, _ in found)])
            texts[name] = data
            texts[f"{name}_ends"] = np.concatenate(
                [ends + start for (_, ends), start in zip(found, before, strict=False)]
            )
    write_index(folder, example, split, shards, numbers, texts, about)


def _there(source: str, place: Path) -> str | Path:
    """A shard is where it was made, or, if nothing of it has changed, in the older dataset."""
    return source if remote.exists(source) else place


def _tidy(target: Target) -> None:
    """Shards have their names now, and parts of other runs are of no use."""
    kept = {remote.name(target.part(number)) for number in range(target.units)} | {PUBLISHED}
    for name in remote.list_names(target.work):
        if name not in kept:
            remote.remove(remote.join(target.work, name))
