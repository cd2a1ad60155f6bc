"""Prepares and opens the datasets: `prepare(kind, source, folder)` writes ArrayRecord files,
`open_dataset(kind, folder, split)` reads them at random.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

from mdmspeech.data.datasets.builder import ExampleSource, RecordBuilder
from mdmspeech.data.storage.record_store import Record, RecordStore
from mdmspeech.errors import UserError

KINDS = ("speech", "questions")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote: examples by split, and a line for every record left out."""

    examples: Mapping[str, int]
    problems: Sequence[str]


def prepare(
    kind: str, source: ExampleSource, folder: str | os.PathLike, *, strict: bool = False
) -> Prepared:
    """Writes the dataset anew into `folder`. Raises `UserError` when no record is usable, or at the
    first bad one under `strict`.
    """
    builder = _builder(kind, folder, source=source, strict=strict)
    shutil.rmtree(builder.data_path, ignore_errors=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download; there is none
            builder.download_and_prepare()
    except AssertionError as error:  # how TFDS says that a split has no example
        problems = (
            f"; the first of {len(builder.problems)} bad records: {builder.problems[0]}"
            if builder.problems
            else ""
        )
        raise UserError(
            f"no usable record for {folder} ({_first_line(error)}){problems}"
        ) from error
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    return Prepared(counts, tuple(builder.problems))


def open_dataset(kind: str, folder: str | os.PathLike, split: str) -> "Dataset":
    """A prepared split; `len` and `[i] -> record`. Raises `UserError` when it has not been prepared."""
    builder = _builder(kind, folder)
    if split not in (builder.info.splits or {}):
        raise UserError(
            f"{folder} has no {kind} split {split!r} (it has: "
            f"{', '.join(builder.info.splits or {}) or 'nothing'}); make it with: mdmspeech data"
        )
    return Dataset(builder.as_data_source(split))


class Dataset:
    """Random access to a prepared split: texts as str, arrays as numpy arrays, numbers as int."""

    def __init__(self, source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Record:
        return {name: _plain(value) for name, value in self._source[i].items()}


class RawSource:
    """The raw store of some parts as an `ExampleSource`, for making the datasets of the corpus itself."""

    def __init__(self, folders: Sequence[str | os.PathLike]):
        self._records = [
            (store, i) for store in map(RecordStore, folders) for i in range(len(store))
        ]

    def splits(self) -> dict[str, list[int]]:
        """By the records' `split` field."""
        found: dict[str, list[int]] = {}
        for number, (store, i) in enumerate(self._records):
            found.setdefault(store.fields[i].get("split", "train"), []).append(number)
        return found

    def example(self, number: int) -> Record:
        """The raw record; the store itself names a truncated file."""
        store, i = self._records[number]
        return store[i]


def _builder(kind: str, folder: str | os.PathLike, **arguments) -> RecordBuilder:
    if kind not in KINDS:
        raise UserError(f"there is no dataset kind {kind!r}; known: {', '.join(KINDS)}")
    if kind == "speech":
        from mdmspeech.data.datasets.speech.speech_dataset_builder import Builder
    else:
        from mdmspeech.data.datasets.questions.questions_dataset_builder import Builder
    return Builder(data_dir=pathlib.Path(folder), **arguments)


def _plain(value):
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return (
        value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
