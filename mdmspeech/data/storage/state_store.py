"""Speech-encoder states of the questions, computed once: the frozen half of stage 1, and most of
its arithmetic.

`<root>/states/<name>.f16` holds float16 states, one record after another; `<name>.json` tells each
record's id, text, answer and number of states. Training maps the file into memory and reads whole
buckets of similar lengths.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tqdm

from mdmspeech.data.storage.record_store import data_root
from mdmspeech.errors import UserError
from mdmspeech.files import written_whole
from mdmspeech.speech_format import INPUT_RATE


def encode_states(
    records, encode: Callable, path: Path, *, augment: Callable | None = None, batch: int = 8
) -> int:
    """Encodes records of 16 kHz speech with `encode(waves_BN, samples_B) -> (states [B, T, D], bool
    [B, T])` into `path`.f16/.json.

    augment: function (wave float32, index) -> wave, or None. Returns the number of states. Rows are
      padded to whole seconds.
    """
    order = sorted(range(len(records)), key=lambda i: records.fields(i)["samples"])
    index, total = [], 0
    written = written_whole(path.with_suffix(".json")), written_whole(path.with_suffix(".f16"))
    with (
        written[0] as index_part,
        written[1] as part,
        open(part, "wb") as file,
        tqdm.tqdm(
            total=len(order), desc=f"states of {path.name}", unit="utt", mininterval=5.0
        ) as bar,
    ):
        for start in range(0, len(order), batch):
            rows = [records[i] for i in order[start : start + batch]]
            waves = [np.asarray(row["audio"], np.float32) / 32768.0 for row in rows]
            if augment is not None:
                waves = [augment(wave, start + k) for k, wave in enumerate(waves)]
            samples = np.zeros(batch, np.int32)
            samples[: len(waves)] = [len(wave) for wave in waves]
            padded = np.zeros(
                (batch, -(-int(samples.max()) // INPUT_RATE) * INPUT_RATE), np.float32
            )
            for row, wave in zip(padded, waves, strict=False):
                row[: len(wave)] = wave
            states, valid = map(np.asarray, encode(padded, samples))
            for row, values, real in zip(rows, states, valid, strict=False):
                count = int(real.sum())
                file.write(values[:count].astype(np.float16).tobytes())
                index.append(
                    {
                        "id": row["id"],
                        "text": row["text"],
                        "answer": row.get("answer", ""),
                        "states": count,
                    }
                )
                total += count
            bar.update(len(rows))
        index_part.write_text(
            json.dumps({"width": int(states.shape[-1]), "records": index}), encoding="utf-8"
        )
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
        self._states = np.memmap(path.with_suffix(".f16"), np.float16, "r").reshape(
            -1, about["width"]
        )
        if len(self._states) != self.ends[-1]:
            raise UserError(
                f"{path}.f16 does not fit its index; delete both and make them "
                "again with: mdmspeech data --states"
            )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict:
        return {
            **self.records[i],
            "states": self._states[self.ends[i] - self.records[i]["states"] : self.ends[i]],
        }
