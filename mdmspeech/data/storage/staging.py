"""A part of the raw store that replaces an older one only when it is complete.

It grows in `.NAME.new` beside the part's folder, with the shards of the older part that stay the same (hard links: no second copy), and survives a kill.
At the end the two change places; a kill between the two renames is mended by the next run.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Sequence

from mdmspeech.data.storage import record_store


def recover(folder: pathlib.Path) -> None:
    """Gives an older part its name back that a kill caught between the renames."""
    if _old(folder).is_dir():
        if folder.exists():
            shutil.rmtree(_old(folder))
        else:
            os.replace(_old(folder), folder)


def known(folder: pathlib.Path) -> set[str]:
    """The shards that the older part and an earlier try have."""
    return {*record_store.shard_names(folder), *record_store.shard_names(_new(folder))}


def begin(folder: pathlib.Path, shards: Sequence[str]) -> pathlib.Path:
    """The folder to write into, with those of the shards that there are already; what else an earlier try left in it goes."""
    new = _new(folder)
    new.mkdir(parents=True, exist_ok=True)
    for path in new.iterdir():
        if path.stem not in shards or path.suffix not in (".pcm", ".jsonl"):
            path.unlink()
    for name in set(record_store.shard_names(folder)) & set(shards) - set(record_store.shard_names(new)):
        for suffix in (".pcm", ".jsonl"):  # the index last: with it the shard exists
            target = new / (name + suffix)
            target.unlink(missing_ok=True)
            try:
                os.link(folder / target.name, target)
            except OSError:  # a file system without hard links
                shutil.copy2(folder / target.name, target)
    return new


def finish(folder: pathlib.Path) -> None:
    """The new part takes the name."""
    if folder.exists():
        os.replace(folder, _old(folder))
    os.replace(_new(folder), folder)
    shutil.rmtree(_old(folder), ignore_errors=True)


def give_up(folder: pathlib.Path) -> None:
    """Nothing of the new part is left, nor folders that were made for it."""
    shutil.rmtree(_new(folder), ignore_errors=True)
    for made in folder.parents[:2]:
        with contextlib.suppress(OSError):
            made.rmdir()  # fails, and should, if anything is in it


def _new(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.old")
