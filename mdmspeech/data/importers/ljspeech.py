"""LJSpeech (https://keithito.com/LJ-Speech-Dataset) and all that are laid out like it: metadata.csv
with "id|text|normalised text" a line, without quoting, and wavs/ID.wav.
"""

from collections.abc import Iterator

from mdmspeech.data.importers.corpus import Corpus, Part, find_audio
from mdmspeech.data.importers.files import Unreadable, base_name, folder_names, join, list_names
from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.importers.tables import cells, decode, read_lines
from mdmspeech.data.storage.json_lines import BadRecord

_TABLE = "metadata.csv"
_FOLDERS = ("wavs", "wav", "audio", "clips", "wav48")
_COLUMNS = 3


class LJSpeech(Corpus):
    """The text is that of the third column, with numbers and abbreviations as words, if there is one."""

    format = "ljspeech"
    looks_like = 'metadata.csv with "id|text|normalised text" a line, and wavs/'

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        if _TABLE not in names:
            return False
        try:
            return b"|" in next(read_lines(join(root, _TABLE)), (0, b""))[1]
        except Unreadable:
            return False

    def list_parts(self) -> list[Part]:
        return [Part(_TABLE, "train")]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        folders = folder_names(list_names(self.root))
        folder = next((name for name in _FOLDERS if name in folders), "")
        for number, data in read_lines(join(self.root, part.name)):
            where = f"{part.name}, line {number}"
            if data.strip():
                try:
                    yield self._item(where, decode(data), join(self.root, folder))
                except BadItem as problem:
                    yield problem
                except BadRecord as problem:
                    yield BadItem(where, str(problem), "line not usable")

    def _item(self, where: str, line: str, folder: str) -> Item | BadItem:
        row = cells(line, "|", _COLUMNS)
        if len(row) < 2 or not row[0]:
            raise BadRecord('not "id|text|normalised text"')
        name, text = row[0], row[-1] or row[1]
        if "/" in name:  # a path from the corpus's own folder
            folder = self.root
        audio = self.file_clip(where, find_audio(folder, name))
        stem = base_name(audio.path).rpartition(".")[0]
        return self.item(where, stem, text, audio, fields={"written": row[1]})
