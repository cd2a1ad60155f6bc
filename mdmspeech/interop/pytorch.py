"""Weights out of a PyTorch checkpoint (.pt, .pth, .bin), without PyTorch and without running
anything that the file contains.

`torch.save` writes a zip archive: `<folder>/data.pkl`, a pickle of the state dict, and
`<folder>/data/<key>`, the raw bytes of each storage. The pickle is not given to Python's unpickler;
`pytorch_program.py` follows it and explains why nothing in it can be executed. Sizes are checked,
against the size of the file, before anything is read; no name in the archive is used as a path.
"""

import math
import os
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.interop.pytorch_program import RefusedError, Storage, follow

_LARGEST_PROGRAM = 16 * 2**20  # bytes of data.pkl; 1,000 tensors take 0.2 MB
_LARGEST_NUMBER = 2**48  # of a tensor's offset, sizes and strides
_MOST_AXES = 32
_MOST_NAMES = 1_000_000
_DEEPEST = 8  # mappings inside mappings
# what DistributedDataParallel and torch.compile put in front of all names
_WRAPPERS = ("module.", "_orig_mod.")
_AGAIN = "fetch or copy it again"


def read_pytorch(path: str | os.PathLike, part: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a state dict in a PyTorch checkpoint, by name; read-only, views of one storage
    share its memory.

    A checkpoint may be the state dict itself or hold it in a mapping ({"model": {...}, "epoch": 3},
    also deeper). Left out are numbers and texts beside tensors, the optimizer's state, and a prefix
    that data-parallel or compiled training puts in front of all names. bfloat16 arrives as
    `ml_dtypes.bfloat16`.

    Args:
      part: which mapping, if there are several: its key, "outer/inner" for deeper ones.

    Raises:
      UserError: a file that is truncated, corrupt or no such checkpoint; anything in it that
        weights do not need; no or several state dicts.
    """
    return _unwrapped(_state_dict(_load(path), part, path))


def _load(path: str | os.PathLike) -> Any:
    """The object in the checkpoint, with tensors as arrays."""
    try:
        with zipfile.ZipFile(path) as opened:
            archive = _Archive(opened, os.path.getsize(path))
            return follow(archive.program(), archive.tensor)
    except RefusedError as error:
        raise UserError(f"{path} {error}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is {_no_zip(path)}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); give a PyTorch checkpoint") from error
    except (
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        raise UserError(f"{path} is corrupt ({type(error).__name__}: {error}); {_AGAIN}") from error


def _no_zip(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(b"PK"):
        return f"a truncated or corrupt PyTorch checkpoint; {_AGAIN}"
    if start.startswith(b"\x80"):
        return (
            "in PyTorch's format before version 1.6; load it and save it again with "
            "a newer PyTorch, best as safetensors"
        )
    return f"no PyTorch checkpoint (no zip archive); {_AGAIN}"


class _Archive:
    """The zip archive: names and sizes checked, storages read once."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int):
        self._archive, self._cache, self._truths = archive, {}, set()
        entries = archive.infolist()
        self._sizes = {entry.filename: entry.file_size for entry in entries}
        for name in self._sizes:
            if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
                raise RefusedError(
                    f"has an entry named {name!r:.80}, which leads out of the "
                    "archive; get it from its official place"
                )
        # `orig_filename` is what the file says; zipfile cuts it at a null byte.
        if len(self._sizes) != len(entries) or any(
            entry.orig_filename != entry.filename for entry in entries
        ):
            raise RefusedError("has several entries of one name; get it from its official place")
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries
        ):
            raise RefusedError(
                "has compressed or encrypted entries, which PyTorch does not write; "
                "save it again with torch.save"
            )
        if sum(self._sizes.values()) > file_size:
            raise RefusedError(
                "claims to hold more bytes than it has; get it from its official place"
            )
        programs = [
            name for name in self._sizes if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(programs) != 1:
            raise RefusedError(
                "is a zip archive, but no PyTorch checkpoint (it needs one "
                "data.pkl); give one that torch.save wrote"
            )
        self._folder = programs[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._sizes:
            raise RefusedError(
                "is a TorchScript program; give the weights alone (torch.save of the state_dict)"
            )
        order = f"{self._folder}byteorder"
        if order in self._sizes and archive.read(order) != b"little":
            raise RefusedError("was written on a big-endian machine; save it again on another one")

    def program(self) -> bytes:
        """data.pkl."""
        name = f"{self._folder}data.pkl"
        if self._sizes[name] > _LARGEST_PROGRAM:
            raise RefusedError(
                f"has a data.pkl of {self._sizes[name]:,} bytes, more than weights "
                "need; save the weights alone"
            )
        return self._archive.read(name)

    def tensor(
        self, storage: Storage, dtype: np.dtype, offset: Any, size: Any, stride: Any
    ) -> np.ndarray:
        """A strided view of a storage; offset and strides in elements."""
        if (
            not isinstance(size, tuple)
            or not isinstance(stride, tuple)
            or len(size) != len(stride)
            or len(size) > _MOST_AXES
        ):
            raise RefusedError(f"has a tensor whose size and strides do not fit; {_AGAIN}")
        if any(
            type(number) is not int or not 0 <= number < _LARGEST_NUMBER
            for number in (offset, *size, *stride)
        ):
            raise RefusedError(f"has a tensor with an impossible size, stride or offset; {_AGAIN}")
        data = self._storage(storage)
        if 0 in size:
            return np.zeros(size, dtype)
        # Not more elements than are stored:
        # an expanded view is small in the file and of any size in memory.
        end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if max(math.prod(size), end) * dtype.itemsize > len(data):
            raise RefusedError(
                f"has a tensor of size {list(size)} at {offset} in a storage of "
                f"{len(data):,} bytes; {_AGAIN}"
            )
        if dtype == np.bool_ and storage.key not in self._truths:
            if np.frombuffer(data, np.uint8).max() > 1:
                raise RefusedError(f"has truth values other than 0 and 1; {_AGAIN}")
            self._truths.add(storage.key)
        steps = tuple(
            dtype.itemsize * (step if n > 1 else 1) for n, step in zip(size, stride, strict=True)
        )
        return np.ndarray(size, dtype, data, offset * dtype.itemsize, steps)

    def _storage(self, storage: Storage) -> bytes:
        name, size = (
            f"{self._folder}data/{storage.key}",
            storage.count * (storage.dtype.itemsize if storage.dtype else 1),
        )
        if name not in self._sizes:
            raise RefusedError(f"lacks its storage {storage.key!r:.80}; {_AGAIN}")
        if self._sizes[name] != size:
            raise RefusedError(
                f"has {self._sizes[name]:,} bytes in storage {storage.key!r:.80}, "
                f"which should have {size:,}; {_AGAIN}"
            )
        if name not in self._cache:
            self._cache[name] = self._archive.read(name)
        return self._cache[name]


def _state_dict(loaded: Any, part: str | None, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The one mapping with tensors (or the one at `part`)."""
    found = dict(_mappings(loaded, "", 0, [0], path))
    if part is not None:
        if part not in found:
            raise UserError(f"{path} has no weights at {part!r}; it has them at: {_listed(found)}")
        return found[part]
    mine = [key for key in found if not any(name.startswith("optim") for name in key.split("/"))]
    outer = [
        key
        for key in mine
        if not any(key != other and key.startswith(f"{other}/" if other else "") for other in mine)
    ]
    if not outer:
        raise UserError(f"{path} holds no weights; give a checkpoint with a state dict")
    if len(outer) > 1:
        raise UserError(
            f"{path} holds {len(outer)} sets of weights ({_listed(outer)}); name "
            "the part that you mean"
        )
    return found[outer[0]]


def _listed(keys: Any) -> str:
    return ", ".join(repr(key) for key in sorted(keys)[:6]) or "nowhere"


def _mappings(
    value: Any, key: str, depth: int, seen: list[int], path: str | os.PathLike
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Every mapping that has tensors: (its path, the tensors)."""
    if not isinstance(value, dict):
        return
    seen[0] += len(value) + 1
    if depth > _DEEPEST or seen[0] > _MOST_NAMES:
        raise UserError(
            f"{path} has mappings nested too deep or too many to be weights; save the weights alone"
        )
    tensors = {
        name: item
        for name, item in value.items()
        if isinstance(name, str) and isinstance(item, np.ndarray)
    }
    if tensors:
        yield key, tensors
    for name, item in value.items():
        yield from _mappings(item, f"{key}/{name}" if key else str(name), depth + 1, seen, path)


def _unwrapped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _WRAPPERS * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
