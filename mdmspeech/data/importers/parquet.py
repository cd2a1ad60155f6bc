"""Hugging Face's Parquet shards (data/train-00000-of-00005.parquet) with encoded audio in a column
{bytes, path}, see https://huggingface.co/docs/hub/datasets-audio. Read by pyarrow, some rows at a
time: the extra `parquet`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from mdmspeech.data.importers.corpus import Corpus, Part, split_of, walk_files
from mdmspeech.data.importers.files import (
    Unreachable,
    Unreadable,
    base_name,
    join,
    open_file,
    parent,
)
from mdmspeech.data.importers.records import BadItem, Clip, Item
from mdmspeech.errors import UserError

CURE = "pip install pyarrow"
_FAULTS = (OSError, ValueError, KeyError, NotImplementedError)  # what pyarrow's errors are
_ROWS = 16  # decoded at a time
# In this order: the first that is there. Words as they are said come before those as written.
_TEXT = (
    "text_normalized", "normalized_text", "text_normalised", "transcription_normalised",
    "transcription_normalized", "normalized_transcript", "text", "transcription", "transcript",
    "sentence",
)  # fmt: skip
_TRIED = 5  # files, until one can be read
_AUDIO = ("audio", "speech", "wav")
_SPEAKER = ("speaker_id", "speaker", "client_id", "reader_id", "speaker_name", "spk_id")
_ID = ("id", "utt_id", "utterance_id", "segment_id", "audio_id")
_LANGUAGE = ("language", "locale", "lang")
_FIELDS = ("gender", "age", "accent", "accents")


class Parquet(Corpus):
    """A file is a part; its split follows from its name or folder. text_column, audio_column: which
    ones, if their names do not tell. A record without an id has its audio's file name, or a digest of
    its audio.
    """

    format = "parquet"
    looks_like = (
        "train-00000-of-00002.parquet with the columns audio and text (or transcription, ...)"
    )
    options: ClassVar[tuple[str, ...]] = ("text_column", "audio_column")

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        columns = first_columns(root, names)
        return bool(columns) and not is_conversation(columns)

    def list_parts(self) -> list[Part]:
        return [
            Part(name, split_of(name) or "train")
            for name in walk_files(self.root, self.names, ".parquet")
        ]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        path = join(self.root, part.name)
        there = columns_of(path)
        text = pick(path, there, self.settings.get("text_column"), _TEXT, "text_column")
        audio = pick(path, there, self.settings.get("audio_column"), _AUDIO, "audio_column")
        speaker, name, language = (
            next((column for column in known if column in there), "")
            for known in (_SPEAKER, _ID, _LANGUAGE)
        )
        fields = [column for column in _FIELDS if column in there]
        wanted = [text, audio, *filter(None, (speaker, name, language)), *fields]
        for where, row in rows(path, part.name, wanted):
            if isinstance(row, BadItem):
                yield row
                continue
            try:
                clip = clip_of(where, row[audio], parent(path))
                yield self.item(
                    where,
                    words(row.get(name)) or name_of(clip),
                    words(row[text]),
                    clip,
                    speaker=words(row.get(speaker)),
                    language=words(row.get(language)),
                    split=part.split,
                    fields={column: row[column] for column in fields if row[column] is not None},
                )
            except BadItem as problem:
                yield problem


def columns_of(path: str) -> list[str]:
    """Names of a file's columns. Raises Unreadable."""
    file = _open(path)
    return list(file.schema_arrow.names)


def first_columns(root: str, names: list[str]) -> list[str]:
    """Names of the columns of the first file that can be read, [] if there is no file. UserError: none
    of the first few can be read.
    """
    files = walk_files(root, names, ".parquet")
    for number, name in enumerate(files[:_TRIED], 1):
        try:
            return columns_of(join(root, name))
        except Unreadable:
            if number == len(files[:_TRIED]):
                raise
    return []


def is_conversation(columns: Sequence[str]) -> bool:
    """Whether rows are a spoken question and its answer."""
    return "question_audio" in columns and "answer" in columns


def pick(
    path: str, there: Sequence[str], wanted: str | None, known: Sequence[str], option: str
) -> str:
    """The column to read: the wanted one, or the first known. UserError: there is none."""
    found = [wanted] if wanted else list(known)
    for column in found:
        if column in there:
            return column
    raise UserError(
        f"{path} has no column {found[0] if wanted else f'that is known as {known[0]}'}; it has "
        f"{', '.join(there)[:300]}: name the right one, --option {option}=NAME"
    )


def rows(
    path: str, name: str, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any] | BadItem]]:
    """(where, the row's cells or what is wrong) of every row, a few in memory at a time."""
    file, number = _open(path), 0
    try:
        for batch in file.iter_batches(_ROWS, columns=list(columns), use_threads=False):
            for i in range(batch.num_rows):
                number += 1
                where = f"{name}, row {number}"
                try:
                    yield where, {column: batch[column][i].as_py() for column in columns}
                except UnicodeDecodeError as error:
                    yield where, BadItem(where, f"not UTF-8 ({error.reason})", "line not usable")
    except Unreachable:
        raise
    except _FAULTS as error:
        where = f"{name}, row {number + 1}"
        reason = f"it and all that follow in this file cannot be read: {_first_line(error)}"
        yield where, BadItem(where, reason, "shard damaged")


def clip_of(where: str, cell: Any, folder: str) -> Clip:
    """Audio of a cell: {bytes, path}, or bytes alone. Raises BadItem if there is none."""
    path = words(cell.get("path")) if isinstance(cell, dict) else ""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(content, bytes):
        if not content:
            raise BadItem(where, "its audio has no bytes", "audio of length 0")
        return Clip(base_name(path) or "its audio", where, content=content)
    if content is None and path:
        return Clip(path, where, join(folder, path))
    reason = (
        "it has no audio"
        if not content and not isinstance(content, str)
        else f"its audio is a {type(content).__name__}, not bytes of an audio file"
    )
    raise BadItem(where, reason, "no audio file")


def name_of(clip: Clip) -> str:
    """What a record without an id is known by: wherever it lies, the same."""
    if clip.name and clip.name != "its audio":
        return clip.name.rpartition(".")[0] or clip.name
    return hashlib.sha256(clip.content).hexdigest()[:16]


def words(cell: Any) -> str:
    """A cell as text; "" for none."""
    return "" if cell is None else str(cell).strip()


def _open(path: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path} is Parquet; reading it needs pyarrow: {CURE}") from error
    try:
        return parquet.ParquetFile(open_file(path))
    except Unreachable:
        raise
    except _FAULTS as error:
        raise Unreadable(
            f"{path} is not readable as Parquet ({_first_line(error)}); fetch it again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]
