"""Speech-encoder states of the answer voice, by recording: what the codec's semantic head predicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mdmspeech.data.datasets.corpus import Root, is_there, open_part, splits_of
from mdmspeech.data.datasets.reader import Dataset
from mdmspeech.errors import UserError

_LEAST_DEVIATION = 1e-4  # of a dimension that hardly changes
Identity = tuple[str, str, int]


def speech_name(part: str) -> str:
    """The dataset of states of a part."""
    return f"speech_{part}"


def identity(record: Mapping[str, Any]) -> Identity:
    """What tells whether states belong to a recording: another text or length, and they do not."""
    samples = record["samples"] if "samples" in record else len(record["audio"])
    return str(record["id"]), str(record.get("text", "")), int(samples)


def known_states(root: Root, part: str) -> Callable[[Mapping[str, Any]], np.ndarray | None]:
    """A function of a record -> the states that there are of it, or None."""
    name = speech_name(part)
    found = _Found(
        [open_part(root, "states", name, split) for split in splits_of(root, "states", name)]
        if is_there(root, "states", name)
        else []
    )
    return found.find


class _Found:
    """Where the states of each recording are."""

    def __init__(self, datasets: Sequence[Dataset]):
        self._where = {
            identity(dataset.fields(i)): (dataset, i)
            for dataset in datasets
            for i in range(len(dataset))
        }

    def __contains__(self, record: Mapping[str, Any]) -> bool:
        return identity(record) in self._where

    def find(self, record: Mapping[str, Any]) -> np.ndarray | None:
        """The states of a record, float16 [T, D]."""
        if (place := self._where.get(identity(record))) is None:
            return None
        dataset, i = place
        return dataset[i]["states"]


class SpeechStates:
    """Whitened states of recordings: `find(record)` -> float16 [T, D], or None where there are none.

    Every dimension has mean 0 and deviation 1 over the training records of the parts. `make` is the
    command that makes them. Raises `UserError` when a part has none.
    """

    def __init__(self, root: Root, parts: Sequence[str], split: str):
        self.make = f"mdmspeech data --states --parts {','.join(parts)}"
        for part in parts:
            if not is_there(root, "states", speech_name(part)):
                raise UserError(f"there are no states of {part}; make them with: {self.make}")
        names = [speech_name(part) for part in parts]
        trained = [open_part(root, "states", name, "train") for name in names]
        self._found = _Found(
            [
                open_part(root, "states", name, split)
                for name in names
                if split in splits_of(root, "states", name)
            ]
        )
        counts = np.array([int(dataset.counts("states").sum()) for dataset in trained], np.float64)
        means, deviations = (
            np.array([dataset.about[name] for dataset in trained]) for name in ("mean", "deviation")
        )
        share = (counts / counts.sum())[:, None]
        mean = (share * means).sum(0)
        variance = (share * (deviations**2 + means**2)).sum(0) - mean**2
        self._mean = mean.astype(np.float32)
        self._deviation = np.sqrt(np.maximum(variance, _LEAST_DEVIATION**2)).astype(np.float32)
        self.width = len(mean)

    def __contains__(self, record: Mapping[str, Any]) -> bool:
        return record in self._found

    def find(self, record: Mapping[str, Any]) -> np.ndarray | None:
        """The states of a record."""
        if (states := self._found.find(record)) is None:
            return None
        return ((states.astype(np.float32) - self._mean) / self._deviation).astype(np.float16)
