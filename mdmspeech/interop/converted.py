"""Weights as the runtime takes them, kept on disk after the first start: what was 4 or 8 or 16 bits
in a release or a model file is float32 in a memory map, which costs nothing to open. What is made
one array at a time (`tensors.Unread`) is written so, and never stands in memory as a whole.

A copy is found by what it was made of (the file's place, size and time, its digest where one is
known), what was asked for, and the code that made it; one that does not fit any more is removed when
the next is made. Where nothing can be kept, everything works, slower.
"""

import contextlib
import functools
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mdmspeech import programs
from mdmspeech.errors import UserError
from mdmspeech.interop.tensors import Unread, map_tensors, read_all, write_tensors

MOST = 2**36  # bytes of one copy; larger models are read from their own files
_ALIGN = 64  # bytes: JAX takes what begins so without a copy
_UNUSED = 90 * 86400  # seconds after which a copy that nobody has read is removed
_state: dict[str, Path | None] = {"folder": None}


def keep(folder: Path | None) -> None:
    """Copies are looked for, and kept, in that folder from now on; None: no more."""
    _state["folder"] = folder


def converted(
    what: str, files: Sequence[Path], about: Any, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """`make()`, or the copy of what it gave before.

    Args:
      what: for people, part of the file's name. files: which it reads. about: what it makes of
        them, as something whose repr says it: sizes, types.
      make: returns nested dicts of arrays, or of `tensors.Unread`; called if there is no copy.
    """
    folder = _state["folder"]
    if folder is None:
        return read_all(make())
    try:
        stats = [(str(file.resolve()), file.stat()) for file in files]
    except OSError:
        return read_all(make())
    places = [place for place, _ in stats]
    states = [(place, stat.st_size, stat.st_mtime_ns) for place, stat in stats]
    same = f"{what}-{_digest(places)}-"
    copy = folder / f"{same}{_digest([states, about, _code()])}.safetensors"
    with contextlib.suppress(UserError, OSError, ValueError):
        return unflatten_dict(map_tensors(copy), sep="/")
    made = make()
    with contextlib.suppress(UserError, OSError, ValueError):
        if _write(copy, made, same):
            return unflatten_dict(map_tensors(copy), sep="/")
    return read_all(made)


def _write(copy: Path, made: dict[str, Any], same: str) -> bool:
    """Whether there is room for it; then it is there."""
    flat = {
        path: value if isinstance(value, Unread) else np.asarray(value)
        for path, value in flatten_dict(made, sep="/").items()
    }
    sizes = {p: math.prod(value.shape) * value.dtype.itemsize for p, value in flat.items()}
    size = sum(sizes.values())
    copy.parent.mkdir(parents=True, exist_ok=True)
    if size > MOST or 2 * size > shutil.disk_usage(copy.parent).free:
        return False
    # a tensor begins where the one before it ends: those of whole lines first
    order = sorted(flat, key=lambda path: (sizes[path] % _ALIGN > 0, path))
    part = copy.with_name(f".{copy.stem}.{os.getpid()}.safetensors")
    try:
        write_tensors(part, {path: flat[path] for path in order}, align=_ALIGN)
        os.replace(part, copy)
    finally:
        part.unlink(missing_ok=True)
    for old in copy.parent.glob("*.safetensors"):
        with contextlib.suppress(OSError):
            stat = old.stat()
            unused = time.time() - max(stat.st_atime, stat.st_mtime) > _UNUSED
            if old != copy and (old.name.startswith(same) or unused):
                old.unlink()
    return True


def _digest(told: Any) -> str:
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    """Of the code that makes copies, sizes of models included."""
    here = [file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))]
    return _digest([programs.code_digest(), *here])
