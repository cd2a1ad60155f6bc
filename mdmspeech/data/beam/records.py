"""What flows through a preparation: entries of a corpus, gathered into units.

A unit is what becomes one shard of each split: the entries whose id has its number as a digest
modulo the number of units. It goes through the stages as a whole, in the order of the ids, so that
neither the runner nor the number of workers changes a batch of a model or a byte of a shard.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mdmspeech.data.importers import BadItem, Item

IMPORT = "import"  # the first stage


@dataclasses.dataclass(frozen=True)
class Entry:
    """One place of a corpus: a record, or what is wrong there. part, number: where in the corpus."""

    part: str
    number: int
    found: Item | BadItem

    @property
    def id(self) -> str:
        """The record's; "" where there is none."""
        return self.found.id if isinstance(self.found, Item) else ""

    @property
    def where(self) -> str:
        """Its place, for people."""
        return self.found.where

    @property
    def order(self) -> tuple[str, str, int]:
        """Entries have one order, whoever brings them: by id, then by place."""
        return self.id, self.part, self.number


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record that is left out: the stage that did, why, and where it came from. kind: the reason in
    the few words by which such records are counted.
    """

    stage: str
    kind: str
    reason: str
    where: str
    id: str = ""


@dataclasses.dataclass
class Record:
    """A record on its way. fields: of the dataset, see `datasets.features`, without the audio.

    wave: int16 [N] at `fields["rate"]`, None before there is one. answer_wave: float32 [N] of the
    spoken answer at the codec's rate. states: float [T, D] of a speech encoder.
    """

    item: Item
    fields: dict[str, Any]
    wave: np.ndarray | None = None
    answer_wave: np.ndarray | None = None
    tokens: np.ndarray | None = None
    states: np.ndarray | None = None

    def reject(self, stage: str, kind: str, reason: str) -> Rejected:
        """What is told of it when it is left out."""
        told = " ".join(reason.removeprefix(f"{self.item.where}: ").split())
        return Rejected(stage, kind, told, self.item.where, self.item.id)


@dataclasses.dataclass
class Unit:
    """A unit between two stages. digest: of all it is made from; done: its shards are there already.

    counts: stage -> (records in, records out, rejected).
    """

    number: int
    digest: str
    done: bool = False
    records: list[Record] = dataclasses.field(default_factory=list)
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    counts: dict[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)

    def passed(self, stage: str, results: Iterable[Record | Rejected]) -> "Unit":
        """This unit after a stage whose results are given.

        Raises:
          RuntimeError: the stage has lost a record or made one.
        """
        came, before = len(self.records), len(self.rejected)
        self.records = self._kept(results)
        left, rejected = len(self.records), len(self.rejected) - before
        if came != left + rejected:
            raise RuntimeError(
                f"unit {self.number}, {stage}: {came} records came, {left} left and {rejected} "
                "were rejected"
            )
        self.counts[stage] = (came, left, rejected)
        return self

    def _kept(self, results: Iterable[Record | Rejected]) -> list[Record]:
        """The records among the results, in the order of their ids; the rejected are noted."""
        kept = []
        for result in results:
            if isinstance(result, Record):
                kept.append(result)
            else:
                self.rejected.append(result)
        return sorted(kept, key=lambda record: record.item.id)


def unit_of(entry: Entry, units: int) -> int:
    """The number of the unit that an entry belongs to."""
    name = entry.id or f"{entry.part}\n{entry.where}"
    data = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(data[:8], "big") % units


def begin(number: int, digest: str, entries: Iterable[Entry]) -> Unit:
    """A unit of its entries, which are in order: those that could not be imported, and those whose id
    is there before, are rejected.
    """
    unit = Unit(number, digest)
    results = list(_imported(entries))
    unit.records = unit._kept(results)
    unit.counts[IMPORT] = (len(results), len(unit.records), len(unit.rejected))
    return unit


def _imported(entries: Iterable[Entry]) -> Iterator[Record | Rejected]:
    first: Entry | None = None
    for entry in entries:
        found = entry.found
        if isinstance(found, BadItem):
            yield Rejected(IMPORT, found.kind, found.reason, found.where)
        elif first is not None and entry.id == first.id:
            reason = f"the id {entry.id[:80]} is there before, in {first.where}"
            yield Rejected(IMPORT, "id twice", reason, found.where, found.id)
        else:
            first = entry
            yield Record(found, {})
