"""Where the bytes of a corpus come from. Everything in this room opens, lists and joins by these
functions alone.

Paths are strings with `/`. A folder's names come sorted, so that no order depends on a disk.
"""

import os
import posixpath
from typing import BinaryIO

from mdmspeech.errors import UserError


class Unreadable(UserError):
    """A folder, list or shard that cannot be read: it costs a corpus its part. No other UserError is
    one (a column that is not there, a bucket that does not answer): those end the reading.
    """


_NO_CORPUS = {"lost+found", "__MACOSX"}


def open_file(path: str) -> BinaryIO:
    """A file's bytes, to be read and sought in. Unbuffered: the audio room needs files by number."""
    return open(path, "rb", buffering=0)


def list_names(folder: str) -> list[str]:
    """Names in a folder, sorted; those of folders end in "/". Hidden ones are left out, and those of
    disks and archives.

    Raises:
      Unreadable: it is not there, or may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name + "/" * entry.is_dir()
                for entry in entries
                if not entry.name.startswith(".") and entry.name not in _NO_CORPUS
            )
    except OSError as error:
        raise Unreadable(f"{folder} cannot be read: {error.strerror or error}") from error


def seen_names(folder: str) -> list[str]:
    """The same for a folder that may not be there, or may not be read: none, then."""
    try:
        return list_names(folder)
    except Unreadable:
        return []


def size_of(path: str) -> int | None:
    """Bytes of a file; None if there is none of that name, or it is no plain file."""
    try:
        return os.stat(path).st_size if os.path.isfile(path) else None
    except (OSError, ValueError):
        return None


def is_folder(path: str) -> bool:
    """Whether there is such a folder."""
    return os.path.isdir(path)


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
