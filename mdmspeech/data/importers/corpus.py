"""What all corpora share: parts in a fixed order, records as a stream, one speaker of many, ids
that are there once, splits that follow from names.
"""

import array
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from mdmspeech.data.importers import checks
from mdmspeech.data.importers.files import Unreadable, file_names, join, list_names, size_of
from mdmspeech.data.importers.records import BadItem, Clip, Item
from mdmspeech.data.importers.tables import read_lines
from mdmspeech.data.storage.json_lines import BadRecord
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.errors import UserError

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".aiff", ".aif")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation", "devel"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_LICENCE_LINES = 60  # of a README or LICENSE that are looked at
_README = re.compile(r"readme(\.md|\.txt)?$", re.IGNORECASE)
_LICENCE = re.compile(r"(licen[cs]e|copying)(\.md|\.txt)?$", re.IGNORECASE)
_LICENCE_LINE = re.compile(r"\W*licen[cs]e\W*[:=]\s*(\S.{0,60})", re.IGNORECASE)
_SHOWN = 8  # names in a message


class Part(NamedTuple):
    """What is read in one go: a list, a shard, a speaker's folder. name: relative to the corpus;
    split: "" if each record says its own.
    """

    name: str
    split: str = ""


class Corpus:
    """A corpus of one format, see `registry.open_corpus` for the options.

    A subclass says how its folder is known (`find`), of which parts it is made, and how one is
    read.
    """

    format: ClassVar[str]
    looks_like: ClassVar[str]  # its layout, for messages
    options: ClassVar[tuple[str, ...]] = ()  # besides those of every corpus
    known_licence: ClassVar[str] = ""  # of the one corpus that has this layout
    known_language: ClassVar[str] = ""

    def __init__(self, root: str, names: list[str], **options: Any):
        """names: of what is in the folder `root`, or the one file of it that is the corpus."""
        self.root, self.names = root, names
        self.speaker = options.get("speaker") or ""
        self.language = options.get("language") or self.known_language
        self.licence = options.get("licence") or self.known_licence or licence_of(root)
        self.settings = {name: options[name] for name in self.options if options.get(name)}
        self._parts: list[Part] | None = None

    @classmethod
    def find(cls, root: str, names: list[str]) -> bool:
        """Whether a folder with these names is such a corpus; it may look into a few of them."""
        raise NotImplementedError

    def list_parts(self) -> list[Part]:
        """Its parts in their order."""
        raise NotImplementedError

    def read(self, part: Part) -> Iterator[Item | BadItem]:
        """The records of a part in their order."""
        raise NotImplementedError

    def parts(self) -> list[Part]:
        """What can be read by itself, by several workers say; listed once.

        Raises:
          UserError: there is none.
        """
        if self._parts is None:
            self._parts = self.list_parts()
            if not self._parts:
                raise UserError(
                    f"{self.root} lists nothing: {self.looks_like} is what it should be"
                )
        return self._parts

    def items(
        self, split: str = "", parts: Sequence[Part] | None = None
    ) -> Iterator[Item | BadItem]:
        """All records, or those of a split (and what could not be read and might be of it) or of
        some parts, in an order that follows from their names alone. An id that is there a second
        time is a BadItem.

        Raises:
          UserError: its one list cannot be read at all; nobody in the whole corpus is called as the
            wanted speaker.
        """
        seen, heard = Seen(), parts is not None
        others: dict[str, None] = {}
        for part in self.parts() if parts is None else parts:
            if split and part.split not in ("", split):
                continue
            for found in self._read_whole(part):
                if isinstance(found, Item):
                    if split and found.split != split:
                        continue
                    if self.speaker and found.speaker != self.speaker:
                        if len(others) <= _SHOWN:
                            others[found.speaker] = None
                        continue
                    heard = True
                    if seen.add(found.id):
                        found = BadItem(
                            found.where, f"the id {found.id[:80]} is there before", "id twice"
                        )
                yield found
        if self.speaker and not heard:
            known = ", ".join(sorted(filter(None, others))[:_SHOWN]) or "its records name none"
            raise UserError(
                f"{self.root} has nothing by a speaker called {self.speaker!r}; "
                f"some of its speakers: {known}"
            )

    def _read_whole(self, part: Part) -> Iterator[Item | BadItem]:
        """A part that cannot be read at all is one BadItem, if there are others."""
        try:
            yield from self.read(part)
        except Unreadable as error:
            if len(self.parts()) == 1:
                raise
            yield BadItem(part.name, str(error), "list or shard not readable")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of its parts; ("",) where only the records know theirs."""
        there = {part.split for part in self.parts()}
        return tuple(split for split in (*SPLITS, "") if split in there)

    def about(self) -> dict[str, Any]:
        """What is known before a record is read."""
        return {
            "format": self.format,
            "path": self.root,
            "parts": len(self.parts()),
            "splits": [split or "by record" for split in self.splits],
            "licence": self.licence,
            "language": self.language,
        }

    def item(
        self,
        where: str,
        name: Any,
        text: str,
        audio: Clip,
        *,
        needs_text: bool = True,
        split: str = "",
        language: str = "",
        licence: str = "",
        answer: str = "",
        **values: Any,
    ) -> Item | BadItem:
        """A record after the checks that all share; values: of `Item`. needs_text False: the text
        may be empty. What the record does not say is that of the corpus.
        """
        try:
            checks.check_id(name)
        except BadRecord as problem:
            return BadItem(where, str(problem), "id not usable")
        for field, said in (("text", text), ("answer", answer)):
            if said or (field == "text" and needs_text):
                try:
                    checks.check_said(field, said)
                except BadRecord as problem:
                    return BadItem(where, str(problem), f"{field} not usable")
        known = _SPLITS.get((split or "train").lower())
        if known is None:
            reason = f"split is {split[:40]!r}; use train, val or test, or leave it out"
            return BadItem(where, reason, "split unknown")
        return Item(
            id=str(name),
            text=text.strip(),
            where=where,
            audio=audio,
            answer=answer.strip(),
            split=known,
            language=language or self.language,
            licence=licence or self.licence,
            **values,
        )

    def file_clip(self, where: str, path: str) -> Clip:
        """Audio in a file. Raises BadItem if there is none, or nothing in it."""
        name = path.removeprefix(self.root).lstrip("/")
        size = size_of(path)
        if size is None:
            raise BadItem(where, f"its audio {name} is not there", "no audio file")
        if size == 0:
            raise BadItem(where, f"its audio {name} is an empty file", "audio of length 0")
        return Clip(name, where, path)


class Seen:
    """Ids that were seen, as digests of 64 bits in one table: some 25 bytes an id. (Two of 5
    million share one by chance once in a million corpora.)
    """

    def __init__(self):
        self._table, self._count = array.array("Q", bytes(8 * 1024)), 0

    def add(self, name: str) -> bool:
        """Whether it was there before."""
        data = name.encode("utf-8", "surrogatepass")
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1
        if self._put(digest):
            return True
        self._count += 1
        if 3 * self._count > 2 * len(self._table):
            old, self._table = self._table, array.array("Q", bytes(16 * len(self._table)))
            for digest in filter(None, old):
                self._put(digest)
        return False

    def _put(self, digest: int) -> bool:
        table, last = self._table, len(self._table) - 1
        at = digest & last
        while table[at]:
            if table[at] == digest:
                return True
            at = (at + 1) & last
        table[at] = digest
        return False


def split_of(name: str) -> str:
    """The split that a path's words tell, its last part first: "data/dev-clean/a.tar" -> "val"; ""
    if it tells none.
    """
    for piece in reversed(name.split("/")):
        for word in re.split(r"[^a-z]+", piece.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def find_audio(folder: str, stem: str, names: set[str] | None = None) -> str:
    """The audio file of that name with whatever ending; the first of `AUDIO` if there is none."""
    endings = ("", *AUDIO) if stem.lower().endswith(AUDIO) else AUDIO
    for ending in endings:
        path = join(folder, stem + ending)
        if (stem + ending in names) if names is not None else size_of(path) is not None:
            return path
    return join(folder, stem + endings[0])


def walk_files(root: str, names: list[str], *endings: str, depth: int = 2) -> list[str]:
    """Files with these endings in the folder and those below it, relative to it, sorted by their
    paths.
    """
    found = file_names(names, *endings)
    if depth:
        for folder in (name for name in names if name.endswith("/")):
            below = walk_files(
                join(root, folder), list_names(join(root, folder)), *endings, depth=depth - 1
            )
            found += [folder + name for name in below]
    return sorted(found)


def licence_of(root: str) -> str:
    """What a README's header ("license: mit") or the first line of a LICENSE says; "" for none."""
    names = list_names(root)
    readmes, licences = (
        [name for name in names if stem.match(name)] for stem in (_README, _LICENCE)
    )
    for name in readmes:
        for line in _first_lines(join(root, name)):
            if match := _LICENCE_LINE.match(line):
                return match[1].strip().strip("\"'*")
    for name in licences:
        if words := next(filter(None, map(str.strip, _first_lines(join(root, name)))), ""):
            return words[:60]
    return ""


def _first_lines(path: str) -> Iterator[str]:
    try:
        for number, line in read_lines(path):
            if number > _LICENCE_LINES:
                return
            yield line.decode("utf-8", "replace")
    except Unreadable:  # it says nothing of the licence, then
        return
