"""A folder of object storage as a local folder, for what opens files by their local path: a model, a
release, a system.

Small files are copied. A large safetensors file is only a hole of its size with the header in it: its
tensors are read from the store when they are wanted, of each the rows that this host needs
(`interop.tensors`), so that a slice of 64 hosts does not fetch a 16 GB checkpoint 64 times.
`whole` fills such a hole for those who want all of it.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.remote import local_copies, objects, paths

_ORIGINS = (
    ".origins.json"  # in the local folder: the URL of the folder, and its files that are holes
)
_LARGE = 16 * 2**20  # bytes from which a safetensors file is a hole
_HEADER = 8  # bytes that say how long the header of a safetensors file is
_LONGEST_HEADER = 100 * 2**20  # as in the safetensors library
_DEEPEST = 3  # levels of folders: a system has thinker/ and encoder/


def local_folder(place: paths.Place) -> Path:
    """The folder itself if it is local, else a local one with its files, made when first asked for
    and again when an object has changed.

    Raises:
      NotFound: no such bucket. UserError: nothing is there, or it does not fit on this disk.
    """
    if not paths.is_remote(place):
        return paths.local(place)
    found = _files(place)
    if not found:
        raise UserError(
            f"nothing at {paths.shown(place)}: give a folder of a bucket that has a model in it, "
            f"or look with: gcloud storage ls {paths.shown(place)}"
        )
    seen = {name: objects.stat(paths.join(place, name)) for name in found}
    key = json.dumps([os.fspath(place), {n: (s.size, s.version) for n, s in seen.items()}])
    cache = local_copies.cache_folder() / "folders"
    folder = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}-{paths.name(place)[-60:]}"
    with local_copies.locked(cache / f".{folder.name[:24]}.lock"):
        if folder.is_dir():
            return folder
        part = folder.with_name("." + folder.name)
        shutil.rmtree(part, ignore_errors=True)
        holes = []
        for name, stat in seen.items():
            source, target = paths.join(place, name), part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors") and stat.size >= _LARGE:
                _hole(source, target, stat.size)
                holes.append(name)
            else:
                objects.download(source, target)
        origins = {"folder": os.fspath(place), "holes": holes}
        (part / _ORIGINS).write_text(json.dumps(origins))
        part.rename(folder)
    return folder


def origin(path: paths.Place) -> str:
    """The URL of a file or folder that lies in a local folder made by `local_folder`; any other path
    as it is.
    """
    if paths.is_remote(path):
        return os.fspath(path)
    found = _origins(paths.local(path))
    if found is None:
        return os.fspath(path)
    folder, about = found
    inside = paths.local(path).relative_to(folder).as_posix()
    return about["folder"] if inside == "." else paths.join(about["folder"], inside)


def hole(path: Path) -> str:
    """The URL whose bytes a file stands for, if it is a hole; "" for any other file."""
    found = _origins(path)
    if found is None:
        return ""
    folder, about = found
    inside = path.relative_to(folder).as_posix()
    return paths.join(about["folder"], inside) if inside in about["holes"] else ""


def whole(path: Path) -> Path:
    """A file with all its bytes: a hole is filled first."""
    url = hole(path)
    if not url:
        return path
    with local_copies.locked(path.with_name(f".{path.name}.lock")):
        if hole(path):
            objects.download(url, path)
            folder, about = _origins(path) or (path.parent, {"holes": []})
            about["holes"].remove(path.relative_to(folder).as_posix())
            objects.write_text(folder / _ORIGINS, json.dumps(about))
    return path


def _files(place: paths.Place, deep: int = 1) -> list[str]:
    """Names of the files of a folder and of the folders in it."""
    found = []
    for name in objects.list_names(place, marked=True):
        if not name.endswith("/"):
            found.append(name)
        elif deep < _DEEPEST and not name.startswith("."):
            found += [name + inner for inner in _files(paths.join(place, name), deep + 1)]
    return found


def _hole(source: str, target: Path, size: int) -> None:
    """A file of `size` bytes of which only the header of the safetensors file is written."""
    length = int.from_bytes(objects.read_range(source, 0, _HEADER), "little")
    if length > min(_LONGEST_HEADER, size - _HEADER):
        raise UserError(f"{paths.shown(source)} is no safetensors file; copy it there again")
    with open(target, "wb") as file:
        file.write(objects.read_range(source, 0, _HEADER + length))
        file.truncate(size)


def _origins(path: Path) -> tuple[Path, dict] | None:
    """(the local folder, what it says of its origins) that a path lies in."""
    cache = local_copies.cache_folder() / "folders"
    if cache not in path.parents:
        return None
    folder = cache / path.relative_to(cache).parts[0]
    if not (folder / _ORIGINS).is_file():
        return None
    return folder, json.loads((folder / _ORIGINS).read_text())
