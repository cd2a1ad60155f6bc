"""LibriSpeech (https://www.openslr.org/12): SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with
"id TEXT" a line, beside ID.flac; SPEAKERS.TXT with "id | sex | subset | minutes | name" a line.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from mdmspeech.data.importers.corpus import Corpus, Part, find_audio, split_of
from mdmspeech.data.importers.files import (
    Unreadable,
    base_name,
    file_names,
    folder_names,
    join,
    list_names,
    seen_names,
)
from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.importers.tables import decode, read_lines
from mdmspeech.data.storage.json_lines import BadRecord

_LOOKED_INTO = 5  # chapters, until one tells what the corpus is
_SPLIT = re.compile(r"(train|dev|test)[-_](clean|other)([-_]\d+)?$")


class LibriSpeech(Corpus):
    """A speaker of a split is a part. The folder may be that of one split. Texts are capital
    letters without punctuation, as they are in the corpus.
    """

    format = "librispeech"
    looks_like = "train-clean-100/84/121123/84-121123.trans.txt and the like"
    known_licence = "CC BY 4.0"
    known_language = "en"
    transcripts: tuple[str, ...] = (".trans.txt",)

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        chapters = (
            join(root, split, speaker, chapter)
            for split in split_folders(root, names)
            for speaker in folder_names(seen_names(join(root, split)))
            for chapter in folder_names(seen_names(join(root, split, speaker)))
        )
        return any(
            file_names(seen_names(chapter), *cls.transcripts)
            for chapter in itertools.islice(chapters, _LOOKED_INTO)
        )

    def list_parts(self) -> list[Part]:
        self.speakers = read_speakers(self.root)
        return [
            Part(f"{split}/{speaker}".lstrip("/"), split_of(split or base_name(self.root)))
            for split in split_folders(self.root, self.names)
            for speaker in folder_names(list_names(join(self.root, split)))
        ]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        self.parts()
        for chapter in folder_names(list_names(join(self.root, part.name))):
            yield from self.read_chapter(part, f"{part.name}/{chapter}")

    def read_chapter(self, part: Part, chapter: str) -> Iterator[Item | BadItem]:
        """The records of one chapter's folder."""
        folder = join(self.root, chapter)
        names = list_names(folder)
        told: set[str] = set()
        for listed in file_names(names, *self.transcripts):
            for number, data in read_lines(join(folder, listed)):
                where = f"{chapter}/{listed}, line {number}"
                if not data.strip():
                    continue
                try:
                    name, text = (*decode(data).split(maxsplit=1), "")[:2]
                    told.add(name)
                    yield self.recording(where, part, name, text, find_audio(folder, name))
                except BadItem as problem:
                    yield problem
                except BadRecord as problem:
                    yield BadItem(where, str(problem), "line not usable")
        yield from self.without_text(chapter, names, told)

    def recording(
        self, where: str, part: Part, name: str, text: str, path: str, **fields: Any
    ) -> Item | BadItem:
        """A record of the part's speaker, with what is known of her. Raises BadItem without audio."""
        speaker = base_name(part.name)
        return self.item(
            where,
            name,
            text,
            self.file_clip(where, path),
            speaker=speaker,
            split=part.split,
            fields={**self.speakers.get(speaker, {}), **fields},
        )

    def without_text(self, chapter: str, names: list[str], told: set[str]) -> Iterator[BadItem]:
        """Audio that no text speaks of."""
        for name in file_names(names, ".flac", ".wav", ".mp3"):
            if name.rpartition(".")[0] not in told:
                yield BadItem(f"{chapter}/{name}", "no text says what is said in it", "no text")


def split_folders(root: str, names: list[str]) -> list[str]:
    """The folders of splits; "" if the corpus's folder is itself one."""
    found = [name for name in folder_names(names) if _SPLIT.match(name)]
    return found or ([""] if _SPLIT.match(base_name(root)) else [])


def read_speakers(root: str) -> dict[str, dict[str, str]]:
    """Gender and name by speaker, of SPEAKERS.TXT or speakers.tsv; {} if there is none."""
    found = {}
    for name in list_names(root):
        if name.lower() not in ("speakers.txt", "speakers.tsv"):
            continue
        try:
            for _, data in read_lines(join(root, name)):
                line = data.decode("utf-8", "replace")
                row = [cell.strip() for cell in line.split("|" if "|" in line else "\t")]
                if row[0].isdigit() and len(row) > 2:
                    found[row[0]] = {"gender": row[1], "name": row[-1]}
        except Unreadable:  # the records are there without it
            continue
    return found
