"""VCTK (https://datashare.ed.ac.uk/handle/10283/3443): txt/SPEAKER/ID.txt beside
wav48_silence_trimmed/SPEAKER/ID_mic1.flac (0.92, two microphones) or wav48/SPEAKER/ID.wav (0.80);
speaker-info.txt. The texts of p315 are lost, and p280 has no second microphone.
"""

from collections.abc import Iterator

from mdmspeech.data.importers.corpus import AUDIO, Corpus, Part
from mdmspeech.data.importers.files import (
    Unreadable,
    file_names,
    folder_names,
    join,
    list_names,
    seen_names,
)
from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.importers.tables import read_lines, read_text
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.errors import UserError

_AUDIO = ("wav48_silence_trimmed", "wav48", "wavs", "wav")
_MICS = ("mic1", "mic2")


class VCTK(Corpus):
    """A speaker is a part. mic: "mic1" (the default) or "mic2"."""

    format = "vctk"
    looks_like = "txt/p225/p225_001.txt and wav48_silence_trimmed/p225/p225_001_mic1.flac"
    options = ("mic",)
    known_licence = "CC BY 4.0"
    known_language = "en"

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        folders = folder_names(names)
        return "txt" in folders and any(name in folders for name in _AUDIO)

    def list_parts(self) -> list[Part]:
        mic = self.settings.get("mic", _MICS[0])
        if mic not in _MICS:
            raise UserError(f"mic is {mic!r}; VCTK has {' and '.join(_MICS)}")
        self.mic, folders = f"_{mic}", folder_names(self.names)
        self.folder = next(name for name in _AUDIO if name in folders)
        self.speakers = _read_speakers(self.root)
        spoken = folder_names(list_names(join(self.root, self.folder)))
        written = folder_names(list_names(join(self.root, "txt")))
        return [Part(name, "train") for name in sorted({*spoken, *written})]

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        self.parts()
        audio, written = (
            seen_names(join(self.root, kind, part.name)) for kind in (self.folder, "txt")
        )
        texts = {name[:-4] for name in file_names(written, ".txt")}
        found = {}
        for name in file_names(audio, *AUDIO):
            stem = name.rpartition(".")[0]
            if stem.endswith(self.mic) or not stem.endswith(("_mic1", "_mic2")):
                found[stem.removesuffix(self.mic)] = name
        for stem in sorted({*texts, *found}):
            where = f"txt/{part.name}/{stem}.txt"
            if stem not in texts:
                yield BadItem(
                    f"{self.folder}/{part.name}/{found[stem]}", f"{where} is not there", "no text"
                )
            elif stem not in found:
                reason = f"no recording of it by {self.mic[1:]} is there"
                yield BadItem(where, reason, "no audio file")
            else:
                yield self._item(where, part.name, stem, found[stem])

    def _item(self, where: str, speaker: str, stem: str, name: str) -> Item | BadItem:
        try:
            return self.item(
                where,
                stem,
                read_text(join(self.root, where)),
                self.file_clip(where, join(self.root, self.folder, speaker, name)),
                speaker=speaker,
                fields=self.speakers.get(speaker, {}),
            )
        except BadItem as problem:
            return problem
        except BadRecord as problem:
            return BadItem(where, str(problem), "text not usable")


def _read_speakers(root: str) -> dict[str, dict[str, str]]:
    """Age, gender and accent by speaker, of speaker-info.txt: columns between blanks, ids with or
    without their "p".
    """
    found = {}
    try:
        for _, data in read_lines(join(root, "speaker-info.txt")):
            row = data.decode("utf-8", "replace").split()
            if len(row) >= 4 and row[0] != "ID":
                name = f"p{row[0]}" if row[0].isdigit() else row[0]
                found[name] = {"age": row[1], "gender": row[2], "accent": row[3]}
    except Unreadable:  # the records are there without it
        pass
    return found
