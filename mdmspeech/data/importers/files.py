"""Where the bytes of a corpus come from, a disk or a bucket. Everything in this room opens, lists and joins by these
functions alone.

Paths are strings with `/`. A folder's names come sorted, so that no order depends on a disk.
"""

import errno
import io
import os
import posixpath
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

from mdmspeech import remote
from mdmspeech.errors import UserError


class Unreadable(UserError):
    """A folder, list or shard that cannot be read: it costs a corpus its part. No other UserError is
    one (a column that is not there, a bucket that does not answer): those end the reading.
    """


class Unreachable(UserError):
    """A bucket that does not answer, whatever was tried: no fault of a record."""


_NO_CORPUS = {"lost+found", "__MACOSX"}
_AHEAD = 4 << 20  # bytes of a file in a bucket that one request brings
_Found = TypeVar("_Found")


def open_file(path: str) -> BinaryIO:
    """A file's bytes, to be read and sought in. On a disk unbuffered: the audio room needs files by
    number.

    Raises:
      OSError: there is none. Unreachable: the bucket does not answer; also when it is read.
    """
    if remote.is_remote(path):
        return cast(BinaryIO, io.BufferedReader(_Ranged(path), _AHEAD))
    return open(path, "rb", buffering=0)


class _Ranged(io.RawIOBase):
    """A file in a bucket, read by ranges."""

    def __init__(self, path: str):
        self._path, self._at, self._size = path, 0, _ask(remote.size, path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = b""
        if self._at < self._size:
            stop = min(self._at + len(buffer), self._size)
            data = _ask(remote.read_range, self._path, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _ask(request: Callable[..., _Found], path: str, *args: Any, **options: Any) -> _Found:
    """What a bucket answers. What is not there is an OSError as on a disk."""
    try:
        return request(path, *args, **options)
    except remote.NotFound as error:
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error
    except UserError as error:
        raise Unreachable(str(error)) from error


def list_names(folder: str) -> list[str]:
    """Names in a folder, sorted; those of folders end in "/". Hidden ones are left out, and those of
    disks and archives.

    Raises:
      Unreadable: it is not there, or may not be read.
    """
    try:
        if remote.is_remote(folder):
            names = _ask(remote.list_names, folder, marked=True)
        else:
            with os.scandir(folder) as entries:
                names = [entry.name + "/" * entry.is_dir() for entry in entries]
    except OSError as error:
        raise Unreadable(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted(
        name
        for name in names
        if not name.startswith(".") and name.removesuffix("/") not in _NO_CORPUS
    )


def seen_names(folder: str) -> list[str]:
    """The same for a folder that may not be there, or may not be read: none, then."""
    try:
        return list_names(folder)
    except Unreadable:
        return []


def size_of(path: str) -> int | None:
    """Bytes of a file; None if there is none of that name, or it is no plain file."""
    try:
        if remote.is_remote(path):
            return _ask(remote.size, path)
        return os.stat(path).st_size if os.path.isfile(path) else None
    except Unreachable:
        raise
    except (OSError, ValueError):
        return None


def is_folder(path: str) -> bool:
    """Whether there is such a folder."""
    return _ask(remote.is_dir, path) if remote.is_remote(path) else os.path.isdir(path)


def join(folder: str, *names: str) -> str:
    """The path of a name in a folder; an absolute name stays what it is."""
    path = folder
    for name in names:
        path = name if "://" in name else posixpath.join(path, name)
    return path


def base_name(path: str) -> str:
    """The last part of a path."""
    return posixpath.basename(path.rstrip("/"))


def parent(path: str) -> str:
    """The folder that holds it."""
    return posixpath.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")


def file_names(names: list[str], *endings: str) -> list[str]:
    """Those of the names that are files with one of these endings, in any case."""
    return [name for name in names if name.lower().endswith(endings)]


def folder_names(names: list[str]) -> list[str]:
    """Those of the names that are folders, without their "/"."""
    return [name[:-1] for name in names if name.endswith("/")]
