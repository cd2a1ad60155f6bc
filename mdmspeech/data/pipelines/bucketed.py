"""Grain pipeline over any random-access source of records: shuffled from a seed, in batches of similar lengths, padded, with a position that can be saved.

Every epoch makes its own batches: records are shuffled, sorted into buckets of similar length, cut into batches, and the batches shuffled. All of it
follows from (seed, epoch), so that an iterator's state is just a position, and each host of a pod makes its own rows of the same batches. (`packing` wastes
less; buckets are for models that take one record a row.)
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mdmspeech.data.packing.sharding import Shard, host_rows
from mdmspeech.errors import UserError

EPOCHS = 1_000_000  # "endless" for a training run
Record = dict[str, Any]


def batches(
    source,
    lengths: Mapping[str, Sequence[int]],
    *,
    batch: int,
    multiples: Mapping[str, int],
    bucket: int,
    seed: int,
    epochs: int = EPOCHS,
    change: Callable[[Record, np.random.Generator], Record] | None = None,
    shard: Shard = (0, 1),
    threads: int = 2,
) -> grain.IterDataset:
    """Batches of `source` (`len`, `[i] -> record`); `iter` gives an iterator with `get_state` and `set_state`.

    lengths: of each record, by field; the first field is what the buckets go by. bucket: records whose lengths round up to the same multiple of it share one.
    multiples: variable-length fields and what their padded lengths are multiples of (few shapes, few compilations); see `collate`.
    change: applied to every record with a generator that follows from (seed, position), for example augmentation; it keeps the lengths.
    batch: rows of all hosts together. shard: (number, count) of this host.

    Raises:
      UserError: fewer records than a batch, or several hosts without the lengths of every field in `multiples`, whose arrays would differ in shape.
    """
    for field, values in lengths.items():
        if len(values) != len(source):
            raise UserError(f"{len(values)} lengths of {field!r} were given for {len(source)} records")
    if len(source) < batch:
        raise UserError(f"{len(source)} records are fewer than one batch of {batch}; use a smaller batch or more data")
    if shard[1] > 1 and (unknown := set(multiples) - set(lengths)):
        raise UserError(f"with several hosts the lengths of {', '.join(sorted(unknown))} must be given: all hosts pad alike")
    known = {field: np.asarray(values) for field, values in lengths.items()}
    plan = BatchPlan(next(iter(known.values())), batch, bucket, seed, epochs)
    mine = host_rows(batch, shard)

    def load(item: tuple[int, np.ndarray]) -> dict[str, np.ndarray]:
        position, numbers = item
        rows = list(enumerate(numbers.tolist()))[mine]
        records = [source[i] for _, i in rows]
        if change is not None:
            records = [change(r, np.random.default_rng((seed, position, k))) for r, (k, _) in zip(records, rows, strict=True)]
        return collate(records, multiples, {field: int(known[field][numbers].max()) for field in multiples if field in known})

    data = grain.MapDataset.source(plan).map(load)
    return data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


class BatchPlan:
    """Which records make up batch i: `plan[i] -> (i, record numbers int [batch])`. What an epoch lacks for whole batches, a few records fill that come twice."""

    def __init__(self, lengths: np.ndarray, batch: int, bucket: int, seed: int, epochs: int = EPOCHS):
        self._buckets, self._batch, self._seed, self._epochs = -(-lengths // bucket), batch, seed, epochs
        self.per_epoch = -(-len(lengths) // batch)
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def __len__(self) -> int:
        return self.per_epoch * self._epochs

    def __getitem__(self, i: int) -> tuple[int, np.ndarray]:
        epoch, k = divmod(int(i), self.per_epoch)
        return int(i), self._epoch(epoch)[k]

    def _make_epoch(self, epoch: int) -> np.ndarray:
        """int [batches, batch]"""
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self._buckets))
        more = rng.choice(len(order), self.per_epoch * self._batch - len(order), replace=False)
        chosen = np.concatenate([order, more])
        chosen = chosen[np.argsort(self._buckets[chosen], kind="stable")]
        return rng.permutation(chosen.reshape(-1, self._batch), axis=0)


def collate(records: Sequence[Record], multiples: Mapping[str, int], longest: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """One batch. Fields in `multiples` are padded with zeros to [B, L], L the next multiple of the longest (or of what `longest` says); `<name>_length`
    int32 [B] tells how much is real. Other fields are stacked; texts become arrays of str."""
    out: dict[str, np.ndarray] = {}
    for name in records[0]:
        if name not in multiples:
            out[name] = np.asarray([record[name] for record in records])
            continue
        rows = [np.asarray(record[name]) for record in records]
        most = max((longest or {}).get(name, max(map(len, rows))), 1)
        padded = np.zeros((len(rows), -(-most // multiples[name]) * multiples[name]), rows[0].dtype)
        for row, values in zip(padded, rows, strict=True):
            row[: len(values)] = values
        out[name] = padded
        out[f"{name}_length"] = np.array([len(values) for values in rows], np.int32)
    return out
