"""Results on disk: JSON written whole or not at all, what machine they came from, and parts that are made once and kept."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.files import write_text

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "faster-whisper", "ctranslate2", "jiwer", "whisper-normalizer", "speechmos", "onnxruntime")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` under a temporary name first, so that a kill leaves the old file or the new one. Makes the folder."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; `UserError` when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and evaluate again") from error


def kept(path: Path, made_from: dict[str, Any], make: Callable[[], dict], force: bool = False) -> dict:
    """The part in `path`; made, with its date and machine, when it is missing, was made from something else, or `force` is set.

    Args:
      made_from: what the part depends on (digests of the weights, counts, the recogniser), JSON-ready.
    """
    if not force and Path(path).is_file():
        part = read_json(path)
        if part.get("made_from") == made_from:
            return part
    write_json(path, {**make(), "made_from": made_from, "made": provenance()})
    return read_json(path)


def provenance() -> dict[str, Any]:
    """When and on what: date (UTC), CPU model, cores that may be used, memory, accelerator, versions."""
    import jax

    devices = jax.devices()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "accelerator": "none" if devices[0].platform == "cpu" else f"{len(devices)} x {devices[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
