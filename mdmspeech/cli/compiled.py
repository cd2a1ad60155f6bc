"""What XLA has compiled is kept on disk, so that the second answer of a model comes without compiling."""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

MOST = 2**30  # bytes kept; a folder beyond is emptied


def keep_compiled(root: str | None = None) -> Path | None:
    """Has JAX keep its programs in a folder of this machine's kind and JAX's version; returns it.

    None, and nothing done: JAX has been imported already (its settings are read then), or the user has chosen ($JAX_COMPILATION_CACHE_DIR, or
    JAX_ENABLE_COMPILATION_CACHE=false).

    Args:
      root: as `data.store.data_root` takes it.
    """
    from mdmspeech.data.store import data_root

    if (
        "jax" in sys.modules
        or "JAX_COMPILATION_CACHE_DIR" in os.environ
        or os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1") in ("0", "false")
    ):
        return None
    folder = data_root(root) / "compiled" / _kind()
    if folder.exists() and sum(file.stat().st_size for file in folder.iterdir()) > MOST:
        shutil.rmtree(folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    return folder


def _kind() -> str:
    """Another processor may lack the instructions that a program was compiled for: a shared home must not mix them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}) or lines[:1]
    digest = hashlib.sha256("\n".join([platform.machine(), *features]).encode()).hexdigest()[:12]
    return f"jaxlib-{importlib.metadata.version('jaxlib')}-{digest}"
