"""Columns beside the shards: what packing and bucketing must know of every record, without reading
a record.

    index-<split>.safetensors   a few integers a record (lengths, sampling rate), and about the
                                dataset: its shards with their checksums, its codec, its licence
    texts-<split>.safetensors   its id and texts, for those who need them before they read it

Both are mapped into memory and read when they are asked for: five million records of a Talker take
60 MB.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from mdmspeech.errors import UserError

_DTYPES = {"I64": np.int64, "I32": np.int32, "U32": np.uint32, "U8": np.uint8}
_ABOUT = "about"


class Columns:
    """The columns of a file, mapped into memory. UserError for a file that is none."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if not 0 < size <= self.path.stat().st_size - 8:
                    raise ValueError("no header")
                header = json.loads(file.read(size))
            self.about: dict[str, Any] = json.loads(header.pop("__metadata__")[_ABOUT])
            self._where = {
                name: (_DTYPES[x["dtype"]], x["shape"][0], 8 + size + x["data_offsets"][0])
                for name, x in header.items()
            }
            longest = max((8 + size + x["data_offsets"][1] for x in header.values()), default=0)
            if longest > self.path.stat().st_size:
                raise ValueError("it is cut")
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise UserError(
                f"{path} is cut or damaged ({error}); make the dataset again with: "
                "mdmspeech data --parts datasets"
            ) from error
        self._bytes = np.memmap(self.path, np.uint8, "r")  # open: the path may go, see `local_copy`

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, size, offset = self._where[name]
        return self._bytes[offset : offset + size * np.dtype(dtype).itemsize].view(dtype)


def write_columns(
    path: str | os.PathLike, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Writes a file of `Columns`."""
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(values) for name, values in columns.items()},
        os.fspath(path),
        metadata={_ABOUT: json.dumps(about)},
    )


class Texts:
    """Texts of the records of a dataset: `texts["text", i]`."""

    def __init__(self, columns: Columns):
        self._columns = columns

    def __getitem__(self, key: tuple[str, int]) -> str:
        name, i = key
        if name not in self._columns:
            return ""
        ends = self._columns[f"{name}_ends"]
        first = int(ends[i - 1]) if i else 0
        return self._columns[name][first : int(ends[i])].tobytes().decode("utf-8")


def text_columns(texts: Mapping[str, Sequence[bytes]]) -> dict[str, np.ndarray]:
    """The columns of `Texts`; a text that no record has takes no room."""
    columns = {}
    for name, values in texts.items():
        if any(values):
            columns[name] = np.frombuffer(b"".join(values), np.uint8)
            columns[f"{name}_ends"] = np.cumsum([len(v) for v in values], dtype=np.int64)
    return columns


class ShardMap:
    """Which shard a record is in. ends: records in it and those before, of each shard."""

    def __init__(self, counts: Iterable[int]):
        self._ends = np.cumsum([0, *counts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(shard, place in it) of each record, int64 [N]. IndexError beyond the last record."""
        wanted = np.asarray(numbers, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"record {wanted.max()} of {len(self)}")
        shard = np.searchsorted(self._ends, wanted, side="right") - 1
        return shard, wanted - self._ends[shard]
