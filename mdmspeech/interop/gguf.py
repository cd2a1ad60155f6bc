"""GGUF files (llama.cpp's format, version 2 and 3) read with numpy: metadata, and tensors
dequantised to float32 when they are asked for.

The header and the simple quantisations are read by this module rather than by the `gguf` package,
which needs 4 s for a 135 M model where this needs under 1 s; the package dequantises all others
(Q4_K, Q6_K, ...). Format: ggml's docs/gguf.md; block layouts: ggml-quants.
"""

import math
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from mdmspeech.errors import UserError

# as the files' names say it
READ = (
    "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S, Q3_K_M, Q2_K, "
    "Q5_0, Q4_0, IQ4_XS, ..."
)
_SCALARS = dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"))) | {
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
_MOST_AXES = 8


class GGUF:
    """An opened file: `metadata` (plain Python values) and `tensors` by name, not read yet."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as file:
                self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._at = 0
            self._read_header()
        except FileNotFoundError as error:
            raise UserError(f"{self.path} does not exist; check the path") from error
        except (
            struct.error,
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            RecursionError,
            OSError,
        ) as error:
            raise UserError(
                f"{self.path} is truncated or no GGUF file ({error}); fetch it again"
            ) from error

    def _read_header(self) -> None:
        magic, version = bytes(self.data[:4]), struct.unpack_from("<I", self.data, 4)[0]
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r} version {version}")
        self._at = 8
        num_tensors, num_fields = self._take("<u8"), self._take("<u8")
        self.metadata: dict[str, Any] = {
            self._string(): self._value(self._take("<u4")) for _ in range(num_fields)
        }
        entries = {}
        for _ in range(num_tensors):
            name = self._string()
            axes = self._take("<u4")
            if axes > _MOST_AXES:
                raise ValueError(f"{name:.80} has {axes} axes")
            shape = tuple(self._take("<u8") for _ in range(axes))[::-1]  # stored fastest axis first
            entries[name] = (shape, self._take("<u4"), self._take("<u8"))
        alignment = self.metadata.get("general.alignment", 32)
        base = -(-self._at // alignment) * alignment
        self.tensors = {
            name: Quantised(self, name, shape, kind, base + offset)
            for name, (shape, kind, offset) in entries.items()
        }

    def _take(self, dtype: str) -> Any:
        value = np.frombuffer(self.data, dtype, 1, self._at)[0].item()
        self._at += np.dtype(dtype).itemsize
        return value

    def _string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self._at)
        start = self._at + 8
        if start + length > len(self.data):
            raise ValueError("a string runs past the end")
        self._at = start + length
        return str(self.data[start : self._at], "utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._take(_SCALARS[kind])
        kind, count = self._take("<u4"), self._take("<u8")
        if kind in (_STRING, _ARRAY):
            return [self._value(kind) for _ in range(count)]
        values = np.frombuffer(self.data, _SCALARS[kind], count, self._at)
        self._at += values.nbytes
        return values.tolist()


class Quantised:
    """One tensor, rows first ([out, in] for a linear layer), float32 when it is read.

    Raises:
      UserError: unknown quantisation, sizes that it does not allow, or a file that ends inside the
        tensor; nothing is allocated before.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, file: GGUF, name: str, shape: tuple[int, ...], kind: int, start: int
    ) -> None:
        self.shape, self._data, self._start = shape, file.data, start
        self._per_block, self._block_bytes, self._dequantise = _quantisation(
            kind, f"{file.path}: {name}"
        )
        count = math.prod(shape)
        if shape and shape[-1] % self._per_block:
            raise UserError(
                f"{file.path}: rows of {name} have {shape[-1]} values, which "
                f"are not whole blocks of {self._per_block}; fetch it again"
            )
        if start + count // self._per_block * self._block_bytes > len(file.data):
            raise UserError(f"{file.path} is truncated inside {name}; fetch it again")

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        return self._read(math.prod(self.shape[1:]), first, last).reshape(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self._read(math.prod(self.shape), 0, 1).reshape(self.shape)
        return value if dtype is None else value.astype(dtype, copy=False)

    def _read(self, row: int, first: int, last: int) -> np.ndarray:
        row_bytes = row // self._per_block * self._block_bytes
        blocks = np.frombuffer(
            self._data, np.uint8, (last - first) * row_bytes, self._start + first * row_bytes
        )
        return self._dequantise(blocks.reshape(-1, self._block_bytes))


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 stored at byte `at` of every block, as float32 [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(blocks: np.ndarray, at: int) -> np.ndarray:
    """32 four-bit values a block: the low halves of 16 bytes, then the high halves."""
    packed = blocks[:, at : at + 16]
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    values = _nibbles(blocks, 4)
    values *= _half(blocks, 0)
    values += _half(blocks, 2)
    return values


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    values *= _half(blocks, 0)
    return values


def _bf16(blocks: np.ndarray) -> np.ndarray:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


# type id -> (values a block, bytes a block, function of uint8 [blocks, bytes])
_DEQUANTISERS: dict[int, tuple[int, int, Callable[[np.ndarray], np.ndarray]]] = {
    0: (1, 4, lambda blocks: blocks.view("<f4").astype(np.float32)),
    1: (1, 2, lambda blocks: blocks.view("<f2").astype(np.float32)),
    2: (32, 18, lambda blocks: (_nibbles(blocks, 2) - 8) * _half(blocks, 0)),
    3: (32, 20, _q4_1),
    8: (32, 34, _q8_0),
    30: (1, 2, _bf16),
}


def _quantisation(kind: int, name: str) -> tuple[int, int, Callable[[np.ndarray], np.ndarray]]:
    """(values a block, bytes a block, function of uint8 [blocks, bytes] -> float32) of a type id."""
    if kind in _DEQUANTISERS:
        return _DEQUANTISERS[kind]
    import gguf  # only here: it needs half a second

    try:
        known = gguf.GGMLQuantizationType(kind)
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[known]
        gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), known)
    except (ValueError, KeyError, NotImplementedError) as error:
        known_as = next((f" ({t.name})" for t in gguf.GGMLQuantizationType if t.value == kind), "")
        raise UserError(
            f"{name} has quantisation {kind}{known_as}, which is not read here; take another file "
            f"of the same model ({READ}), the model's Hugging Face folder, or make one with "
            "llama.cpp: llama-quantize --allow-requantize FILE.gguf NEW.gguf Q8_0"
        ) from error
    return per_block, block_bytes, lambda blocks: gguf.quants.dequantize(blocks, known)
