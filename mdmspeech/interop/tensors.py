"""Tensors on disk or in a bucket as safetensors files: opened by their headers alone, read and
written a piece at a time. No pickle anywhere.

The safetensors library checks each header against its file (sizes, offsets, overlaps) before a
tensor is handed out, so that no shape in a file can make us allocate more than the file holds.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.files import written_whole
from mdmspeech.interop.pytorch import read_pytorch

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_PYTORCH = "pytorch_model.bin"
_LARGEST_JSON = 256 * 2**20  # bytes
_PIECE = 16 * 2**20  # bytes read at a time
_DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64,
    "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


class Stored(Protocol):
    """A tensor that may still be on disk. A numpy array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Rows of the first axis; reads only these."""

    def __array__(self) -> np.ndarray:
        """All of it."""


class OnDisk:
    """One tensor of a safetensors file; every access opens the file anew, so that what was read
    before is not kept mapped.
    """

    def __init__(self, file: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.file, self.name, self.shape, self.dtype = file, name, shape, dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        with _opened(self.file) as handle:
            return handle.get_slice(self.name)[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with _opened(self.file) as handle:
            value = handle.get_tensor(self.name)
        return value if dtype is None else value.astype(dtype, copy=False)


class _ByRange(OnDisk):
    """A tensor read by its place in the file: 8-bit floats, which the safetensors library checks like
    any other but does not hand to numpy, and what is still in a bucket.

    start: of its bytes in the file. url: of the object that has them, if not the file itself.
    """

    def __init__(
        self, file: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, start: int, url: str
    ) -> None:
        super().__init__(file, name, shape, dtype)
        self._start, self._url = start, url

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        return self._read(first * row, max(last - first, 0) * row).reshape(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self._read(0, math.prod(self.shape)).reshape(self.shape)
        return value if dtype is None else value.astype(dtype, copy=False)

    def _read(self, first: int, count: int) -> np.ndarray:
        """`count` elements from the `first` on."""
        start, size = self._start + first * self.dtype.itemsize, count * self.dtype.itemsize
        data = remote.read_range(self._url or self.file, start, start + size)
        return np.frombuffer(data, self.dtype)


class Unread:
    """A tensor that is made when it is read, whole, and not kept.

    Args:
      make: returns it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, make: Callable[[], np.ndarray]) -> None:
        self.shape, self.dtype, self._make = shape, np.dtype(dtype), make

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._make()[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self._make()
        return value if dtype is None else value.astype(dtype, copy=False)


def read_all(tree: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts with every `Unread` in them read."""
    return {
        name: read_all(value)
        if isinstance(value, dict)
        else np.asarray(value)
        if isinstance(value, Unread)
        else value
        for name, value in tree.items()
    }


def pieces(
    tensor: Stored, start: int = 0, stop: int | None = None, size: int = _PIECE
) -> Iterator[tuple[int, np.ndarray]]:
    """Rows start..stop of a tensor, about `size` bytes at a time: (index of the first row, rows)."""
    stop = tensor.shape[0] if stop is None else stop
    step = max(size // max(math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize, 1), 1)
    for row in range(start, stop, step):
        yield row, tensor[row : min(row + step, stop)]


def open_tensors(path: str | os.PathLike) -> dict[str, Stored]:
    """All tensors of one safetensors file, or of a folder, not read yet.

    A folder is sharded with an index, has one model.safetensors, or else every *.safetensors in it
    counts. Without any, a pytorch_model.bin is read, by `interop.pytorch`, which executes nothing.

    Raises:
      UserError: nothing there; a file that is missing, truncated or no safetensors; an index that
        names files outside the folder or disagrees with them; a tensor in two files.
    """
    path = Path(path)
    files, expected = _files(path)
    if not files:
        return dict(read_pytorch(path / _PYTORCH))
    tensors: dict[str, Stored] = {}
    for file in files:
        for name, tensor in _headers(file).items():
            if name in tensors:
                raise UserError(
                    f"{path}: {name} is in {file.name} and in another file; remove "
                    "the files that are not of this model"
                )
            tensors[name] = tensor
    wrong = [
        n
        for n in {**expected, **tensors}
        if n not in tensors or (expected and expected.get(n) != _file_of(tensors[n]))
    ]
    if expected and wrong:
        raise UserError(
            f"{path / INDEX} and its files disagree about {len(wrong)} tensors "
            f"({', '.join(wrong[:4])}); fetch the folder again"
        )
    return tensors


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """`open_tensors`, read whole. bfloat16 arrives as `ml_dtypes.bfloat16`."""
    return {name: np.asarray(tensor) for name, tensor in open_tensors(path).items()}


def map_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Tensors of one safetensors file as parts of its memory map: read from the disk when they are
    used, shared by all processes that use them, read-only. UserError as `open_tensors`.
    """
    path = Path(path)
    headers, starts = _headers(path), _starts(path)
    whole = np.memmap(path, np.uint8, "r")
    return {
        name: whole[starts[name] :][: math.prod(tensor.shape) * tensor.dtype.itemsize]
        .view(tensor.dtype)
        .reshape(tensor.shape)
        for name, tensor in headers.items()
    }


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The string metadata of one safetensors file ({} if it has none)."""
    with _opened(Path(path)) as handle:
        return dict(handle.metadata() or {})


def write_tensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Stored],
    metadata: Mapping[str, str] | None = None,
    dtype: Any = None,
    progress: Callable[[int], object] | None = None,
    align: int = 8,
) -> None:
    """Writes one safetensors file, a piece of a tensor at a time, replacing an older one only when
    it is complete.

    Args:
      dtype: of the stored tensors; default: each tensor's own. progress: told of every number of
        bytes written. align: the first tensor begins at a multiple of so many bytes.
    """
    path, at, head = Path(path), 0, {}
    for name, tensor in tensors.items():
        kind = np.dtype(tensor.dtype if dtype is None else dtype)
        size = math.prod(tensor.shape) * kind.itemsize
        head[name] = {
            "dtype": _NAMES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps({**({"__metadata__": dict(metadata)} if metadata else {}), **head}).encode()
    text += b" " * (-(8 + len(text)) % align)
    with written_whole(path) as part, open(part, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            tensor = np.asarray(tensor) if isinstance(tensor, Unread) else tensor
            blocks = pieces(tensor) if tensor.shape else [(0, np.asarray(tensor))]
            for _, block in blocks:
                block = _narrowed(block, np.dtype(tensor.dtype if dtype is None else dtype), name)
                file.write(block.reshape(-1).view(np.uint8).data)
                if progress:
                    progress(block.nbytes)


def _narrowed(block: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(block, dtype)
    if dtype == np.float16 and block.dtype != dtype and not np.isfinite(out).all():
        raise UserError(f"{name} has values that float16 cannot hold; store bfloat16")
    return out


def check_sha256(data: bytes | memoryview, expected: str, name: str) -> None:
    """Raises UserError unless the SHA-256 of `data` is `expected` (hex)."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise UserError(
            f"{name} has SHA-256 {found[:12]}..., expected {expected[:12]}...; "
            "reinstall or fetch it again"
        )


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """One JSON object; a UserError if the file is missing, broken or holds something else."""
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise UserError(
                f"{path} has {path.stat().st_size:,} bytes, more than any such file "
                "needs; fetch it from its official place"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give a complete model folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); fetch or copy it again") from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__} instead of an object; "
            "fetch it from its official place"
        )
    return value


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, "numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is corrupt or no safetensors file ({error}); fetch or copy it again"
        ) from error


def _headers(file: Path) -> dict[str, OnDisk]:
    with _opened(file) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118, a safetensors handle is no dict
        kinds = {name: part.get_dtype() for name, part in slices.items()}
        if unknown := sorted(set(kinds.values()) - _DTYPES.keys()):
            raise UserError(
                f"{file} has tensors of type {', '.join(unknown)}, which is not "
                "known here; give it in float32 or bfloat16"
            )
        shapes = {
            name: (tuple(part.get_shape()), np.dtype(_DTYPES[kinds[name]]))
            for name, part in slices.items()
        }
    url = remote.hole(file)
    by_range = [name for name, kind in kinds.items() if url or kind.startswith("F8")]
    starts = _starts(file) if by_range else {}
    return {
        name: _ByRange(file, name, *shapes[name], starts[name], url)
        if name in by_range
        else OnDisk(file, name, *shapes[name])
        for name in kinds
    }


def _starts(file: Path) -> dict[str, int]:
    """Where the bytes of each tensor begin, in a file whose header has been checked."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        head = json.loads(opened.read(length))
    return {
        name: 8 + length + about["data_offsets"][0]
        for name, about in head.items()
        if name != "__metadata__"
    }


def _file_of(tensor: Stored) -> str:
    return tensor.file.name if isinstance(tensor, OnDisk) else ""


def _files(path: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that hold the tensors, and, where an index says it, which one holds each."""
    if path.is_file():
        return [path], {}
    if (path / INDEX).exists():
        where = read_json(path / INDEX).get("weight_map")
        if (
            not isinstance(where, dict)
            or not where
            or not all(isinstance(name, str) for name in where.values())
        ):
            raise UserError(
                f"{path / INDEX} has no weight_map from tensors to files; fetch it again"
            )
        names = sorted(set(where.values()))
        # An index comes with the download.
        # A name that leads elsewhere would read any file of this machine.
        if outside := [
            name
            for name in names
            if Path(name).name != name or "\\" in name or not name.endswith(".safetensors")
        ]:
            raise UserError(
                f"{path / INDEX} names {outside[0]!r:.80}, which is no "
                ".safetensors file beside it; get it from its official place"
            )
        if missing := [name for name in names if not (path / name).is_file()]:
            raise UserError(
                f"{path} lacks {len(missing)} of its {len(names)} files "
                f"({', '.join(missing[:4])}); fetch them"
            )
        return [path / name for name in names], where
    # A folder with both is no accident: some have the same weights once more, in another precision.
    if (path / WHOLE).exists():
        return [path / WHOLE], {}
    files = sorted(path.glob("*.safetensors"))
    if not files and not (path / _PYTORCH).is_file():
        pickles = sorted(file.name for file in path.glob("*.bin*"))
        told = (
            f"; it has {pickles[0]}: save it again with safe_serialization=True" if pickles else ""
        )
        raise UserError(
            f"{path} has no .safetensors file; give a model folder with safetensors weights{told}"
        )
    return files, {}
