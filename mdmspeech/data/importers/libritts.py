"""LibriTTS and LibriTTS-R (https://www.openslr.org/60, /141): SPLIT/SPEAKER/CHAPTER/ID.wav with
ID.normalized.txt and ID.original.txt; CHAPTER's ID.trans.tsv has "id, original, normalised" a line.
"""

from collections.abc import Iterator

from mdmspeech.data.importers.corpus import Part, find_audio
from mdmspeech.data.importers.files import file_names, join, list_names
from mdmspeech.data.importers.librispeech import LibriSpeech
from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.importers.tables import cells, decode, read_lines, read_text
from mdmspeech.data.storage.json_lines import BadRecord

_NORMALISED, _ORIGINAL, _TABLE = ".normalized.txt", ".original.txt", ".trans.tsv"


class LibriTTS(LibriSpeech):
    """The text is the normalised one, of its own file or else of the chapter's table."""

    format = "libritts"
    looks_like = "train-clean-100/103/1241/103_1241_000000_000001.normalized.txt and the like"
    transcripts = (_NORMALISED, _TABLE)

    def read_chapter(self, part: Part, chapter: str) -> Iterator[Item | BadItem]:
        folder = join(self.root, chapter)
        names = list_names(folder)
        there, told = set(names), set()
        listed: dict[str, tuple[str, str]] = {}  # name -> where it is, its text
        for name in file_names(names, _NORMALISED):
            listed[name.removesuffix(_NORMALISED)] = (f"{chapter}/{name}", "")
        for table in file_names(names, _TABLE):
            for number, data in read_lines(join(folder, table)):
                where = f"{chapter}/{table}, line {number}"
                try:
                    row = cells(decode(data), "\t", 3)
                    listed.setdefault(row[0], (where, row[-1] if len(row) > 1 else ""))
                except BadRecord as problem:
                    yield BadItem(where, str(problem), "line not usable")
        for name, (where, text) in sorted(listed.items()):
            told.add(name)
            try:
                if name + _NORMALISED in there:
                    text = read_text(join(folder, name + _NORMALISED))
                yield self.recording(where, part, name, text, find_audio(folder, name, there))
            except BadItem as problem:
                yield problem
            except BadRecord as problem:
                yield BadItem(where, str(problem), "text not usable")
        yield from self.without_text(chapter, names, told)
