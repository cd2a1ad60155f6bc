"""Where entries come from: a corpus of any format (`data.importers`), or texts alone."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mdmspeech import remote
from mdmspeech.data.beam.records import Entry
from mdmspeech.data.importers import BadItem, Item, open_corpus
from mdmspeech.data.importers.corpus import Corpus, Part, walk_files
from mdmspeech.data.importers.files import base_name, is_folder, join, list_names, parent, size_of
from mdmspeech.data.importers.records import Clip
from mdmspeech.data.importers.tables import decode, read_lines, read_objects
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError

TEXTS = "texts"
_WITHOUT_SOUND = Clip("", "")
_SAID = ("answer", "split", "language", "licence", "speaker")


@dataclasses.dataclass(frozen=True)
class Source:
    """A corpus, by what opens it: path, format and options of `data.importers.open_corpus`; the format
    "texts" is a file or folder of .txt (a text a line) or .jsonl ({"text": ...} a line).
    """

    path: str
    format: str = "auto"
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def open(self) -> Corpus:
        """Raises UserError for what is no corpus."""
        if self.format == TEXTS:
            return _texts(self.path, dict(self.options))
        return open_corpus(self.path, self.format, **dict(self.options))


def entries(corpus: Corpus, part: Part) -> Iterator[Entry]:
    """The entries of a part, numbered from 1. What another speaker says is none."""
    for number, found in enumerate(corpus.items(parts=[part]), 1):
        yield Entry(part.name, number, found)


def has_sound(item: Item) -> bool:
    """Whether there is a recording, which may be missing or broken."""
    return bool(item.audio.path or item.audio.content)


def digest(entries: Iterable[Entry], settings: str) -> str:
    """Of everything that a unit is made from: what its entries say, their audio (files by their size
    and version), and the settings. Another one makes it again.
    """
    hashed = hashlib.sha256(settings.encode())
    for entry in entries:
        hashed.update(json.dumps(_described(entry), default=str, sort_keys=True).encode())
    return hashed.hexdigest()[:24]


def _described(entry: Entry) -> list[Any]:
    found = entry.found
    if isinstance(found, BadItem):
        return [entry.part, found.where, found.reason, found.kind]
    told = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if field.name not in ("audio", "answer_audio", "units", "fields")
    }
    clips = [_clip(found.audio), _clip(found.answer_audio)]
    units = found.units and [_version(found.units.path), found.units.values, found.units.codec]
    return [entry.part, told, dict(found.fields), clips, units]


def _clip(clip: Clip | None) -> list[str] | None:
    if clip is None:
        return None
    content = hashlib.sha256(clip.content).hexdigest() if clip.content else ""
    return [clip.name, clip.path, _version(clip.path), content]


def _version(path: str) -> str:
    if not path:
        return ""
    try:
        found = remote.stat(path)
    except (UserError, ValueError, OSError):
        return "missing"
    return f"{found.size} {found.version}"


class Texts(Corpus):
    """Texts to be spoken, a file a part. Lines of JSON may say id, text, answer, split, language and
    speaker (for the voice); a record without an id is known by its file and line.
    """

    format = TEXTS
    looks_like = 'a .txt file with a text a line, or .jsonl with {"text": "..."} a line'

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        return bool(walk_files(root, names, ".txt", ".jsonl"))

    def list_parts(self) -> list[Part]:
        return [Part(name) for name in walk_files(self.root, self.names, ".txt", ".jsonl")]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        path = join(self.root, part.name)
        for where, said in read_objects(path) if part.name.endswith(".jsonl") else _lines(path):
            try:
                if isinstance(said, BadRecord):
                    raise said
                yield self._item(where, said)
            except BadItem as problem:
                yield problem
            except BadRecord as problem:
                yield BadItem(where, str(problem), "line not usable")

    def _item(self, where: str, said: dict[str, Any]) -> Item | BadItem:
        if wrong := [key for key in ("text", *_SAID) if not isinstance(said.get(key, ""), str)]:
            raise BadRecord(f"{wrong[0]} is a {type(said[wrong[0]]).__name__}; give text")
        told = {key: said.get(key, "") for key in _SAID}
        name = said.get("id", where.replace(", line ", "-"))
        return self.item(where, name, said.get("text", ""), _WITHOUT_SOUND, **told)


def _lines(path: str) -> Iterator[tuple[str, dict[str, Any] | BadRecord]]:
    for number, line in read_lines(path):
        if line.strip():
            where = f"{base_name(path)}, line {number}"
            try:
                yield where, {"text": decode(line).strip()}
            except BadRecord as problem:
                yield where, problem


def _texts(path: str, options: dict[str, Any]) -> Texts:
    if is_folder(path):
        root, names = path.rstrip("/") or "/", list_names(path)
    elif size_of(path) is not None:
        root, names = parent(path), [base_name(path)]
    else:
        raise UserError(f"{path} does not exist; name a file or folder of texts")
    if not Texts.find(root, names):
        raise UserError(f"{path} has no texts: {Texts.looks_like} is what it should be")
    return Texts(root, names, **options)
