"""Local copies of remote files, for what can only read a disk: a folder of bounded size, the least
recently used go first.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.remote import objects, paths, retrying

LIMIT = "MDMSPEECH_CACHE_GB"
_LIMIT_GB = 50.0


def cache_folder() -> Path:
    """$MDMSPEECH_CACHE, or ~/.cache/mdmspeech/remote."""
    named = os.environ.get("MDMSPEECH_CACHE")
    return Path(named or "~/.cache/mdmspeech/remote").expanduser()


def local_copy(path: paths.Place, limit_gb: float | None = None) -> Path:
    """A local file with the bytes that the object has now; a local path is its own.

    One request looks whether the object has changed. Of several processes, one fetches and the
    others wait for it. Open the file at once: a later call may remove it when the copies have grown
    past `limit_gb` (default $MDMSPEECH_CACHE_GB, else 50).

    Raises:
      UserError: it is not there, or is larger than all copies together may be.
    """
    if not paths.is_remote(path):
        objects.size(path)
        return paths.local(path)
    limit = (limit_gb if limit_gb is not None else retrying.seconds_from(LIMIT, _LIMIT_GB)) * 1e9
    found = objects.stat(path)
    if found.size > limit:
        raise UserError(
            f"{paths.shown(path)} has {found.size / 1e9:.2f} GB, local copies may have "
            f"{limit / 1e9:.2f}; allow more with {LIMIT}"
        )
    key = f"{os.fspath(path)}\n{found.version}\n{found.size}"
    folder = cache_folder()
    copy = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}-{paths.name(path)[-100:]}"
    # of 256 locks, not one a copy: their files stay
    with locked(folder / f".{copy.name[:2]}.lock"):
        if not (copy.is_file() and copy.stat().st_size == found.size):
            with locked(folder / ".making-room.lock"):
                _make_room(folder, limit - found.size)
            if objects.download(path, copy) != found:
                copy.unlink()
                raise UserError(f"{paths.shown(path)} was replaced while it was read; start again")
        # our own nanoseconds: the kernel gives two uses within a tick of its own (4 ms) the same age
        os.utime(copy, ns=(time.time_ns(),) * 2)
    return copy


def _make_room(folder: Path, allowed: float) -> None:
    """Removes the copies used longest ago until the others have at most `allowed` bytes."""
    copies = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if not file.name.startswith("."):
                copies.append((file.stat().st_mtime_ns, file.stat().st_size, file))
    total = sum(size for _, size, _ in copies)
    for _, size, file in sorted(copies):
        if total <= allowed:
            break
        file.unlink(missing_ok=True)
        total -= size


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds a lock that other threads and processes wait for; a killed process lets go of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"cannot keep local copies in {file.parent}: {(error.strerror or str(error)).lower()}; "
            "name another folder with MDMSPEECH_CACHE"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
