"""Tensors on disk as safetensors files: read whole folders, write one file, compare checksums. No pickle anywhere."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mdmspeech.errors import UserError

INDEX = "model.safetensors.index.json"


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All tensors of one safetensors file, or of a folder (sharded with an index, or every *.safetensors in it).

    bfloat16 arrives as `ml_dtypes.bfloat16`.

    Raises:
      UserError: nothing there, or a file that is truncated or no safetensors.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in _files(Path(path)):
        try:
            with safe_open(file, "numpy") as handle:
                names = handle.keys()  # a safetensors handle is no dict
                tensors.update({name: handle.get_tensor(name) for name in names})
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is corrupt or no safetensors file ({error}); fetch or copy it again") from error
    return tensors


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The string metadata of one safetensors file ({} if it has none)."""
    try:
        with safe_open(path, "numpy") as handle:
            return dict(handle.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is corrupt or no safetensors file ({error}); fetch or copy it again") from error


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes one safetensors file, replacing it only when it is complete."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, part, dict(metadata or {}))
    os.replace(part, path)


def check_sha256(data: bytes | memoryview, expected: str, name: str) -> None:
    """Raises UserError unless the SHA-256 of `data` is `expected` (hex)."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise UserError(f"{name} has SHA-256 {found[:12]}..., expected {expected[:12]}...; reinstall or fetch it again")


def read_json(path: str | os.PathLike) -> dict:
    """One JSON object; a UserError if the file is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give a complete model folder") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); fetch or copy it again") from error


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / INDEX).exists():
        return [path / name for name in sorted(set(read_json(path / INDEX)["weight_map"].values()))]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise UserError(f"{path} has no .safetensors file; give a model folder with safetensors weights")
    return files
