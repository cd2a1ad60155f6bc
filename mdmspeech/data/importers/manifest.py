"""A folder with a list of one JSON object a line, see `recordings.manifests`: {"audio", "text"},
and "answer" for questions. Beside the fields of that list it takes `speaker`, `language`,
`licence`, `units` (tokens of the answer, .npy) and `answer_audio`.
"""

from collections.abc import Iterator
from typing import Any

from mdmspeech.data.importers import checks
from mdmspeech.data.importers.corpus import Corpus, Part, split_of
from mdmspeech.data.importers.files import Unreadable, file_names, join
from mdmspeech.data.importers.records import BadItem, Item, Units
from mdmspeech.data.importers.tables import read_objects
from mdmspeech.data.storage.json_lines import BadRecord

LISTS = (".jsonl", ".json", ".ndjson")
_LOOKED_AT = 20  # lines of a list, until one tells what it is


class Manifest(Corpus):
    """Every list of the folder is a part. A list's name is its records' split where they do not say
    theirs: train.jsonl, dev.jsonl.
    """

    format = "manifest"
    looks_like = 'a .jsonl file with {"audio": "a.wav", "text": "..."} a line'

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        return any("audio" in first_object(join(root, name)) for name in lists(root, names))

    def list_parts(self) -> list[Part]:
        found = lists(self.root, self.names)
        return [Part(name) for name in found if "audio" in first_object(join(self.root, name))]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        path = join(self.root, part.name)
        for where, entry in read_objects(path):
            try:
                if isinstance(entry, BadRecord):
                    raise entry
                yield self._item(where, checks.check_entry(entry, ("audio", "text")), part)
            except BadItem as problem:
                yield problem
            except BadRecord as problem:
                yield BadItem(where, str(problem), "line not usable")

    def _item(self, where: str, entry: dict[str, Any], part: Part) -> Item | BadItem:
        return entry_item(self, where, entry, self.root, split_of(part.name))


def entry_item(
    corpus: Corpus,
    where: str,
    entry: dict[str, Any],
    folder: str,
    split: str = "",
    codec: str = "",
    needs_text: bool = True,
) -> Item | BadItem:
    """The record of a checked entry of a list; paths are relative to `folder`. split: if it does
    not say its own; codec: whose tokens its `units` are.
    """
    for name in ("speaker", "language", "licence", "units", "answer_audio"):
        kinds = (str, int) if name == "speaker" else (str,)  # speakers may have numbers
        if not isinstance(entry.get(name, ""), kinds):
            raise BadRecord(f"{name} is a {type(entry[name]).__name__}; give text")
    answer_audio, units = entry.get("answer_audio"), entry.get("units")
    taken = ("id", "audio", "text", "answer", "speaker", "language", "licence", "split", "units")
    return corpus.item(
        where,
        entry.get("id", entry["audio"]),
        entry["text"],
        corpus.file_clip(where, join(folder, entry["audio"])),
        answer=entry.get("answer", ""),
        speaker=str(entry.get("speaker", entry.get("voice", ""))),
        language=entry.get("language", ""),
        licence=entry.get("licence", ""),
        split=entry.get("split") or split,
        units=Units(where, codec, join(folder, units)) if units else None,
        answer_audio=corpus.file_clip(where, join(folder, answer_audio)) if answer_audio else None,
        fields={name: value for name, value in entry.items() if name not in taken},
        needs_text=needs_text,
    )


def lists(root: str, names: list[str]) -> list[str]:
    """The files that may list records, JSON lines before JSON."""
    lines = file_names(names, ".jsonl", ".ndjson")
    return lines or file_names(names, *LISTS)


def first_object(path: str) -> dict[str, Any]:
    """The first object of a list, {} if its first lines have none."""
    try:
        for number, (_, entry) in enumerate(read_objects(path), 1):
            if isinstance(entry, dict):
                return entry
            if number == _LOOKED_AT:
                break
    except Unreadable:  # told when it is read
        pass
    return {}
