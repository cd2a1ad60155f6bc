"""Which formats there are, and which one a folder holds."""

from typing import Any

from mdmspeech.data.importers.common_voice import CommonVoice
from mdmspeech.data.importers.corpus import Corpus
from mdmspeech.data.importers.files import (
    base_name,
    file_names,
    is_folder,
    join,
    list_names,
    parent,
    size_of,
)
from mdmspeech.data.importers.librispeech import LibriSpeech
from mdmspeech.data.importers.libritts import LibriTTS
from mdmspeech.data.importers.ljspeech import LJSpeech
from mdmspeech.data.importers.manifest import Manifest
from mdmspeech.data.importers.parquet import Parquet
from mdmspeech.data.importers.vctk import VCTK
from mdmspeech.data.importers.vocalnet import VocalNet
from mdmspeech.data.importers.voice_assistant import VoiceAssistant
from mdmspeech.data.importers.webdataset import WebDataset
from mdmspeech.errors import UserError

FORMATS: dict[str, type[Corpus]] = {
    kind.format: kind
    for kind in (
        Manifest, VocalNet, LJSpeech, LibriSpeech, LibriTTS, VCTK, CommonVoice, Parquet,
        VoiceAssistant, WebDataset,
    )
}  # fmt: skip
# their files may lie some folders down, so that looking for them lists much
_SHARDS = {
    Parquet: (".parquet",),
    VoiceAssistant: (".parquet",),
    WebDataset: (".tar", ".tgz", ".gz"),
}
AUTO = "auto"
_COMMON = ("speaker", "language", "licence")  # options of every format
_DEEPEST = 3  # folders with nothing else in them, as archives unpack into
_SHOWN = 8  # names in a message


def open_corpus(path: str, format: str = AUTO, **options: Any) -> Corpus:
    """The corpus in a folder, or in one file of its format. Nothing is read but what tells the
    format.

    Args:
      path: the folder, or a file (manifest.jsonl, shard.tar, ...).
      format: one of `FORMATS`; "auto" finds out.
      options: of every format `speaker` (only her recordings), `language` and `licence` (where the
        corpus does not say them); of some, see their classes, `folder`, `mic`, `tables`,
        `text_column`, `audio_column`.

    Raises:
      UserError: nothing there, no format or several of them fit, an option that the format has not.
    """
    if format != AUTO and format not in FORMATS:
        raise UserError(f"--format {format}: the formats are {', '.join(FORMATS)}")
    root, names = _place(str(path))
    wanted = FORMATS if format == AUTO else {format: FORMATS[format]}
    looked_into = root
    for _ in range(_DEEPEST):
        found = _find(wanted, root, names)
        if found:
            break
        inner = [name for name in names if name.endswith("/")]
        if len(inner) != 1:
            break
        root = join(root, inner[0][:-1])
        names = list_names(root)
    if len(found) > 1:
        told = " or ".join(f"{kind.format} ({kind.looks_like})" for kind in found)
        raise UserError(f"{path} could be {told}; say which: --format {found[0].format}")
    if not found:
        raise UserError(_unknown(str(path), looked_into, wanted))
    kind = found[0]
    known = (*_COMMON, *kind.options)
    if unknown := [name for name in options if name not in known and options[name]]:
        raise UserError(
            f"{kind.format} has no option {unknown[0]}; its options are {', '.join(known)}"
        )
    return kind(root, names, **options)


def _find(wanted: dict[str, type[Corpus]], root: str, names: list[str]) -> list[type[Corpus]]:
    """The formats that the folder may be of. Shards below it count only if it is nothing else."""
    found = [kind for kind in wanted.values() if kind not in _SHARDS and kind.find(root, names)]
    return found + [
        kind
        for kind, endings in _SHARDS.items()
        if kind in wanted.values()
        and (not found or file_names(names, *endings))
        and kind.find(root, names)
    ]


def _place(path: str) -> tuple[str, list[str]]:
    """The folder, and the names in it that count: all, or that of the one file."""
    if not path.strip():
        raise UserError("the path is empty; name the folder of a corpus")
    if is_folder(path):
        return path.rstrip("/") or "/", list_names(path)
    if size_of(path) is not None:
        return parent(path), [base_name(path)]
    raise UserError(f"{path} does not exist; name the folder of a corpus, or a file of it")


def _unknown(path: str, root: str, wanted: dict[str, type[Corpus]]) -> str:
    names = list_names(root) if is_folder(path) else [base_name(path)]
    there = ", ".join(names[:_SHOWN]) or "nothing"
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    looked = "; ".join(f"{kind.format}: {kind.looks_like}" for kind in wanted.values())
    if len(wanted) == 1:
        return f"{path} is no {looked.partition(':')[0]} corpus: it has {there}{more}, not {looked}"
    return (
        f"{path} is no corpus of a known format: it has {there}{more}. Looked for {looked}. "
        "If it is one of them all the same: --format NAME"
    )
