"""What a record has to be, whoever wrote it: names, texts and numbers that can be stored and said."""

import math
from typing import Any

import numpy as np

from mdmspeech.data.storage.json_lines import BadRecord, check_text
from mdmspeech.speech_format import WHISPER_SECONDS

LONGEST = float(WHISPER_SECONDS)  # seconds of a recording
SHORTEST = 0.1
MOST_LETTERS = 3000  # of a text: nobody says a third of it in `LONGEST`
# characters a second: auctioneers reach half of it; of a text so short it says nothing
FASTEST, FEW_LETTERS = 50.0, 40
ARRAYS: dict[str, Any] = {"symbols": np.int32, "frames": np.float32, "f0": np.float32}
_LONGEST_ID = 1000
_WORDS = ("voice", "family", "split", "answer")  # optional fields that are text


def check_entry(entry: Any, needed: tuple[str, ...]) -> dict[str, Any]:
    """An entry of a manifest, as it is. needed: fields that may not be empty, "audio" first.

    Raises:
      BadRecord: it lacks one of them, or one of its fields is not what it has to be.
    """
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
    check_id(entry.get("id", entry["audio"]))
    for name in needed[1:]:
        check_length(name, entry[name])
    for key in ARRAYS:
        _check_numbers(key, entry.get(key, []))
    if "frames" in entry and len(entry["frames"]) != len(entry.get("symbols", ())):
        raise BadRecord(
            f"{len(entry['frames'])} frames for {len(entry.get('symbols', ()))} "
            "symbols; give one for each"
        )
    return entry


def check_id(name: Any) -> None:
    """Raises BadRecord for what cannot be a record's name."""
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise BadRecord(f"id is a {type(name).__name__}; give text or a whole number")
    if len(str(name)) > _LONGEST_ID or not str(name).isprintable() or not str(name).strip():
        raise BadRecord("id is empty, longer than any name, or has signs that cannot be printed")


def check_length(name: str, text: str) -> None:
    """Raises BadRecord for a text that no recording holds."""
    if len(text) > MOST_LETTERS:
        raise BadRecord(
            f"{name} has {len(text):,} characters, more than a "
            f"recording of {LONGEST:g} s holds; cut both"
        )


def check_said(name: str, text: str) -> None:
    """Raises BadRecord for a text that is empty, has nothing to say, is longer than any, or cannot
    be stored.
    """
    if not text.strip():
        raise BadRecord(f"{name} missing or empty")
    check_length(name, text)
    check_text(text)
    if "\0" in text or "\ufffd" in text:
        raise BadRecord(f"{name} has characters that an earlier program could not read")
    if not any(character.isalnum() for character in text):
        raise BadRecord(f"nothing can be said of the {name} {text.strip()[:40]!r}")


def from_vocalnet(entry: dict[str, Any]) -> dict[str, Any]:
    """The first exchange of a conversation as an entry of a manifest; the question's text is what
    the human turn says beside the speech placeholder.
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
    return check_entry(
        {**record, **units, "split": entry.get("split", "train")}, ("audio", "answer")
    )


def as_units(units: np.ndarray, name: Any) -> np.ndarray:
    """Speech tokens int32 [U] of an array of whole numbers. Raises ValueError for any other."""
    if not np.issubdtype(units.dtype, np.integer):
        raise ValueError(f"{name} holds {units.dtype}, not integers")
    return units.reshape(-1).astype(np.int32)


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
