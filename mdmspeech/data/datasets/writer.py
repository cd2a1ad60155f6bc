"""Writes a dataset: ArrayRecord shards, what TFDS knows it by, and our columns beside them.

    <folder>/mdmspeech_<kind>-<split>.array_record-00000-of-00004
    <folder>/index-<split>.safetensors, texts-<split>.safetensors     see `index`
    <folder>/features.json, dataset_info.json                         TFDS's

`tfds.builder_from_directory(folder)` opens it as well. A dataset is there when its
dataset_info.json is, which is written last. On a disk a kill before leaves the older one whole; in a
bucket there is none while it is replaced (`publish`).
"""

import contextlib
import datetime
import io
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech import remote
from mdmspeech.data.datasets.array_record import ShardInfo, write_shard
from mdmspeech.data.datasets.features import TEXTS, VERSION, ExampleFormat
from mdmspeech.data.datasets.index import text_columns, write_columns
from mdmspeech.data.storage.splits import digest
from mdmspeech.errors import UserError
from mdmspeech.files import replace_folder

SHARD_BYTES = 256 * 2**20
INFO = "dataset_info.json"
_CURE = "set $MDMSPEECH_HOME (or --root) to a folder that can be written"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def write_dataset(
    folder: str | os.PathLike,
    kind: str,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    width: int | None = None,
    about: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, int]:
    """Writes it anew into `folder`, on a disk or in a bucket; returns the records of each split.

    Args:
      kind: see `features.KINDS`. splits: split -> its records, in the order in which they are
        read; a split without records is left out.
      width: of the states, for that kind.
      about: what else is known of the whole (codec, what it was made from), as JSON. What the
        records of a split put into it while they are read is known of that split and of the next.
      shard_bytes: about the size of a shard.

    Raises:
      UserError: no record at all, the same recording twice, or a place that cannot be written.
    """
    example = ExampleFormat(kind, width)
    about = {} if about is None else about
    target = Path(tempfile.mkdtemp()) if remote.is_remote(folder) else Path(folder)
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        found = {}
        for split, records in splits.items():
            made = _write_split(new, example, split, records, about, shard_bytes)
            if made:
                found[split] = made
        if not found:
            raise UserError(f"{folder}: there is no record to write")
        write_info(new, example, found)
        if remote.is_remote(folder):
            publish(new, folder)
        else:
            replace_folder(new, target, target.with_name(f".{target.name}.old"))
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if remote.is_remote(folder):
            shutil.rmtree(target, ignore_errors=True)
    return {split: sum(shard.records for shard in shards) for split, shards in found.items()}


def shard_name(kind: str, split: str, number: int, count: int) -> str:
    """TFDS's name of a shard."""
    return f"mdmspeech_{kind}-{split}.array_record-{number:05d}-of-{count:05d}"


def write_index(
    folder: Path,
    example: ExampleFormat,
    split: str,
    shards: list[ShardInfo],
    numbers: Mapping[str, np.ndarray],
    texts: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
) -> None:
    """The columns of a split whose shards are written: numbers, see `Rows.numbers`; texts, see
    `index.text_columns`.
    """
    described = {
        **about,
        "kind": example.kind,
        "width": example.width,
        "version": VERSION,
        "records": sum(shard.records for shard in shards),
        "shards": [
            {"records": s.records, "bytes": s.bytes, "checksum": s.checksum} for s in shards
        ],
    }
    write_columns(folder / f"index-{split}.safetensors", numbers, described)
    write_columns(folder / f"texts-{split}.safetensors", texts, {})


class Rows:
    """What the index of a split will hold, gathered record by record."""

    def __init__(self, example: ExampleFormat):
        self._example = example
        self.columns: dict[str, list[int]] = {name: [] for name in example.column_names()}
        self.texts: dict[str, list[bytes]] = {name: [] for name in TEXTS[example.kind]}
        self.digests: list[int] = []  # of the texts, see `splits.digest`

    def add(self, record: Mapping[str, Any]) -> None:
        """One more record."""
        for name, value in self._example.columns(record).items():
            self.columns[name].append(value)
        for name, values in self.texts.items():
            values.append(str(record.get(name) or "").encode())
        self.digests.append(digest(str(record.get("text") or record["id"])))

    def numbers(self) -> dict[str, np.ndarray]:
        """The columns of numbers."""
        found = {name: np.array(values, np.int32) for name, values in self.columns.items()}
        return found | {"digest": np.array(self.digests, np.uint32)}


def write_info(
    folder: Path,
    example: ExampleFormat,
    splits: Mapping[str, list[ShardInfo]],
    description: str = "",
) -> None:
    """features.json and dataset_info.json, as TFDS writes them. description: default, kind and day."""
    import tensorflow_datasets as tfds

    name = f"mdmspeech_{example.kind}"

    def template(split: str):
        return tfds.core.ShardedFileTemplate(
            dataset_name=name,
            data_dir=folder,
            split=split,
            filetype_suffix="array_record",
            template=_TEMPLATE,
        )

    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in shards],
            num_bytes=sum(shard.bytes for shard in shards),
            filename_template=template(split),
        )
        for split, shards in splits.items()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=example.features,
            split_infos=infos,
            version=VERSION,
            filename_template=template(infos[0].name),
            description=description
            or f"{example.kind} of mdmspeech, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            check_data=False,
        )


def _write_split(
    folder: Path,
    example: ExampleFormat,
    split: str,
    records: Iterable[Mapping[str, Any]],
    about: Mapping[str, Any],
    shard_bytes: int,
) -> list[ShardInfo]:
    rows, seen = Rows(example), set()

    def encoded() -> Iterator[bytes]:
        for record in records:
            if example.kind == "recordings":
                if record["id"] in seen:
                    raise UserError(f"the id {record['id']!r} comes twice in {folder.parent}")
                seen.add(record["id"])
            rows.add(record)
            yield example.encode(record)

    shards: list[ShardInfo] = []
    parts: list[Path] = []
    stream = encoded()
    for first in stream:
        parts.append(folder / f"{split}-{len(parts):05d}")
        shards.append(write_shard(parts[-1], _until(itertools.chain([first], stream), shard_bytes)))
    for number, part in enumerate(parts):
        part.rename(folder / shard_name(example.kind, split, number, len(parts)))
    if shards:
        numbers, texts = rows.numbers(), text_columns(rows.texts)
        write_index(folder, example, split, shards, numbers, texts, about)
    return shards


def _until(stream: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Items of the stream until they are so many bytes; at least one."""
    total = 0
    while total < size and (item := next(stream, None)) is not None:
        total += len(item)
        yield item


def publish(made: Path, folder: str | os.PathLike, copied: Mapping[str, str] | None = None) -> None:
    """A dataset that was made in a local folder into a bucket, in place of the one there: that has
    gone until dataset_info.json, which tells that it is there, comes last.

    copied: those of its shards, empty in `made`, that lie in a bucket: name -> where, unless the
    shard has its name already.
    """
    copied = copied or {}
    names = {path.name for path in made.iterdir()}
    remote.remove(remote.join(folder, INFO))
    with contextlib.suppress(remote.NotFound):  # of a bucket in memory, before its first file
        for name in remote.list_names(folder):
            if ".array_record-" in name and name not in names:
                remote.remove(remote.join(folder, name))
    for name, source in copied.items():
        if remote.exists(source):
            remote.copy(source, remote.join(folder, name))
    for name in (*sorted(names - {INFO, *copied}), INFO):
        remote.upload(made / name, remote.join(folder, name))
