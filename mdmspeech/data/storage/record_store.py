"""The raw store: recordings of one part of the corpus as shards of int16 audio plus a JSON line a
record, safe against being killed.

    <folder>/00012-1f2e3d4c.pcm     the shard's recordings one after another, little-endian int16
    <folder>/00012-1f2e3d4c.jsonl   one line a recording: its fields, `rate`, `start` and
                                    `samples` (or `error` when it could not be made)

Both are written under temporary names; the JSONL is renamed last, so a shard exists exactly when
its index does. The hex part of the name is a digest of the jobs and of how our voices say them, so
a changed text or reading makes a new shard and an unchanged one is never made twice.

`StagedPart` replaces a whole part by a new one.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, replace_folder, written_whole

Record = dict[str, Any]
_AGAIN = "run mdmspeech data again, as you did to make them"
_CURE = "set $MDMSPEECH_HOME (or --root) to a folder that can be written"


def chosen_root(root: str | os.PathLike | None = None) -> str:
    """Where the corpus is, a folder or a bucket: the argument, else $MDMSPEECH_HOME, else
    ~/.cache/mdmspeech.
    """
    return os.fspath(root or os.environ.get("MDMSPEECH_HOME") or "~/.cache/mdmspeech")


def data_root(root: str | os.PathLike | None = None) -> pathlib.Path:
    """The corpus folder: the argument, else $MDMSPEECH_HOME, else ~/.cache/mdmspeech. UserError
    where the user has no home to find it in, or it is a bucket: only `datasets` can be there.
    """
    chosen = chosen_root(root)
    if remote.is_remote(chosen):
        raise UserError(
            f"{chosen} is in a bucket, where datasets can be read and written, but recordings are "
            "not made: give a folder on this machine (--root, --data or $MDMSPEECH_HOME)"
        )
    try:
        return pathlib.Path(chosen).expanduser()
    except RuntimeError as error:
        raise UserError(f"{chosen}: this user has no home folder; {_CURE}") from error


def writable_root(root: str | os.PathLike | None = None, needed: int = 0) -> pathlib.Path:
    """The corpus folder, which can be made and written; else a UserError with the cure. needed:
    bytes that are known to be written.
    """
    folder = data_root(root)
    check_writable(folder, _CURE, needed, folder=True)
    return folder


def write_shard(
    folder: pathlib.Path, name: str, recordings: list[tuple[Record, np.ndarray]]
) -> None:
    """Writes one shard: each item is the record's fields (with `rate`, Hz) and its audio, int16 [N]
    (empty for a failed record).
    """
    pcm, index = folder / f"{name}.pcm", folder / f"{name}.jsonl"
    lines, start = [], 0
    for fields, audio in recordings:
        lines.append(
            json.dumps({**fields, "start": start, "samples": len(audio)}, ensure_ascii=False)
        )
        start += len(audio)
    # the index takes its name last
    with written_whole(index, _CURE) as index_part, written_whole(pcm, _CURE) as pcm_part:
        with open(pcm_part, "wb") as file:
            for _, audio in recordings:
                file.write(audio.astype("<i2").tobytes())
        index_part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def shard_names(folder: pathlib.Path) -> list[str]:
    """Names of the complete shards, in order."""
    return sorted(
        path.stem for path in pathlib.Path(folder).glob("*.jsonl") if not path.name.startswith(".")
    )


def remove_shard(folder: pathlib.Path, name: str) -> None:
    """Deletes a shard, its index first, so that a kill in between leaves no index without audio."""
    for suffix in (".jsonl", ".pcm"):
        (folder / (name + suffix)).unlink(missing_ok=True)


def _read_index(path: pathlib.Path) -> list[Record]:
    """The records of a shard; a UserError if its index is not the one that was written."""
    records = []
    text = path.read_bytes().decode("utf-8", errors="replace")
    # splitlines() would end lines at U+2028
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            record = json.loads(line)
            if "error" not in record:
                _ = record["id"], record["rate"] + record["start"] + record["samples"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{path} is cut or damaged at line {number}; delete it and its .pcm and {_AGAIN}"
            ) from error
        records.append(record)
    return records


class RecordStore:
    """Random access to a folder of shards. `store[i]` is the record's fields plus `audio`, int16
    [N]; `store.fields[i]` leaves the audio on disk.

    Failed records are skipped and kept in `failed`. Raises `UserError` when the folder holds no
    finished shard.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        names = shard_names(self.folder)
        if not names:
            raise UserError(
                f"{self.folder} holds no recordings; make them with: mdmspeech data (own "
                f"recordings: mdmspeech data --manifest FILE --name {self.folder.name})"
            )
        self.fields: list[Record] = []
        self.failed: list[Record] = []
        self._shard_of: list[str] = []
        for name in names:
            for record in _read_index(self.folder / f"{name}.jsonl"):
                if "error" in record:
                    self.failed.append(record)
                else:
                    self.fields.append(record)
                    self._shard_of.append(name)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, i: int) -> Record:
        record = self.fields[i]
        path = self.folder / f"{self._shard_of[i]}.pcm"
        try:
            audio = np.fromfile(path, "<i2", record["samples"], offset=2 * record["start"])
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing; delete its .jsonl and {_AGAIN}") from error
        if len(audio) != record["samples"]:
            raise UserError(
                f"{path} is truncated at record {record['id']!r}; delete it and its "
                f".jsonl and {_AGAIN}"
            )
        return {**record, "audio": audio}

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def hours(self) -> float:
        """Hours of audio in the store."""
        return sum(r["samples"] / r["rate"] for r in self.fields) / 3600


class StagedPart:
    """A part of the raw store that replaces an older one, in `folder`, only when it is complete.

    It grows in `.NAME.new` beside the part's folder, with the shards of the older part that stay
    the same (hard links: no second copy), and survives a kill. At the end the two change places; a
    kill between the two renames is mended by the next run (`recover`).
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.new, self.old = (
            folder.with_name(f".{folder.name}.new"),
            folder.with_name(f".{folder.name}.old"),
        )

    def recover(self) -> None:
        """Gives an older part its name back that a kill caught between the renames."""
        if self.old.is_dir():
            if self.folder.exists():
                shutil.rmtree(self.old)
            else:
                os.replace(self.old, self.folder)

    def known(self) -> set[str]:
        """The shards that the older part and an earlier try have."""
        return {*shard_names(self.folder), *shard_names(self.new)}

    def begin(self, shards: Sequence[str]) -> pathlib.Path:
        """The folder to write into, with those of the shards that there are already; what else an
        earlier try left in it goes.
        """
        self.new.mkdir(parents=True, exist_ok=True)
        for path in self.new.iterdir():
            if path.stem not in shards or path.suffix not in (".pcm", ".jsonl"):
                path.unlink()
        for name in set(shard_names(self.folder)) & set(shards) - set(shard_names(self.new)):
            for suffix in (".pcm", ".jsonl"):  # the index last: with it the shard exists
                target = self.new / (name + suffix)
                target.unlink(missing_ok=True)
                try:
                    os.link(self.folder / target.name, target)
                except OSError:  # a file system without hard links
                    shutil.copy2(self.folder / target.name, target)
        return self.new

    def finish(self) -> None:
        """The new part takes the name."""
        replace_folder(self.new, self.folder, self.old)

    def give_up(self) -> None:
        """Nothing of the new part is left, nor folders that were made for it."""
        shutil.rmtree(self.new, ignore_errors=True)
        for made in self.folder.parents[:2]:
            with contextlib.suppress(OSError):
                made.rmdir()  # fails, and should, if anything is in it
