"""Users' own recordings as an `ExampleSource`: a folder of audio with a JSONL manifest, or
VocalNet's JSON conversations.

Manifest: one JSON object a line, `{"audio": "a/b.wav", "text": "..."}` for a voice, with `"answer"`
for questions; optional `id`, `split` (default "train"), `voice`, `family`, `symbols`, `frames`,
`f0`. Audio may lie anywhere (paths are relative to the manifest's folder, or absolute). VocalNet: a
JSON list of `{"id", "speech": "x.wav", "conversations": [human, gpt], "units": "x.npy"}`.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mdmspeech.audio.wave import load_wave, to_int16
from mdmspeech.data.importers.checks import ARRAYS, LONGEST, as_units, check_entry, from_vocalnet
from mdmspeech.data.storage.json_lines import BadRecord, parse, read_objects
from mdmspeech.errors import UserError

_SHOWN = 100  # letters of a name, in messages


class UserRecordings:
    """Audio is decoded when an example is asked for, mono, resampled to `rate`; missing,
    unreadable, silent, too short or too long audio is a `BadRecord`.
    """

    def __init__(
        self,
        entries: list[dict[str, Any] | BadRecord],
        folder: pathlib.Path,
        rate: int,
        max_seconds: float = LONGEST,
        where: Sequence[str] = (),
    ):
        self.entries, self.folder, self.rate, self.max_seconds = entries, folder, rate, max_seconds
        # where each was listed, for messages
        self.where = where or [f"entry {n}" for n in range(1, len(entries) + 1)]

    def splits(self) -> dict[str, list[int]]:
        """By the entries' `split`; a line that could not be read counts as training data, where it
        is reported.
        """
        found: dict[str, list[int]] = {}
        for number, entry in enumerate(self.entries):
            split = "train" if isinstance(entry, BadRecord) else entry.get("split", "train")
            found.setdefault(split, []).append(number)
        return found

    def example(self, number: int) -> dict[str, Any]:
        """One record, audio int16 [N] at `rate`."""
        entry = self.entries[number]
        if isinstance(entry, BadRecord):
            raise entry
        path = self.folder / entry["audio"]
        name = str(entry.get("id", entry["audio"]))
        try:
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise BadRecord(f"{path} is a device or a pipe; give one audio file")
            wave = load_wave(path, self.rate, max_seconds=self.max_seconds)
            units = (
                _read_units(self.folder / entry["units"])
                if isinstance(entry.get("units"), str)
                else ()
            )
        except OSError as error:
            raise BadRecord(f"{name[:_SHOWN]}: {error.strerror or error}") from error
        except (ValueError, EOFError) as error:
            raise BadRecord(f"{name}: {error}") from error
        arrays = {
            key: np.asarray(entry[key], dtype) for key, dtype in ARRAYS.items() if key in entry
        }
        return {
            **entry,
            **arrays,
            "id": name,
            "rate": self.rate,
            "audio": to_int16(wave),
            "units": units,
        }


def read_manifest(
    path: str | os.PathLike, rate: int, *, needs_answer: bool = False, max_seconds: float = LONGEST
) -> UserRecordings:
    """A JSONL manifest; audio paths are relative to its folder. needs_answer: a line without
    `answer` is bad (questions).
    """
    path = pathlib.Path(path)
    needed = ("audio", "text", "answer") if needs_answer else ("audio", "text")
    return _recordings(
        read_objects(path), path.parent, rate, max_seconds, lambda entry: check_entry(entry, needed)
    )


def read_vocalnet(
    path: str | os.PathLike,
    rate: int,
    *,
    folder: str | os.PathLike | None = None,
    max_seconds: float = LONGEST,
) -> UserRecordings:
    """VocalNet's JSON list; audio and unit paths are relative to `folder` (default: the folder
    above the JSON's, as VocalNet lays it out).
    """
    path = pathlib.Path(path)
    try:
        entries = parse(_text(path))
    except BadRecord as problem:
        raise UserError(f"{path} is not readable JSON: {problem}; fetch it again") from problem
    if not isinstance(entries, list):
        raise UserError(
            f"{path} is not a JSON list of conversations; VocalNet's layout is "
            "[{'id', 'speech', 'conversations'}, ...]"
        )
    root = pathlib.Path(folder) if folder is not None else path.parent.parent
    return _recordings(
        [(f"{path.name}, entry {n}", entry) for n, entry in enumerate(entries, 1)],
        root,
        rate,
        max_seconds,
        from_vocalnet,
    )


def _recordings(
    entries: list[tuple[str, Any]],
    folder: pathlib.Path,
    rate: int,
    max_seconds: float,
    read: Callable,
) -> UserRecordings:
    if not entries:
        raise UserError(f"no recordings are listed for {folder}; the manifest is empty")
    checked: list[dict[str, Any] | BadRecord] = []
    for where, entry in entries:
        try:
            if isinstance(entry, BadRecord):
                raise entry
            checked.append(read(entry))
        except (BadRecord, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = (
                error
                if isinstance(error, BadRecord)
                else f"not the expected layout ({type(error).__name__}: {error})"
            )
            checked.append(BadRecord(f"{where}: {reason}"))
    return UserRecordings(checked, folder, rate, max_seconds, [where for where, _ in entries])


def _read_units(path: pathlib.Path) -> np.ndarray:
    """Speech tokens, int32 [U]. Raises ValueError or OSError."""
    return as_units(np.load(path, allow_pickle=False), path)


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); give a JSON file"
        ) from error
