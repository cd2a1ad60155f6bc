"""WebDataset (https://github.com/webdataset/webdataset): tar shards in which the files of a record
share a name up to the first dot and stand together: key.wav (flac, mp3, ...) beside key.txt or
key.json. Read front to back, a record in memory at a time.
"""

import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from mdmspeech.data.importers.corpus import AUDIO, Corpus, Part, split_of, walk_files
from mdmspeech.data.importers.files import Unreachable, join, open_file
from mdmspeech.data.importers.records import BadItem, Clip, Item
from mdmspeech.data.importers.tables import decode
from mdmspeech.data.storage.json_lines import BadRecord, check_text, parse

_NAME = re.compile(r"((?:.*/|)[^.]+)\.([^/]*)")  # that library's own rule
_TEXTS = ("txt", "text", "normalized.txt", "transcript", "lab")
_TEXT_FIELDS = ("normalized_text", "text", "transcription", "transcript", "sentence")
_SPEAKERS = ("speaker", "speaker_id", "spk", "client_id")
_LANGUAGES = ("language", "lang", "locale")
_LARGEST = 512 << 20  # bytes of a member
_LOOKED_AT = 3  # records of a shard, until one tells what it is
_MOST = 64  # members of a record


class WebDataset(Corpus):
    """A shard is a part; its split follows from its name or folder, or from a record's JSON."""

    format = "webdataset"
    looks_like = "shard-000000.tar with key.wav (or flac, mp3) and key.txt or key.json in it"

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        files = walk_files(root, names, *_ENDINGS)
        first = itertools.islice(_records(join(root, files[0]), "") if files else (), _LOOKED_AT)
        return any(
            isinstance(members, BadItem)
            or (_sounds(members) and any(name in members for name in (*_TEXTS, "json")))
            for _, members in first
        )

    def list_parts(self) -> list[Part]:
        return [Part(name, split_of(name)) for name in walk_files(self.root, self.names, *_ENDINGS)]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        for key, members in _records(join(self.root, part.name), part.name):
            if isinstance(members, BadItem):
                yield members
                continue
            where = f"{part.name}, {key}"
            try:
                yield self._item(where, key, members, part.split)
            except BadItem as problem:
                yield problem
            except BadRecord as problem:
                yield BadItem(where, str(problem), "text not usable")

    def _item(self, where: str, key: str, members: dict[str, bytes], split: str) -> Item | BadItem:
        said = _json(members.get("json"))
        sounds = _sounds(members)
        if len(sounds) != 1:
            what = f"{len(sounds)} audio files: {', '.join(sounds)}" if sounds else "no audio file"
            raise BadItem(where, f"{what} in {_shown(members)}", "no audio file")
        if not members[sounds[0]]:
            raise BadItem(where, f"{key}.{sounds[0]} has no bytes", "audio of length 0")
        text = next((decode(members[name]) for name in _TEXTS if name in members), None)
        if text is None:
            text = _first(said, _TEXT_FIELDS)
        if text is None:
            raise BadItem(where, f"no text in {_shown(members)}", "no text")
        return self.item(
            where,
            said.get("id") or said.get("__key__") or key,
            " ".join(text.removeprefix("\ufeff").split()),
            Clip(f"{key}.{sounds[0]}", where, content=members[sounds[0]]),
            answer=_first(said, ("answer",)) or "",
            speaker=_first(said, _SPEAKERS) or "",
            language=_first(said, _LANGUAGES) or "",
            split=split or _first(said, ("split",)) or "",
            licence=_first(said, ("licence", "license")) or "",
        )


_ENDINGS = (".tar", ".tar.gz", ".tgz")


def _records(path: str, name: str) -> Iterator[tuple[str, dict[str, bytes] | BadItem]]:
    """(key, its members by what follows the key's dot) of a shard, or what is wrong with it."""
    key, members = "", {}
    try:
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r|*") as shard:
            for member in shard:
                parts = _NAME.fullmatch(member.name.removeprefix("./"))
                if not member.isfile() or not parts:
                    continue
                suffix = parts[2].lower()
                if parts[1] != key or suffix in members or len(members) >= _MOST:
                    if members:
                        yield key, members
                    key, members = parts[1], {}
                if member.size > _LARGEST:
                    reason = f"{member.name} has {member.size:,} bytes"
                    yield key, BadItem(f"{name}, {key}", reason, "audio too long")
                    continue
                content = shard.extractfile(member)
                members[suffix] = content.read() if content else b""
    except Unreachable:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        where = f"{name}, {key or 'its beginning'}"
        reason = f"the shard is damaged or cut off there, and what follows is lost ({error})"
        yield key, BadItem(where, reason, "shard damaged")
        return
    if members:
        yield key, members


def _sounds(members: dict[str, bytes]) -> list[str]:
    return [name for name in members if f".{name}".endswith(AUDIO)]


def _json(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    value = parse(data.removeprefix(b"\xef\xbb\xbf"))
    if not isinstance(value, dict):
        raise BadRecord(f"its JSON is a {type(value).__name__}, not an object")
    check_text(value)
    return value


def _first(said: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the fields that is there, as text."""
    for name in names:
        value = said.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            raise BadRecord(f"{name} is {json.dumps(value)[:40]}, not text")
    return None


def _shown(members: dict[str, bytes]) -> str:
    return f"a record of {', '.join(members)[:80]}; its files have to stand together in the shard"
