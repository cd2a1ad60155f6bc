"""Batches of speech-encoder states for the adaptors: one record a row, rows of similar lengths
together, padded to whole seconds.

Every epoch makes its own batches: records are shuffled, sorted into buckets of similar length, cut
into batches, and the batches shuffled. All of it follows from (seed, epoch), so that an iterator's
state is just a position, and each host of a pod makes its own rows of the same batches. (`packing`
wastes less; buckets are for models that take one record a row.)
"""

import functools
import sys
from collections.abc import Callable

import grain
import numpy as np

from mdmspeech.data.packing.position import CheckedBatches, digest_of
from mdmspeech.data.packing.sharding import Shard, host_rows
from mdmspeech.errors import UserError
from mdmspeech.text import pieces

EPOCHS = 1_000_000  # "endless" for a training run
_BUCKET = 50  # states (1 s of speech): what a batch is padded to


def pieces_then(end: int) -> Callable[[str], list[int]]:
    """A function from a text to the ids of its pieces and `end`, the number of pieces of a shipped
    list (`text.pieces`).
    """
    known = pieces.shipped(end)
    return lambda text: [*known.encode(text), end]


def state_batches(
    source,
    *,
    batch: int,
    seed: int,
    encode_text: Callable,
    ids_per_second: int = 24,
    ids_more: int = 0,
    shard: Shard = (0, 1),
    threads: int = 1,
):
    """Endless Grain iterator of batches padded to whole seconds: id, states float16 [B, T, D],
    states_valid bool [B, T], text int32 [B, N], text_valid bool [B, N]. `encode_text(text) -> ids`;
    texts beyond N = `ids_per_second` x seconds + `ids_more` are cut, which is said once a record.

    batch: rows of all hosts together, of which `shard` (number, count) gets its part.
    """
    lengths, mine = np.asarray(source.counts("states"), np.int64), host_rows(batch, shard)
    told: set[str] = set()

    def assemble(item) -> dict:
        _, numbers = item
        rows = [source[int(i)] for i in numbers[mine]]
        length = -(-int(lengths[numbers].max()) // _BUCKET) * _BUCKET
        most = length * ids_per_second // _BUCKET + ids_more
        out = {
            "id": np.array([row["id"] for row in rows]),
            "states": np.zeros((len(rows), length, rows[0]["states"].shape[1]), np.float16),
            "states_valid": np.zeros((len(rows), length), bool),
            "text": np.zeros((len(rows), most), np.int32),
            "text_valid": np.zeros((len(rows), most), bool),
        }
        for b, row in enumerate(rows):
            ids = encode_text(row["text"])
            if len(ids) > most and row["id"] not in told:
                told.add(row["id"])
                print(
                    (
                        f"{row['id']}: its text has {len(ids)} ids, the batch has room "
                        f"for {most}: the rest is not learnt"
                    ),
                    file=sys.stderr,
                )
            ids = ids[:most]
            out["states"][b, : len(row["states"])] = row["states"]
            out["states_valid"][b, : len(row["states"])] = True
            out["text"][b, : len(ids)] = ids
            out["text_valid"][b, : len(ids)] = True
        return out

    if len(lengths) < batch:
        raise UserError(
            f"{len(lengths)} questions are fewer than one batch of {batch}: lower data.batch"
        )
    plan = BatchPlan(lengths, batch, _BUCKET, seed)
    data = grain.MapDataset.source(plan).map(assemble)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
    batches = iter(data.to_iter_dataset(options))
    return CheckedBatches(batches, digest_of(source, "states"), plan.per_epoch)


class BatchPlan:
    """Which records make up batch i: `plan[i] -> (i, record numbers int [batch])`. What an epoch
    lacks for whole batches, a few records fill that come twice.
    """

    def __init__(
        self, lengths: np.ndarray, batch: int, bucket: int, seed: int, epochs: int = EPOCHS
    ):
        self._buckets, self._batch, self._seed, self._epochs = (
            -(-lengths // bucket),
            batch,
            seed,
            epochs,
        )
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
