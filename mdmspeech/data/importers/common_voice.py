"""Mozilla Common Voice (https://github.com/common-voice/cv-dataset): tables with tabs (train.tsv,
dev.tsv, test.tsv, validated.tsv, ...: client_id, path, sentence, locale, ...) beside clips/*.mp3.
"""

from collections.abc import Iterator

from mdmspeech.data.importers.corpus import AUDIO, Corpus, Part, split_of
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
from mdmspeech.data.importers.tables import read_lines, read_table
from mdmspeech.errors import UserError

_NEEDED = ("client_id", "path", "sentence")
_OFFICIAL, _ALL = ("train", "dev", "test"), "validated"
_FIELDS = ("gender", "age", "accents", "accent", "variant", "up_votes", "down_votes")


class CommonVoice(Corpus):
    """The official splits, which have one recording of each sentence and no speaker in two of them;
    tables: others, with commas between them ("validated" has all that listeners agreed on, those of
    the official splits among them). The folder is that of a language, or holds several of them.
    """

    format = "common_voice"
    looks_like = "validated.tsv with the columns client_id, path and sentence, and clips/"
    options = ("tables",)
    known_licence = "CC0-1.0"

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        return bool(_languages(root, names))

    def list_parts(self) -> list[Part]:
        wanted = [name.strip() for name in self.settings.get("tables", "").split(",") if name]
        parts = []
        for folder in _languages(self.root, self.names):
            there = [name[:-4] for name in file_names(list_names(join(self.root, folder)), ".tsv")]
            default = [name for name in _OFFICIAL if name in there] or [_ALL]
            for name in wanted or default:
                if name not in there:
                    raise UserError(
                        f"{join(self.root, folder)} has no {name}.tsv; it has "
                        f"{', '.join(there)}: name some of these as tables"
                    )
                parts.append(
                    Part(join(folder, f"{name}.tsv").lstrip("/"), split_of(name) or "train")
                )
        return parts

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        folder = join(self.root, part.name.rpartition("/")[0])
        spoken = part.name.rpartition("/")[0] or base_name(self.root)
        for number, row in read_table(join(self.root, part.name), _NEEDED):
            where = f"{part.name}, line {number}"
            if isinstance(row, str):
                yield BadItem(where, row, "line not usable")
                continue
            name = row["path"] if row["path"].lower().endswith(AUDIO) else f"{row['path']}.mp3"
            try:
                yield self.item(
                    where,
                    base_name(name).rpartition(".")[0],
                    row["sentence"],
                    self.file_clip(where, join(folder, "clips", base_name(name))),
                    speaker=row["client_id"],
                    language=row.get("locale") or spoken,
                    split=part.split,
                    fields={field: row[field] for field in _FIELDS if row.get(field)},
                )
            except BadItem as problem:
                yield problem


def _languages(root: str, names: list[str]) -> list[str]:
    """Folders of languages: "" for the folder itself, or those below it."""
    if _is_language(root, names):
        return [""]
    return [
        name
        for name in folder_names(names)
        if _is_language(join(root, name), seen_names(join(root, name)))
    ]


def _is_language(root: str, names: list[str]) -> bool:
    for name in file_names(names, ".tsv"):
        try:
            _, first = next(read_lines(join(root, name)), (0, b""))
        except Unreadable:
            continue
        if {b"client_id", b"path"} <= {cell.strip() for cell in first.split(b"\t")}:
            return True
    return False
