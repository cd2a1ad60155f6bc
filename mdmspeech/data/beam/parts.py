"""What a unit leaves behind: its shards, and beside them its part, a file of what the index, the
statistics and the dead letters will say of it. The part is written last: with it the unit is done.

    <work>/<kind>-<split>-00003.array_record
    <work>/part-00003.safetensors
    <work>/published.json                      which units the dataset was made from

All of it lies below the folder of the datasets, so that a shard only has to be given its name there.
"""

import collections
import dataclasses
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.data.beam import records, sources
from mdmspeech.data.beam.records import Entry, Record, Rejected, Unit
from mdmspeech.data.datasets.array_record import ShardInfo, write_shard
from mdmspeech.data.datasets.corpus import Root, folder_of
from mdmspeech.data.datasets.features import KINDS, VERSION, ExampleFormat
from mdmspeech.data.datasets.index import Columns, text_columns, write_columns
from mdmspeech.data.datasets.writer import INFO, Rows
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.errors import UserError

PUBLISHED = "published.json"
_STATES = ("id", "text", "answer")


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a preparation goes. kinds: kind -> what the index of that dataset says about it (codec, ...).

    units: shards of each split. settings: of everything that is done, as a text: part of every
    unit's digest. width: of the states.
    """

    root: str
    name: str
    units: int
    kinds: Mapping[str, Mapping[str, Any]]
    settings: str = ""
    width: int | None = None

    @property
    def work(self) -> str:
        """The folder of what is not finished."""
        return remote.join(remote.parent(self.folder("recordings")), ".work")

    def folder(self, kind: str) -> str:
        """Of the dataset of a kind."""
        root: Root = self.root or None
        return folder_of(root, kind, self.name)

    def example(self, kind: str) -> ExampleFormat:
        """How its records are written."""
        return ExampleFormat(kind, self.width if kind == "states" else None)

    def shard(self, kind: str, split: str, number: int) -> str:
        """The place of a shard that is not published."""
        return remote.join(self.work, f"{kind}-{split}-{number:05d}.array_record")

    def part(self, number: int) -> str:
        """The place of a part."""
        return remote.join(self.work, f"part-{number:05d}.safetensors")


@dataclasses.dataclass(frozen=True)
class Part:
    """What is known of a finished unit: see `Unit`; shards: (kind, split) -> `ShardInfo`; statistics:
    see `_statistics`.
    """

    number: int
    digest: str
    counts: dict[str, tuple[int, int, int]]
    rejected: list[Rejected]
    shards: dict[tuple[str, str], ShardInfo]
    statistics: dict[str, dict[str, Any]]
    columns: Columns

    def numbers(self, kind: str, split: str, name: str) -> np.ndarray:
        """A column of numbers of its records."""
        return self.columns[f"{kind}/{split}/{name}"]

    def text(self, kind: str, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(UTF-8 bytes of a text of all its records, where each ends)."""
        key = f"{kind}/{split}/{name}"
        if key not in self.columns:
            count = self.shards[kind, split].records
            return np.zeros(0, np.uint8), np.zeros(count, np.int64)
        return self.columns[key], self.columns[f"{key}_ends"]


def begin(target: Target, number: int, found: Iterable[Entry], held: Mapping[str, str]) -> Unit:
    """The unit of its entries, in their one order whatever brought them; done if it has its shards."""
    entries = sorted(found, key=lambda entry: entry.order)
    digest = sources.digest(entries, f"{target.units} {target.settings}")
    if is_done(target, number, digest, held):
        return Unit(number, digest, done=True)
    return records.begin(number, digest, entries)


def write_unit(target: Target, unit: Unit) -> None:
    """Writes the shards of a unit, then its part. A unit that is done is left as it is."""
    if unit.done:
        return
    shards: dict[str, ShardInfo] = {}
    columns: dict[str, np.ndarray] = {}
    for kind in target.kinds:
        example = target.example(kind)
        for split in SPLITS:
            rows, encoded = Rows(example), []
            for fields in _rows(kind, split, unit.records):
                rows.add(fields)
                encoded.append(example.encode(fields))
            place = target.shard(kind, split, unit.number)
            shards[f"{kind}/{split}"] = write_shard(place, encoded)
            found = rows.numbers() | text_columns(rows.texts)
            columns |= {f"{kind}/{split}/{name}": values for name, values in found.items()}
    about = {
        "number": unit.number,
        "digest": unit.digest,
        "counts": unit.counts,
        "rejected": [dataclasses.asdict(r) for r in sorted(unit.rejected, key=_order)],
        "shards": {key: dataclasses.asdict(info) for key, info in shards.items()},
        "statistics": _statistics(unit.records),
    }
    with tempfile.TemporaryDirectory(prefix="mdmspeech-part-") as folder:
        made = Path(folder) / "part.safetensors"
        write_columns(made, columns, about)
        remote.upload(made, target.part(unit.number))


def read_part(target: Target, number: int) -> Part | None:
    """The part of a unit, None if there is none that can be read: it is made again, then."""
    try:
        columns = Columns(remote.local_copy(target.part(number)))
        about = columns.about
        return Part(
            number=about["number"],
            digest=about["digest"],
            counts={stage: (c[0], c[1], c[2]) for stage, c in about["counts"].items()},
            rejected=[Rejected(**told) for told in about["rejected"]],
            shards={
                tuple(key.split("/")): ShardInfo(**info) for key, info in about["shards"].items()
            },
            statistics=about["statistics"],
            columns=columns,
        )
    except (remote.NotFound, FileNotFoundError):
        return None
    except (UserError, KeyError, TypeError) as error:
        if remote.is_remote(target.part(number)) and not isinstance(error, (KeyError, TypeError)):
            raise  # the bucket does not answer
        return None


def published(target: Target) -> dict[str, str]:
    """Unit number -> digest of those that the datasets hold which are there now."""
    try:
        said = remote.read_json(remote.join(target.work, PUBLISHED))
        units = {str(number): str(digest) for number, digest in said["units"].items()}
        for kind, made_from in said["made_from"].items():
            if made_from_of(target.folder(kind)) != made_from:
                return {}
    except (UserError, KeyError, TypeError, AttributeError):
        return {}
    return units if said.get("kinds") == sorted(target.kinds) else {}


def made_from_of(folder: str) -> str:
    """What a dataset says it was made from; "" if it is not there."""
    if not remote.exists(remote.join(folder, INFO)):
        return ""
    for split in SPLITS:
        index = remote.join(folder, f"index-{split}.safetensors")
        if remote.exists(index):
            about = Columns(remote.local_copy(index)).about
            return str(about.get("made_from")) if about.get("version") == VERSION else ""
    return ""


def is_done(target: Target, number: int, digest: str, held: Mapping[str, str]) -> bool:
    """Whether a unit of that digest has its part and its shards. held: see `published`."""
    part = read_part(target, number)
    if part is None or part.digest != digest:
        return False
    return held.get(str(number)) == digest or all(
        _size(target.shard(kind, split, number)) == info.bytes
        for (kind, split), info in part.shards.items()
    )


def _size(place: str) -> int:
    try:
        return remote.size(place)
    except remote.NotFound:
        return -1


def _rows(kind: str, split: str, found: Iterable[Record]) -> Iterable[dict[str, Any]]:
    for record in found:
        fields = record.fields
        if fields["split"] != split or record.wave is None:
            continue
        if kind == "recordings":
            ready = {} if record.tokens is None else _own_tokens(record)
            yield {**fields, **ready, "audio": record.wave}
        elif kind == "tokens" and record.tokens is not None:
            said = {name: fields[name] for name in KINDS["tokens"] if name in fields}
            if record.item.answer:  # the tokens are the answer's
                said = {"id": fields["id"], "text": fields["answer"], "question": fields["text"]}
            yield said | {"tokens": record.tokens}
        elif kind == "states" and record.states is not None:
            yield {name: fields[name] for name in _STATES} | {"states": record.states}


def _own_tokens(record: Record) -> dict[str, Any]:
    return {"units": record.tokens} if record.item.answer else {}


def _statistics(ready: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Split -> records, seconds, and records by speaker, language and licence."""
    found: dict[str, dict[str, Any]] = {}
    for record in ready:
        if record.wave is None:
            continue
        fields = record.fields
        here = found.setdefault(
            fields["split"],
            {"records": 0, "samples": {}}
            | {name: collections.Counter() for name in ("voice", "language", "licence")},
        )
        here["records"] += 1
        rate = str(fields["rate"])
        here["samples"][rate] = here["samples"].get(rate, 0) + len(record.wave)
        for name in ("voice", "language", "licence"):
            here[name][fields.get(name, "")] += 1
    return json.loads(json.dumps(found))


def _order(told: Rejected) -> tuple[str, ...]:
    return told.where, told.id, told.stage, told.reason
