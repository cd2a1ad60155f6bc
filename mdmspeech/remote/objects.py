"""Reading and writing whole objects and ranges, on a disk and on object storage alike.

Errors that pass are retried (`retrying`); what lasts is one `UserError`, `NotFound` where nothing of
that name is there.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mdmspeech import files
from mdmspeech.errors import UserError
from mdmspeech.remote import paths
from mdmspeech.remote.filesystem import filesystem
from mdmspeech.remote.retrying import GivenUp, NotFound, Truncated, call, status, told

Result = TypeVar("Result")
# bytes of one request when an object is copied
_PART = 16 * 2**20
# what Google's servers say of an upload in parts that they have forgotten, or whose last part came,
# but not the answer to it: begin anew
_UPLOAD_LOST = {400, 404, 410}
# what file systems call the version of an object, the surest first
_VERSION_FIELDS = (
    "generation", "etag", "ETag", "md5Hash", "blob_id", "mtime", "LastModified", "last_modified",
    "created",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stat:
    """A file's size in bytes, and a text that changes when its content does."""

    size: int
    version: str


def exists(path: paths.Place) -> bool:
    """Whether a file or folder is there."""
    return bool(_type(path))


def is_file(path: paths.Place) -> bool:
    """Whether a file is there."""
    return _type(path) == "file"


def is_dir(path: paths.Place) -> bool:
    """Whether a folder is there; on object storage, whether any object's name begins so."""
    return _type(path) == "directory"


def list_names(folder: paths.Place, *, marked: bool = False) -> list[str]:
    """Sorted names of the files and folders directly in a folder; none when it is not there. marked:
    those of folders end in "/".

    Raises:
      NotFound: the bucket itself is not there.
    """
    if not paths.is_remote(folder):
        with _local(folder, "list"):
            where = paths.local(folder)
            with os.scandir(where) if where.is_dir() else contextlib.nullcontext([]) as entries:
                return sorted(each.name + "/" * (marked and each.is_dir()) for each in entries)

    def found(store: Any, place: str) -> list[dict]:
        try:
            return store.ls(place, detail=True)
        except FileNotFoundError:
            return []

    here = _remote(folder, "list", found)
    if not here and not exists(paths.bucket(folder)):
        raise NotFound(f"cannot list {paths.shown(folder)}: there is no such bucket")
    whole = filesystem(folder)[1].rstrip("/")
    names = {item["name"].rstrip("/"): item["type"] == "directory" for item in here}
    names.pop(whole, None)
    return sorted(name.rsplit("/", 1)[-1] + "/" * (marked and is_a) for name, is_a in names.items())


def stat(path: paths.Place) -> Stat:
    """Size and version of a file. Raises `NotFound`."""
    if not paths.is_remote(path):
        with _local(path, "read"):
            found = paths.local(path).stat()
            return Stat(found.st_size, f"{found.st_mtime_ns}-{found.st_ino}")
    info = _remote(path, "read", lambda store, place: store.info(place))
    if info["type"] != "file":
        raise NotFound(f"cannot read {paths.shown(path)}: it is a folder, not an object")
    version = next((str(info[key]) for key in _VERSION_FIELDS if info.get(key)), "")
    return Stat(int(info["size"]), version)


def size(path: paths.Place) -> int:
    """Bytes of a file. Raises `NotFound`."""
    return stat(path).size


def read_bytes(path: paths.Place) -> bytes:
    """A whole file. Raises `NotFound`."""
    if not paths.is_remote(path):
        with _local(path, "read"):
            return paths.local(path).read_bytes()

    def whole(store: Any, place: str) -> bytes:
        data, should = store.cat_file(place), size(path)
        if len(data) != should:
            raise Truncated(f"{len(data)} of {should} bytes came")
        return data

    return _remote(path, "read", whole)


def read_range(path: paths.Place, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file.

    Raises:
      UserError: the file ends before `stop`.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"no range: {start}..{stop}")
    if start == stop:
        return b""
    if not paths.is_remote(path):
        with _local(path, "read"), open(paths.local(path), "rb") as file:
            file.seek(start)
            return _whole_range(file.read(stop - start), path, start, stop)

    def part(store: Any, place: str) -> bytes:
        try:
            data = store.cat_file(place, start=start, end=stop)
        except Exception as error:
            if status(getattr(error, "error", error)) != 416:  # range not satisfiable
                raise
            data = b""
        if len(data) < stop - start and size(path) >= stop:
            raise Truncated(f"{len(data)} of {stop - start} bytes came")
        return _whole_range(data, path, start, stop)

    return _remote(path, "read", part)


def read_text(path: paths.Place) -> str:
    """A whole UTF-8 text."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{paths.shown(path)} is not UTF-8 text: {error}") from error


def read_json(path: paths.Place) -> Any:
    """A whole JSON file."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{paths.shown(path)} is not JSON: {error}; it was cut or changed, write it anew"
        ) from error


def write_bytes(path: paths.Place, data: bytes) -> None:
    """Writes a file, whole or not at all: another reader sees the old one or the new one."""
    if not paths.is_remote(path):
        with files.written_whole(paths.local(path)) as part:
            part.write_bytes(data)
        return
    _remote(path, "write", lambda store, place: store.pipe_file(place, bytes(data)))


def write_text(path: paths.Place, text: str) -> None:
    """Writes a UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def upload(local: paths.Place, path: paths.Place) -> None:
    """Copies a local file to a place, in parts: the object appears whole when the last has come."""
    source = paths.local(local)
    with _local(source, "read"):
        source.stat()
    if not paths.is_remote(path):
        with files.written_whole(paths.local(path)) as part:
            shutil.copyfile(source, part)
        return

    def copied(store: Any, place: str) -> None:
        out = store.open(place, "wb", block_size=_PART)
        try:
            with open(source, "rb") as file:
                while data := file.read(_PART):
                    out.write(data)
            out.close()
        except BaseException as error:
            begun = getattr(out, "location", None)
            # closing it, as a file does that is let go of, would make an object of what has come
            if not isinstance(error, GivenUp):
                with contextlib.suppress(Exception):
                    out.discard()
            with contextlib.suppress(AttributeError):
                out.closed = True
            if begun and (isinstance(error, FileNotFoundError) or status(error) in _UPLOAD_LOST):
                raise Truncated("the upload was lost on the way") from error
            raise

    _remote(path, "write", copied)


def download(path: paths.Place, local: paths.Place) -> Stat:
    """Copies a file to a local place, whole or not at all, in ranges. Gives what was copied.

    Raises:
      UserError: it was replaced meanwhile, or is not there.
    """
    target, found = paths.local(local), stat(path)
    files.check_writable(target, needed=found.size)
    with files.written_whole(target) as part:
        with open(part, "wb") as out:
            for start in range(0, found.size, _PART):
                out.write(read_range(path, start, min(start + _PART, found.size)))
        if stat(path) != found:
            raise UserError(f"{paths.shown(path)} was replaced while it was read; start again")
    return found


def copy(path: paths.Place, target: paths.Place) -> None:
    """Copies a file within one disk or one store; on a store its servers do, on a disk it is a link
    where the file system has links: do not write into either.
    """
    if paths.scheme(path) != paths.scheme(target):
        raise ValueError(f"{paths.shown(path)} and {paths.shown(target)} are in different stores")
    if paths.is_remote(path):
        place = filesystem(target)[1]
        _remote(path, "copy", lambda store, source: store.cp_file(source, place))
        return
    with _local(path, "copy"), files.written_whole(paths.local(target)) as part:
        part.unlink(missing_ok=True)
        try:
            os.link(paths.local(path), part)
        except OSError:  # a file system without links
            shutil.copyfile(paths.local(path), part)


def sha256(path: paths.Place) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read in ranges."""
    digest, whole = hashlib.sha256(), size(path)
    for start in range(0, whole, _PART):
        digest.update(read_range(path, start, min(start + _PART, whole)))
    return digest.hexdigest()


def remove(path: paths.Place) -> None:
    """Removes a file; one that is not there is no error (a try before this one may have done it)."""
    if not paths.is_remote(path):
        with _local(path, "remove"):
            paths.local(path).unlink(missing_ok=True)
        return
    with contextlib.suppress(NotFound):
        _remote(path, "remove", lambda store, place: store.rm_file(place))


def _type(path: paths.Place) -> str:
    """ "file", "directory", or "" when nothing is there.

    fsspec's own `exists` and `isdir` answer "no" to any error, a lost connection too.
    """
    if not paths.is_remote(path):
        where = paths.local(path)
        return "directory" if where.is_dir() else "file" if where.exists() else ""
    try:
        return _remote(path, "look for", lambda store, place: store.info(place))["type"]
    except NotFound:
        return ""


def _remote(path: paths.Place, doing: str, function: Callable[[Any, str], Result]) -> Result:
    store, place = filesystem(path)
    try:
        return call(lambda: function(store, place))
    except GivenUp as given_up:
        raise told(given_up, doing, path) from given_up.error


@contextlib.contextmanager
def _local(path: paths.Place, doing: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"cannot {doing} {Path(path)}: there is no such file") from error
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise UserError(f"cannot {doing} {Path(path)}: {words}; name another place") from error


def _whole_range(data: bytes, path: paths.Place, start: int, stop: int) -> bytes:
    if len(data) != stop - start:
        raise UserError(
            f"cannot read bytes {start} to {stop} of {paths.shown(path)}: it ends at "
            f"{start + len(data) if data else size(path)}; it was cut short, copy it anew"
        )
    return data
