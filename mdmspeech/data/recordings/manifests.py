"""Users' own recordings as an `ExampleSource`: a folder of audio with a JSONL manifest, or
VocalNet's JSON conversations.

Manifest: one JSON object a line, `{"audio": "a/b.wav", "text": "..."}` for a voice, with `"answer"`
  for questions; optional `id`, `split` (default
"train"), `voice`, `family`, `symbols`, `frames`, `f0`. Audio may lie anywhere (paths are relative
to the manifest's folder, or absolute). VocalNet: a JSON list of `{"id", "speech": "x.wav",
"conversations": [human, gpt], "units": "x.npy"}`.
"""

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mdmspeech.audio.wave import load_wave, to_int16
from mdmspeech.data.storage.json_lines import BadRecord, check_text, parse, read_objects
from mdmspeech.errors import UserError
from mdmspeech.speech_format import WHISPER_SECONDS

LONGEST = float(WHISPER_SECONDS)  # seconds
_MOST_LETTERS = 3000  # of a text: nobody says a third of it in `LONGEST`
_LONGEST_ID = 1000
_SHOWN = 100  # letters of a name, in messages
_ARRAYS: dict[str, Any] = {"symbols": np.int32, "frames": np.float32, "f0": np.float32}
_WORDS = ("voice", "family", "split", "answer")  # optional fields that are text


class UserRecordings:
    """Audio is decoded when an example is asked for, mono, resampled to `rate`; missing, unreadable,
    silent, too short or too long audio is a `BadRecord`.
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
        """By the entries' `split`; a line that could not be read counts as training data, where it is
        reported.
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
            key: np.asarray(entry[key], dtype) for key, dtype in _ARRAYS.items() if key in entry
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
    """A JSONL manifest; audio paths are relative to its folder. needs_answer: a line without `answer`
    is bad (questions).
    """
    path = pathlib.Path(path)
    needed = ("audio", "text", "answer") if needs_answer else ("audio", "text")
    return _recordings(
        read_objects(path), path.parent, rate, max_seconds, lambda entry: _checked(entry, needed)
    )


def read_vocalnet(
    path: str | os.PathLike,
    rate: int,
    *,
    folder: str | os.PathLike | None = None,
    max_seconds: float = LONGEST,
) -> UserRecordings:
    """VocalNet's JSON list; audio and unit paths are relative to `folder` (default: the folder above
    the JSON's, as VocalNet lays it out).
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
        _from_vocalnet,
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


def _checked(entry: Any, needed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise BadRecord("not a JSON object")
    missing = [
        name for name in needed if not isinstance(entry.get(name), str) or not entry[name].strip()
    ]
    if missing:
        raise BadRecord(f"{' and '.join(missing)} missing or empty")
    if wrong := [name for name in _WORDS if name in entry and not isinstance(entry[name], str)]:
        raise BadRecord(f"{wrong[0]} is a {type(entry[wrong[0]]).__name__}; give text")
    if not entry["audio"].isprintable():
        raise BadRecord(f"audio has signs that no file name has: {ascii(entry['audio'])[:60]}")
    name = entry.get("id", entry["audio"])
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise BadRecord(f"id is a {type(name).__name__}; give text or a whole number")
    if len(str(name)) > _LONGEST_ID or not str(name).isprintable() or not str(name).strip():
        raise BadRecord("id is empty, longer than any name, or has signs that cannot be printed")
    if longest := [name for name in needed[1:] if len(entry[name]) > _MOST_LETTERS]:
        raise BadRecord(
            f"{longest[0]} has {len(entry[longest[0]]):,} characters, more than a "
            f"recording of {LONGEST:g} s holds; cut both"
        )
    for key in _ARRAYS:
        _check_numbers(key, entry.get(key, []))
    if "frames" in entry and len(entry["frames"]) != len(entry.get("symbols", ())):
        raise BadRecord(
            f"{len(entry['frames'])} frames for {len(entry.get('symbols', ()))} "
            "symbols; give one for each"
        )
    return entry


def _check_numbers(name: str, values: Any) -> None:
    """Symbols are whole numbers, durations and Hz finite ones, and none is negative."""
    kinds = (int,) if name == "symbols" else (int, float)
    if not isinstance(values, list):
        raise BadRecord(f"{name} is a {type(values).__name__}; give a list of numbers")
    for value in values:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise BadRecord(
                f"{name} has a {type(value).__name__}; give "
                f"{'whole ' if kinds == (int,) else ''}numbers"
            )
        if not 0 <= value < 2**31 or not math.isfinite(value):
            raise BadRecord(f"{name} has {str(value)[:20]}; give numbers from 0 to 2147483647")


def _from_vocalnet(entry: dict[str, Any]) -> dict[str, Any]:
    """The first exchange of a conversation; the question's text is what the human turn says beside the
    speech placeholder.
    """
    check_text(entry)
    human, reply = entry["conversations"][:2]
    record = {
        "id": str(entry["id"]),
        "audio": entry["speech"],
        "text": human["value"].replace("<speech>", "").strip(),
        "answer": reply["value"],
    }
    units = {"units": entry["units"]} if isinstance(entry.get("units"), str) else {}
    return _checked({**record, **units, "split": entry.get("split", "train")}, ("audio", "answer"))


def _read_units(path: pathlib.Path) -> np.ndarray:
    """Speech tokens, int32 [U]. Raises ValueError or OSError."""
    units = np.load(path, allow_pickle=False)
    if not np.issubdtype(units.dtype, np.integer):
        raise ValueError(f"{path} holds {units.dtype}, not integers")
    return units.reshape(-1).astype(np.int32)


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); give a JSON file"
        ) from error
