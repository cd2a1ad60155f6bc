"""Makes the datasets: from the raw store, from recordings and a codec, from recordings and a speech
encoder.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from mdmspeech.data.datasets.corpus import Root, folder_of, is_there, open_part, splits_of
from mdmspeech.data.datasets.features import KINDS
from mdmspeech.data.datasets.reader import Subset
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.storage.record_store import RecordStore, data_root, shard_names
from mdmspeech.data.storage.splits import SPLITS, assign
from mdmspeech.speech_format import INPUT_RATE

HELD_OUT = 200  # recordings of each part that no training stage sees
_ENCODERS = ("encoder", "tokenizer")  # the part of a codec that makes its tokens, by family


def recordings_from_raw(
    root: Root, part: str, licences: Mapping[str, str] | None = None
) -> dict[str, int]:
    """`<root>/raw/<part>`, the crash-safe store that recordings are first put into, as a dataset;
    nothing is done if that has been made from the same shards. Returns the records of each split.

    A part whose records all say their split keeps them, but for the validation records, which are
    carved out of the training ones by their texts (`storage.splits`) unless there are some.
    licences: engine -> licence.
    """
    folder = data_root(root) / "raw" / part
    made_from = hashlib.sha256("\n".join(shard_names(folder)).encode()).hexdigest()[:16]
    if is_there(root, "recordings", part):
        known = {
            s: open_part(root, "recordings", part, s) for s in splits_of(root, "recordings", part)
        }
        if all(dataset.about.get("made_from") == made_from for dataset in known.values()):
            return {split: len(dataset) for split, dataset in known.items()}
    store = RecordStore(folder)
    splits = _splits(store)

    def records(split: str) -> Iterator[dict[str, Any]]:
        for i in (i for i, one in enumerate(splits) if one == split):
            record = store[i]
            engine = record.get("engine", "")
            yield {
                "language": "en",
                "licence": (licences or {}).get(engine, ""),
                **record,
                "split": split,
            }

    return write_dataset(
        folder_of(root, "recordings", part),
        "recordings",
        {split: records(split) for split in SPLITS},
        about={"part": part, "made_from": made_from},
    )


def _splits(store: RecordStore) -> list[str]:
    """Of each record; one without a `split` is training data except every n-th."""
    every = max(len(store) // HELD_OUT, 2)
    said = [
        record.get("split", "test" if i % every == 0 else "train")
        for i, record in enumerate(store.fields)
    ]
    if store.fields[0]["rate"] == INPUT_RATE and "val" in said:
        return said  # questions: the corpus's own bring theirs
    return assign([record.get("text") or str(record["id"]) for record in store.fields], said)


def fingerprint(params) -> str:
    """Short digest of the parameters that make a codec's tokens."""
    return fingerprint_of(next(params[name] for name in _ENCODERS if name in params))


def fingerprint_of(params) -> str:
    """Short digest of parameters."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:12]


def write_tokens(
    folder: str, splits: Mapping[str, Subset], encode: Callable, codec: str, batch: int = 16
) -> int:
    """Encodes every record of {"train": ..., "val": ..., "test": ...} and writes the tokens, in the
    order of their lengths; returns how many there are.

    encode: `Codec.encode`, waves at 24 kHz -> ids. codec: its fingerprint.
    """
    order = [(split, records, i) for split, records in splits.items() for i in range(len(records))]
    samples = np.concatenate([np.asarray(r.counts("samples")) for r in splits.values() if len(r)])
    order = [order[k] for k in np.argsort(samples, kind="stable")]
    made: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    name = Path(folder).parent.name
    with tqdm.tqdm(total=len(order), desc=f"tokens of {name}", unit="utt", mininterval=2.0) as bar:
        for start in range(0, len(order), batch):
            group = order[start : start + batch]
            rows = [records[i] for _, records, i in group]
            for (split, _, _), row, ids in zip(group, rows, _encode(rows, encode), strict=True):
                kept = {name: row[name] for name in KINDS["tokens"] if name in row}
                made[split].append(kept | {"tokens": ids})
            bar.update(len(group))
    made_from = set().union(*(records.about("made_from") for records in splits.values()))
    about = {"part": name, "codec": codec, "made_from": "".join(sorted(map(str, made_from)))}
    write_dataset(folder, "tokens", made, about=about)
    return sum(len(row["tokens"]) for rows in made.values() for row in rows)


def _encode(rows: Sequence[dict], encode: Callable) -> list[np.ndarray]:
    # own recordings bring theirs, see `data.recordings.user`
    if all("tokens" in row for row in rows):
        return [np.asarray(row["tokens"]) for row in rows]
    return encode([np.asarray(row["audio"], np.float32) / 32768 for row in rows])


def write_states(
    folder: str,
    splits: Mapping[str, Any],
    encode: Callable,
    width: int,
    *,
    augment: Mapping[str, Callable] | None = None,
    known: Callable[[Mapping[str, Any]], np.ndarray | None] | None = None,
    batch: int = 8,
) -> dict[str, int]:
    """Encodes records of 16 kHz speech with `encode(waves_BN, samples_B) -> (states [B, T, D], bool
    [B, T])`, in the order of their lengths; returns the number of states of each split.

    width: D. augment: split -> function (wave float32, index) -> wave. known: function of a record's
      fields -> states that are taken as they are, before those that are encoded. Rows are padded to
      whole seconds. The dataset's `about` has mean and deviation of every dimension over each
      split.
    """
    counts = dict.fromkeys(splits, 0)
    about: dict[str, Any] = {}

    def encoded(split: str, records: Any) -> Iterator[dict[str, Any]]:
        moments, change = _Moments(width), (augment or {}).get(split)

        def row(record: Mapping[str, Any], states_TD: np.ndarray) -> dict[str, Any]:
            states = states_TD.astype(np.float16)
            moments.add(states)
            counts[split] += len(states)
            kept = {name: record.get(name, "") for name in ("id", "text", "answer")}
            return {**kept, "samples": record["samples"], "states": states}

        fields = [records.fields(i) for i in range(len(records))]
        left = []
        for i, record in enumerate(fields):
            if known is not None and (states := known(record)) is not None:
                yield row(record, states)
            else:
                left.append(i)
        left.sort(key=lambda i: fields[i]["samples"])
        with tqdm.tqdm(
            total=len(left), desc=f"states of {split}", unit="utt", mininterval=5.0
        ) as bar:
            for start in range(0, len(left), batch):
                numbers = left[start : start + batch]
                waves = [np.asarray(records[i]["audio"], np.float32) / 32768.0 for i in numbers]
                if change is not None:
                    waves = [change(wave, start + k) for k, wave in enumerate(waves)]
                states, valid = map(np.asarray, encode(*_padded(waves, batch)))
                for i, values, real in zip(numbers, states, valid, strict=False):
                    yield row(fields[i], values[: int(real.sum())])
                bar.update(len(numbers))
        about.update(moments.about())

    write_dataset(
        folder,
        "states",
        {split: encoded(split, records) for split, records in splits.items()},
        width=width,
        about=about,
    )
    return counts


class _Moments:
    """Sums of all states, for mean and deviation of every dimension."""

    def __init__(self, width: int):
        self._count, self._sum, self._squares = 0, np.zeros(width), np.zeros(width)

    def add(self, states_TD: np.ndarray) -> None:
        values = states_TD.astype(np.float64)
        self._count += len(values)
        self._sum += values.sum(0)
        self._squares += np.square(values).sum(0)

    def about(self) -> dict[str, list[float]]:
        """{mean, deviation}, JSON-ready."""
        mean = self._sum / max(self._count, 1)
        deviation = np.sqrt(np.maximum(self._squares / max(self._count, 1) - mean**2, 0.0))
        return {"mean": mean.tolist(), "deviation": deviation.tolist()}


def _padded(waves: Sequence[np.ndarray], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """(waves [batch, whole seconds], samples [batch])."""
    samples = np.zeros(batch, np.int32)
    samples[: len(waves)] = [len(wave) for wave in waves]
    padded = np.zeros((batch, -(-int(samples.max()) // INPUT_RATE) * INPUT_RATE), np.float32)
    for row, wave in zip(padded, waves, strict=False):
        row[: len(wave)] = wave
    return padded, samples
