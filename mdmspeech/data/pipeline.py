"""Grain pipeline over any random-access source of records: shuffled from a seed, in batches of similar lengths, padded, with a position that can be saved.

Every epoch makes its own batches: records are shuffled, sorted into buckets of similar length, cut into batches, and the batches shuffled. All of it
follows from (seed, epoch), so that an iterator's state is just a position, and each host of a pod reads its own share.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mdmspeech.errors import UserError

EPOCHS = 1_000_000  # "endless" for a training run
Record = dict[str, Any]


def batches(
    source,
    lengths: Sequence[int],
    *,
    batch: int,
    multiples: Mapping[str, int],
    bucket: int,
    seed: int,
    epochs: int = EPOCHS,
    change: Callable[[Record, np.random.Generator], Record] | None = None,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> grain.IterDataset:
    """Batches of `source` (`len`, `[i] -> record`); `iter` gives an iterator with `get_state` and `set_state`.

    lengths: the length of each record, what the buckets go by. bucket: records whose lengths round up to the same multiple of it share a bucket.
    multiples: variable-length fields and what their padded lengths are multiples of (few shapes, few compilations); see `collate`.
    change: applied to every record with a generator that follows from (seed, position), for example augmentation.
    shard: (number, count) of this host. Raises `UserError` when there are fewer records than one batch for every host.
    """
    if len(lengths) != len(source):
        raise UserError(f"{len(lengths)} lengths were given for {len(source)} records")
    if len(source) < batch * shard[1]:
        raise UserError(
            f"{len(source)} records are fewer than one batch of {batch} on each of {shard[1]} hosts; use a smaller batch or more data"
        )
    plan = BatchPlan(np.asarray(lengths), batch, bucket, seed, epochs, shard)

    def load(item: tuple[int, np.ndarray]) -> dict[str, np.ndarray]:
        position, numbers = item
        records = [source[int(i)] for i in numbers]
        if change is not None:
            records = [change(r, np.random.default_rng((seed, position, k))) for k, r in enumerate(records)]
        return collate(records, multiples)

    data = grain.MapDataset.source(plan).map(load)
    return data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


class BatchPlan:
    """Which records make up batch i: `plan[i] -> (i, record numbers int [batch])`. The few records left over in an epoch change from epoch to epoch."""

    def __init__(self, lengths: np.ndarray, batch: int, bucket: int, seed: int, epochs: int, shard: tuple[int, int]):
        self._buckets, self._batch, self._seed, self._epochs, self._shard = -(-lengths // bucket), batch, seed, epochs, shard
        self._per_epoch = len(lengths) // batch // shard[1]
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def __len__(self) -> int:
        return self._per_epoch * self._epochs

    def __getitem__(self, i: int) -> tuple[int, np.ndarray]:
        epoch, k = divmod(int(i), self._per_epoch)
        number, count = self._shard
        return int(i), self._epoch(epoch)[k * count + number]

    def _make_epoch(self, epoch: int) -> np.ndarray:
        """int [batches, batch]"""
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._buckets))
        used = len(order) // self._batch * self._batch
        chosen = order[:used]
        chosen = chosen[np.argsort(self._buckets[chosen], kind="stable")]
        return rng.permutation(chosen.reshape(-1, self._batch), axis=0)


def collate(records: Sequence[Record], multiples: Mapping[str, int]) -> dict[str, np.ndarray]:
    """One batch. Fields in `multiples` are padded with zeros to [B, L], L the next multiple of the longest; `<name>_length` int32 [B] tells how much is
    real. Other fields are stacked; texts become arrays of str."""
    out: dict[str, np.ndarray] = {}
    for name in records[0]:
        if name not in multiples:
            out[name] = np.asarray([record[name] for record in records])
            continue
        rows = [np.asarray(record[name]) for record in records]
        longest = max(max(map(len, rows)), 1)
        padded = np.zeros((len(rows), -(-longest // multiples[name]) * multiples[name]), rows[0].dtype)
        for row, values in zip(padded, rows, strict=True):
            row[: len(values)] = values
        out[name] = padded
        out[f"{name}_length"] = np.array([len(values) for values in rows], np.int32)
    return out
