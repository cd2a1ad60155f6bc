"""Speech-encoder states, computed once: of the questions the frozen half of stage 1 and most of its
arithmetic, of the answer voice what the codec's semantic head predicts.

`<root>/states/<name>.f16` holds float16 states, one record after another; `<name>.json` tells each
record's id, text, answer, samples and number of states, and mean and standard deviation of every
dimension. Training maps the file into memory and reads whole buckets of similar lengths.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tqdm

from mdmspeech.data.storage.record_store import data_root
from mdmspeech.errors import UserError
from mdmspeech.files import written_whole
from mdmspeech.speech_format import INPUT_RATE

_LEAST_DEVIATION = 1e-4  # of a dimension that hardly changes


def encode_states(
    records,
    encode: Callable,
    path: Path,
    *,
    augment: Callable | None = None,
    batch: int = 8,
    known: Mapping[tuple, np.ndarray] | None = None,
) -> int:
    """Encodes records of 16 kHz speech with `encode(waves_BN, samples_B) -> (states [B, T, D], bool
    [B, T])` into `path`.f16/.json.

    augment: function (wave float32, index) -> wave, or None. Returns the number of states. Rows are
      padded to whole seconds. known: states of an earlier run by `identity`, taken over as they
      are.
    """
    known = known or {}
    fields = [records.fields(i) for i in range(len(records))]
    order = sorted(
        (i for i, record in enumerate(fields) if identity(record) not in known),
        key=lambda i: fields[i]["samples"],
    )
    index: list[dict] = []
    moments = _Moments()
    written = written_whole(path.with_suffix(".json")), written_whole(path.with_suffix(".f16"))
    with (
        written[0] as index_part,
        written[1] as part,
        open(part, "wb") as file,
        tqdm.tqdm(
            total=len(order), desc=f"states of {path.name}", unit="utt", mininterval=5.0
        ) as bar,
    ):

        def keep(record: dict, states_TD: np.ndarray) -> None:
            values = states_TD.astype(np.float16)
            file.write(values.tobytes())
            moments.add(values)
            said = {name: record.get(name, "") for name in ("id", "text", "answer")}
            index.append(said | {"samples": record["samples"], "states": len(values)})

        for record in fields:
            if (states := known.get(identity(record))) is not None:
                keep(record, states)
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
                keep(row, values[: int(real.sum())])
            bar.update(len(rows))
        index_part.write_text(json.dumps(moments.about() | {"records": index}), encoding="utf-8")
    return moments.count


def identity(record: Mapping) -> tuple[str, str, int]:
    """What tells whether states belong to a recording: another text or length, and they do not."""
    return str(record["id"]), str(record.get("text", "")), int(record["samples"])


class _Moments:
    """Sums of all states, for mean and deviation of every dimension."""

    def __init__(self):
        self.count, self._sum, self._squares = 0, np.zeros(0), np.zeros(0)

    def add(self, states_TD: np.ndarray) -> None:
        values = states_TD.astype(np.float64)
        self.count += len(values)
        self._sum = self._sum + values.sum(0) if len(self._sum) else values.sum(0)
        squares = np.square(values).sum(0)
        self._squares = self._squares + squares if len(self._squares) else squares

    def about(self) -> dict:
        """{width, mean, deviation}, JSON-ready."""
        mean = self._sum / max(self.count, 1)
        deviation = np.sqrt(np.maximum(self._squares / max(self.count, 1) - mean**2, 0.0))
        return {"width": len(mean), "mean": mean.tolist(), "deviation": deviation.tolist()}


class StateStore:
    """Random access: `store[i]` -> {id, text, answer, states float16 [T, D]}. make: the command that
    makes it, for messages.
    """

    def __init__(self, root: str | Path | None, name: str, make: str = "mdmspeech data --states"):
        path = data_root(root) / "states" / name
        if not path.with_suffix(".f16").is_file():
            raise UserError(f"{path}.f16 is missing; make it with: {make}")
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.records, self.about = about["records"], about
        self.ends = np.cumsum([record["states"] for record in self.records])
        self.states = np.memmap(path.with_suffix(".f16"), np.float16, "r").reshape(
            -1, about["width"]
        )
        if len(self.states) != self.ends[-1]:
            raise UserError(
                f"{path}.f16 does not fit its index; delete both and make them again with: {make}"
            )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict:
        return {
            **self.records[i],
            "states": self.states[self.ends[i] - self.records[i]["states"] : self.ends[i]],
        }

    def known(self) -> dict[tuple, np.ndarray]:
        """All states by the `identity` of their recordings."""
        return {identity(record): self[i]["states"] for i, record in enumerate(self.records)}


def speech_name(part: str, split: str) -> str:
    """The store of a part of the answer voice."""
    return f"speech_{part}_{split}"


class SpeechStates:
    """Whitened states of recordings: `find(record)` -> float16 [T, D], or None where there are none.

    Every dimension has mean 0 and deviation 1 over the training records of the parts. `make` is the
    command that makes them. Raises `UserError` when a part has no store.
    """

    def __init__(self, root: str | Path | None, parts: Sequence[str], split: str):
        self.make = make = f"mdmspeech data --states --parts {','.join(parts)}"
        self._states: dict[tuple, np.ndarray] = {}
        for part in parts:
            self._states |= StateStore(root, speech_name(part, split), make).known()
        trained = [StateStore(root, speech_name(part, "train"), make) for part in parts]
        counts = np.array([len(store.states) for store in trained], np.float64)
        means, deviations = (
            np.array([store.about[name] for store in trained]) for name in ("mean", "deviation")
        )
        share = (counts / counts.sum())[:, None]
        mean = (share * means).sum(0)
        variance = (share * (deviations**2 + means**2)).sum(0) - mean**2
        self._mean = mean.astype(np.float32)
        self._deviation = np.sqrt(np.maximum(variance, _LEAST_DEVIATION**2)).astype(np.float32)
        self.width = len(mean)

    def __contains__(self, record: Mapping) -> bool:
        return identity(record) in self._states

    def find(self, record: Mapping) -> np.ndarray | None:
        """The states of a record."""
        states = self._states.get(identity(record))
        if states is None:
            return None
        return ((states.astype(np.float32) - self._mean) / self._deviation).astype(np.float16)
