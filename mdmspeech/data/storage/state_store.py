"""Speech-encoder states of the questions, computed once: the frozen half of stage 1, and most of its arithmetic.

`<root>/states/<name>.f16` holds float16 states, one record after another; `<name>.json` tells each record's id, text, answer and number of states.
Training maps the file into memory and reads whole buckets of similar lengths.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import grain
import numpy as np
import tqdm

from mdmspeech.data.packing.sharding import Shard, host_rows
from mdmspeech.data.pipelines.bucketed import BatchPlan
from mdmspeech.data.storage.record_store import data_root
from mdmspeech.errors import UserError
from mdmspeech.files import written_whole
from mdmspeech.speech_format import INPUT_RATE
from mdmspeech.text import pieces

_BUCKET = 50  # states (1 s of speech): what a batch is padded to


def encode_states(records, encode: Callable, path: Path, *, augment: Callable | None = None, batch: int = 8) -> int:
    """Encodes records of 16 kHz speech with `encode(waves_BN, samples_B) -> (states [B, T, D], bool [B, T])` into `path`.f16/.json.

    augment: function (wave float32, index) -> wave, or None. Returns the number of states. Rows are padded to whole seconds.
    """
    order = sorted(range(len(records)), key=lambda i: records.fields(i)["samples"])
    index, total = [], 0
    written = written_whole(path.with_suffix(".json")), written_whole(path.with_suffix(".f16"))
    with (
        written[0] as index_part,
        written[1] as part,
        open(part, "wb") as file,
        tqdm.tqdm(total=len(order), desc=f"states of {path.name}", unit="utt", mininterval=5.0) as bar,
    ):
        for start in range(0, len(order), batch):
            rows = [records[i] for i in order[start : start + batch]]
            waves = [np.asarray(row["audio"], np.float32) / 32768.0 for row in rows]
            if augment is not None:
                waves = [augment(wave, start + k) for k, wave in enumerate(waves)]
            samples = np.zeros(batch, np.int32)
            samples[: len(waves)] = [len(wave) for wave in waves]
            padded = np.zeros((batch, -(-int(samples.max()) // INPUT_RATE) * INPUT_RATE), np.float32)
            for row, wave in zip(padded, waves, strict=False):
                row[: len(wave)] = wave
            states, valid = map(np.asarray, encode(padded, samples))
            for row, values, real in zip(rows, states, valid, strict=False):
                count = int(real.sum())
                file.write(values[:count].astype(np.float16).tobytes())
                index.append({"id": row["id"], "text": row["text"], "answer": row.get("answer", ""), "states": count})
                total += count
            bar.update(len(rows))
        index_part.write_text(json.dumps({"width": int(states.shape[-1]), "records": index}), encoding="utf-8")
    return total


class StateStore:
    """Random access: `store[i]` -> {id, text, answer, states float16 [T, D]}."""

    def __init__(self, root: str | Path | None, name: str):
        path = data_root(root) / "states" / name
        if not path.with_suffix(".f16").is_file():
            raise UserError(f"{path}.f16 is missing; make it with: mdmspeech data --states")
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.records = about["records"]
        self.ends = np.cumsum([record["states"] for record in self.records])
        self._states = np.memmap(path.with_suffix(".f16"), np.float16, "r").reshape(-1, about["width"])
        if len(self._states) != self.ends[-1]:
            raise UserError(f"{path}.f16 does not fit its index; delete both and make them again with: mdmspeech data --states")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict:
        return {**self.records[i], "states": self._states[self.ends[i] - self.records[i]["states"] : self.ends[i]]}


def pieces_then(end: int) -> Callable[[str], list[int]]:
    """A function from a text to the ids of its pieces (`text.pieces`) and `end`."""
    known = pieces.shipped()
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
    """Endless Grain iterator of batches padded to whole seconds: id, states float16 [B, T, D], states_valid bool [B, T], text int32 [B, N],
    text_valid bool [B, N]. `encode_text(text) -> ids`; texts beyond N = `ids_per_second` x seconds + `ids_more` are cut, which is said once a record.

    batch: rows of all hosts together, of which `shard` (number, count) gets its part.
    """
    lengths, mine = np.array([record["states"] for record in source.records]), host_rows(batch, shard)
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
                print(f"{row['id']}: its text has {len(ids)} ids, the batch has room for {most}: the rest is not learnt", file=sys.stderr)
            ids = ids[:most]
            out["states"][b, : len(row["states"])] = row["states"]
            out["states_valid"][b, : len(row["states"])] = True
            out["text"][b, : len(ids)] = ids
            out["text_valid"][b, : len(ids)] = True
        return out

    if len(lengths) < batch:
        raise UserError(f"{len(lengths)} questions are fewer than one batch of {batch}: lower data.batch")
    data = grain.MapDataset.source(BatchPlan(lengths, batch, _BUCKET, seed)).map(assemble)
    return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)))
