"""Files and folders that are written whole or not at all, and what is told when they cannot be."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mdmspeech.errors import UserError

# Of an OSError: what is wrong with a place, not with this program.
_OF_THE_PLACE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
    errno.EEXIST, errno.ELOOP, errno.ENXIO, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def why_not(path: str | os.PathLike, folder: bool = False) -> str:
    """Why no file (or folder) of that name could be written, "" if it could: no folder to be in,
    one thing where the other is needed, no permission.

    Nothing is written to find out. What it cannot see (a disk that fills up) is told by
    `written_whole` when it happens.
    """
    path = Path(path)
    if "\0" in str(path):
        return "its name has a NUL character"
    try:
        there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
        if (folder or there != path) and not there.is_dir():
            return f"{there} is a file, not a folder"
        if not folder and path.is_dir():
            return "it is a folder"
        target = there if there == path or there.is_dir() else there.parent
        if not os.access(target, os.W_OK | (os.X_OK if target.is_dir() else 0)):
            return f"no permission to write {'to ' if target.is_dir() else ''}{target}"
        if (
            there == path
            and path.is_file()
            and not os.access(path.absolute().parent, os.W_OK | os.X_OK)
        ):
            return f"no permission to write to {path.absolute().parent}"
    except (OSError, ValueError) as error:
        return _words(error)
    return ""


def check_writable(
    path: str | os.PathLike, cure: str = "name another place", needed: int = 0, folder: bool = False
) -> None:
    """A UserError if `path`, a file (or folder) that may or may not be there, could not be written.
    needed: bytes that are known to be written.
    """
    if reason := why_not(path, folder):
        raise UserError(f"cannot write {path}: {reason}; {cure}")
    there = next(
        place for place in (Path(path).absolute(), *Path(path).absolute().parents) if place.is_dir()
    )
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"cannot write {path}: {there} has {_size(free)} left, {_size(needed)} "
            f"are needed; make room, or {cure}"
        )


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, cure: str = "name another place") -> Iterator[Path]:
    """The name of a file beside `path` to write into; it takes the name `path` when the block ends,
    and is removed when the block fails.

    The temporary name ends as `path` does, for writers that go by it. The folder is made. An
    OSError of the place becomes a UserError.
    """
    path = Path(path)
    # a pipe or a device: nothing can take its place
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    missing = [folder for folder in path.absolute().parents if not os.path.lexists(folder)]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        # places there are (/proc) that say they can be written to
        except FileNotFoundError as error:
            raise UserError(f"cannot write {path}: no folder can be made there; {cure}") from error
        yield part
        os.replace(part, path)
    except BaseException as error:
        _remove(part, missing)
        if isinstance(error, OSError):
            raise as_user_error(error, path, cure) from error
        raise


def write_text(path: str | os.PathLike, text: str, cure: str = "name another place") -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with written_whole(path, cure) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def replace_folder(new: Path, folder: Path, old: Path) -> None:
    """The finished folder `new` takes the name `folder`. What has that name goes by `old`
    meanwhile, so that a kill loses neither.
    """
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def as_user_error(
    error: OSError, path: str | os.PathLike | None = None, cure: str = "name another place"
) -> Exception:
    """The same in words with a cure if it is the place's fault; any other error as it is."""
    if error.errno not in _OF_THE_PLACE:
        return error
    place = path or error.filename or "a file"
    what = "cannot write" if path or error.errno in _FULL else "cannot use"
    return UserError(
        f"{what} {place}: {_words(error)}; {'make room, or ' if error.errno in _FULL else ''}{cure}"
    )


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _remove(path: Path, folders: list[Path]) -> None:
    """A file, and folders if nothing else is in them."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()
