"""Reads a dataset at random: the one source of all training stages, from a disk or a bucket."""

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.data.datasets.array_record import Shard
from mdmspeech.data.datasets.features import FIELDS, TEXTS, VERSION, ExampleFormat
from mdmspeech.data.datasets.index import Columns, ShardMap, Texts
from mdmspeech.data.datasets.writer import shard_name
from mdmspeech.errors import UserError

Record = dict[str, Any]


class Dataset:
    """One split: `len(dataset)`, `dataset[i] -> record`, see `features` for what a record holds.

    `counts(column)` and `fields(i)` read no shard. A shard is opened when a record of it is first
    read. Safe to use from many threads.

    Raises:
      UserError: the dataset is not there, has no such split, or is of another version.
    """

    def __init__(self, folder: str | os.PathLike, split: str, cure: str = "mdmspeech data"):
        self.folder, self.split = os.fspath(folder), split
        columns = _columns(folder, f"index-{split}.safetensors", cure)
        self.about = columns.about
        if self.about.get("version") != VERSION:
            raise UserError(
                f"{self.folder} has version {self.about.get('version')} of the layout, this is "
                f"{VERSION}; make it again with: {cure}"
            )
        self._index, self._cure = columns, cure
        self._texts: Texts | None = None
        self._example = ExampleFormat(self.about["kind"], self.about["width"])
        self._map = ShardMap(shard["records"] for shard in self.about["shards"])
        self._open: dict[int, Shard] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._map)

    def __getitem__(self, i: int) -> Record:
        return self.__getitems__([int(i)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Record]:
        """Several at once: those of a shard are fetched together."""
        shards, places = self._map.locate(numbers)
        found: list[Record] = [{}] * len(shards)
        for shard in np.unique(shards).tolist():
            mine = np.flatnonzero(shards == shard)
            for k, data in zip(mine, self._shard(shard).read(places[mine].tolist()), strict=True):
                found[k] = self._example.decode(data)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split, "cure": self._cure}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def counts(self, column: str) -> np.ndarray:
        """A column of the index, int [N]: lengths ("tokens", "symbols", "samples", "states") or
        numbers ("rate", "digest"), as the kind has them.
        """
        return self._index[column]

    def fields(self, i: int) -> Record:
        """Texts and numbers of a record, without reading it."""
        if self._texts is None:
            self._texts = Texts(
                _columns(self.folder, f"texts-{self.split}.safetensors", self._cure)
            )
        texts = {name: self._texts[name, i] for name in TEXTS[self.about["kind"]]}
        return texts | {name: int(self._index[name][i]) for name in FIELDS[self.about["kind"]]}

    def _shard(self, number: int) -> Shard:
        with self._lock:
            if number not in self._open:
                shards = self.about["shards"]
                name = shard_name(self.about["kind"], self.split, number, len(shards))
                self._open[number] = Shard(
                    remote.join(self.folder, name),
                    shards[number]["records"],
                    shards[number]["checksum"],
                )
            return self._open[number]


class Subset:
    """Some datasets one after another, or the first records of them, as one.

    most: records at most. of_each: at most so many of each dataset.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        most: int | None = None,
        of_each: Sequence[int] | None = None,
    ):
        self.datasets = tuple(datasets)
        sizes = [len(dataset) for dataset in self.datasets]
        self._each = sizes if of_each is None else list(map(min, sizes, of_each))
        self._cut = [] if self._each == sizes else [self._each]
        self._map = ShardMap(self._each)
        self._size = len(self._map) if most is None else min(most, len(self._map))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, i: int) -> Record:
        return self.__getitems__([i])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Record]:
        """See `Dataset.__getitems__`."""
        parts, places = self._locate(numbers)
        found: list[Record] = [{}] * len(parts)
        for part in np.unique(parts).tolist():
            mine = np.flatnonzero(parts == part)
            records = self.datasets[part].__getitems__(places[mine].tolist())
            for k, record in zip(mine, records, strict=True):
                found[k] = record
        return found

    def first(self, most: int) -> "Subset":
        """The first records."""
        return Subset(self.datasets, most, self._each)

    def counts(self, column: str) -> np.ndarray:
        """See `Dataset.counts`."""
        if len(self.datasets) == 1:
            return self.datasets[0].counts(column)[: self._size]
        each = zip(self.datasets, self._each, strict=True)
        return np.concatenate([d.counts(column)[:size] for d, size in each])[: self._size]

    @property
    def fingerprint(self) -> str:
        """Digest of what the shards hold."""
        shards = [dataset.about["shards"] for dataset in self.datasets]
        return hashlib.sha256(json.dumps([shards, self._size, *self._cut]).encode()).hexdigest()[
            :16
        ]

    @property
    def content(self) -> str:
        """Digest of the texts and of who made the tokens: other data of the same lengths differ."""
        digest = zlib.crc32(repr(sorted(map(str, self.about("codec")))).encode())
        for dataset in self.datasets:
            digest = zlib.crc32(np.asarray(dataset.counts("digest")).tobytes(), digest)
        return f"{digest:08x}"

    def about(self, key: str) -> set[Any]:
        """What the datasets say of themselves under a key."""
        return {dataset.about.get(key) for dataset in self.datasets}

    def fields(self, i: int) -> Record:
        """See `Dataset.fields`."""
        (part,), (place,) = self._locate([i])
        return self.datasets[part].fields(int(place))

    def _locate(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        if len(numbers) and max(numbers) >= self._size:
            raise IndexError(f"record {max(numbers)} of {self._size}")
        return self._map.locate(numbers)


def _columns(folder: str | os.PathLike, name: str, cure: str) -> Columns:
    path = remote.join(folder, name)
    try:
        return Columns(remote.local_copy(path))
    except (FileNotFoundError, remote.NotFound) as error:
        raise UserError(f"{path} is missing; make it with: {cure}") from error
