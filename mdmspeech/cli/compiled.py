"""What is kept on disk between starts, so that the second answer of a model comes without
compiling; and where nothing can be kept.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.files import why_not

MOST = 2**30  # bytes kept; a folder beyond is emptied
_ROOM = 2**26  # bytes free, at least: on a full disk JAX would complain of every program
# Of libraries that some verbs use (scoring, plots):
# they fail or complain without a folder to write to.
_CACHES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}


def keep_compiled(root: str | None = None) -> Path | None:
    """Has JAX keep its programs in a folder of this machine's kind and JAX's version; returns it.

    None, and nothing done: JAX has been imported already (its settings are read then), the user has
    chosen ($JAX_COMPILATION_CACHE_DIR, or JAX_ENABLE_COMPILATION_CACHE=false), or there is no home,
    it cannot be written, or its disk is full.

    Args:
      root: as `data.storage.record_store.data_root` takes it.
    """
    if (
        "jax" in sys.modules
        or "JAX_COMPILATION_CACHE_DIR" in os.environ
        or os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1") in ("0", "false")
    ):
        return None
    folder = _folder(root)
    if folder is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        # a start compiles dozens of small ones, too
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return folder


def keep_programs(root: str | None = None) -> Path | None:
    """For `mdmspeech.load`, wherever it is called: JAX keeps what it compiles where it was told to,
    or where `keep_compiled` has it, and `mdmspeech.programs` what is traced, beside it; and so are
    converted weights. Returns that folder.

    None, and nothing kept: the user has said JAX_ENABLE_COMPILATION_CACHE=false, has chosen a
    bucket, or nothing can be written.
    """
    import jax

    from mdmspeech import programs
    from mdmspeech.interop import converted

    settings: Any = jax.config  # mypy does not know its fields
    chosen = settings.jax_compilation_cache_dir
    if not settings.jax_enable_compilation_cache:
        folder = None
    elif chosen:
        folder = None if "://" in chosen or why_not(chosen, folder=True) else Path(chosen)
    elif (folder := _folder(root)) is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    programs.keep(folder)
    converted.keep(None if folder is None else _weights(folder, root))
    return folder


@contextlib.contextmanager
def telling_what_is_compiled(quiet: bool) -> Iterator[None]:
    """Says on stderr which parts have to be compiled, when it begins, and at the end how long each
    took; nothing where all that is needed was kept.
    """
    if quiet:
        yield
        return
    from mdmspeech import programs

    seconds: dict[str, list[float]] = {}

    def told(part: str, took: float | None) -> None:
        if took is None and part not in seconds:
            print(f"compiling the {part} ...", file=sys.stderr, flush=True)
        seconds.setdefault(part, []).extend([] if took is None else [took])

    with programs.telling(told):
        yield
    for part, each in seconds.items():
        print(f"compiled the {part}: {len(each)} programs, {sum(each):.1f} s", file=sys.stderr)


def _weights(programs: Path, root: str | None) -> Path:
    """Where converted weights are kept: in a folder that outlives JAX's version, or in the one that
    the user has chosen for what is compiled.
    """
    from mdmspeech.data.storage.record_store import data_root

    with contextlib.suppress(UserError):
        if programs.parent == data_root(root) / "compiled":
            return data_root(root) / "converted"
    return programs / "weights"


def _folder(root: str | None) -> Path | None:
    """Where programs are kept; None if they cannot be. One that has grown too large is emptied."""
    from mdmspeech.data.storage.record_store import data_root

    try:
        folder = data_root(root) / "compiled" / _kind()
        if folder.is_dir() and sum(file.stat().st_size for file in folder.iterdir()) > MOST:
            shutil.rmtree(folder, ignore_errors=True)
        if why_not(folder, folder=True) or _free(folder) < _ROOM:
            return None
    except (OSError, UserError):
        return None
    return folder


def lend_caches() -> Path | None:
    """Gives libraries that insist on a folder of their own a private one until this process ends,
    where the home cannot be written; returns it.
    """
    try:
        if not why_not(Path.home() / ".cache", folder=True):
            return None
    except RuntimeError:  # this user has no home
        pass
    wanted = {variable: name for variable, name in _CACHES.items() if variable not in os.environ}
    if not wanted:
        return None
    try:
        # nobody else's: numba runs what it finds there
        folder = Path(tempfile.mkdtemp(prefix="mdmspeech-"))
    except OSError:
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable, name in wanted.items():
        (folder / name).mkdir()
        os.environ[variable] = str(folder / name)
    return folder


def _free(folder: Path) -> int:
    return shutil.disk_usage(
        next(there for there in (folder, *folder.absolute().parents) if there.is_dir())
    ).free


def _kind() -> str:
    """Another processor may lack the instructions that a program was compiled for: a shared home
    must not mix them.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    features = (
        sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        or lines[:1]
    )
    digest = hashlib.sha256("\n".join([platform.machine(), *features]).encode()).hexdigest()[:12]
    return f"jaxlib-{importlib.metadata.version('jaxlib')}-{digest}"
