"""Files of people's own making with one JSON object a line: what is wrong with a line costs that
line, and it is named by its number in the file.

A line ends at a line feed and nowhere else (JSON may hold U+2028 and its like inside a text). A
byte order mark is no part of the first line. A JSON list of objects is read as well. What is no
such file at all, a table or UTF-16, is refused with the command that makes one of it.
"""

import codecs
import json
import os
import pathlib
from typing import Any

from mdmspeech.errors import UserError

_LARGEST = 2**31  # bytes of such a file
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SEPARATORS = ("\t", "|", ";", ",")


class BadRecord(ValueError):
    """One recording, or one line, that cannot be used; the message names it and says why."""


def read_objects(path: str | os.PathLike) -> list[tuple[str, dict[str, Any] | BadRecord]]:
    """(where, the object, or what is wrong with it) of every line that is not blank.

    Raises:
      UserError: the file cannot be read, is empty, or none of its lines is a JSON object.
    """
    path = pathlib.Path(path)
    data = _bytes(path)
    listed = _listed(data)
    if listed is not None:
        found = [(f"{path.name}, entry {n}", as_object(value)) for n, value in enumerate(listed, 1)]
    else:
        feed = b"\r" if b"\n" not in data else b"\n"  # alone it ends the lines of old Macs
        found = [
            (f"{path.name}, line {n}", read_line(line))
            for n, line in enumerate(data.split(feed), 1)
            if line.strip()
        ]
    if not found:
        raise UserError(f"{path} lists nothing: it is empty; write one JSON object a line")
    if all(isinstance(value, BadRecord) for _, value in found):
        raise UserError(_no_objects(path, data, *found[0]))
    return found


def parse(text: str | bytes) -> Any:
    """The JSON value. Raises BadRecord for what is none, or is nested deeper or has longer numbers
    than Python reads.
    """
    try:
        # by itself it would guess other encodings
        return json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise BadRecord("nested too deeply for JSON that anybody writes") from None
    except UnicodeDecodeError as error:
        raise BadRecord(
            f"not UTF-8 (byte {error.object[error.start]:#04x} at position "
            f"{error.start + 1}); save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise BadRecord(f"not a JSON object ({error.msg} at position {error.pos + 1})") from None
    except ValueError:
        raise BadRecord("a number has thousands of digits") from None


def check_text(value: Any) -> None:
    """Raises BadRecord for a JSON value with text that cannot be stored: half a character, as JSON
    can write and UTF-8 cannot.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRecord(
            f"half a character ({ascii(error.object[error.start])[1:-1]}): a "
            "lone surrogate, write the whole character"
        ) from None
    except RecursionError:
        raise BadRecord("nested too deeply for JSON that anybody writes") from None


def _bytes(path: pathlib.Path) -> bytes:
    try:
        if path.is_dir():
            raise UserError(
                f"{path} cannot be read: it is a folder; give a file with one JSON object a line"
            )
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise UserError(
                f"{path} has {path.stat().st_size:,} bytes, more than any such "
                "file; cut it into parts"
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "give a JSON or JSONL file"
        ) from error
    for mark, name in _WIDE.items():
        if data.startswith(mark):
            raise UserError(_wide(path, name))
    begin = data[:64]
    # every second byte, or three of four, and no mark before them
    if 3 * begin.count(0) > len(begin):
        raise UserError(
            _wide(path, f"UTF-{32 if begin[:4].count(0) == 3 else 16}{'LE' if begin[0] else 'BE'}")
        )
    return data.removeprefix(codecs.BOM_UTF8)


def _wide(path: pathlib.Path, name: str) -> str:
    return (
        f"{path} is {name}, not UTF-8; write it again: iconv -f {name} -t UTF-8 "
        f"{path.name} > utf8.jsonl"
    )


def _listed(data: bytes) -> list[Any] | None:
    """The items if the whole file is one JSON list, and not a line that happens to be one."""
    if data.lstrip()[:1] != b"[":
        return None
    try:
        value = parse(data)
    except BadRecord:
        return None
    return value if isinstance(value, list) else None


def bare(line: bytes) -> bytes:
    """A line without what does not count, b"" if it is blank."""
    # files that were put together have a mark in the middle
    return line.strip(b"\r \t\f\v").removeprefix(codecs.BOM_UTF8)


def read_line(line: bytes) -> dict[str, Any] | BadRecord:
    """The object of a line, or what is wrong with it."""
    text = bare(line)
    if text.startswith((b"#", b"//")):
        return BadRecord("a comment, not a JSON object")
    try:
        return as_object(parse(text))
    except BadRecord as problem:
        return problem


def as_object(value: Any) -> dict[str, Any] | BadRecord:
    """A JSON value that is to be an object, or what is wrong with it."""
    if not isinstance(value, dict):
        return BadRecord(
            f"not a JSON object but {'null' if value is None else f'a {type(value).__name__}'}"
        )
    try:
        check_text(value)
    except BadRecord as problem:
        return problem
    return value


def _no_objects(path: pathlib.Path, data: bytes, where: str, problem: Any) -> str:
    """What the file seems to be, and the command that makes lines of JSON of it."""
    text = data.decode("utf-8", "replace").strip()
    first = text.split("\n", 1)[0]
    if text.startswith(("[", "{")):
        cure = (
            f"python -m json.tool {path.name} shows what is wrong"
            if text.startswith("[")
            else "write every object on a line of its own"
        )
        return f"{path} has no line that is a JSON object ({where}: {problem}); {cure}"
    separator = next((mark for mark in _SEPARATORS if mark in first), None)
    if separator is None or not first.replace("\t", " ").rstrip("\r").isprintable():
        return (
            f"{path} has no line that is a JSON object ({where}: {problem}); write "
            'one a line, like {"audio": "a.wav", "text": "..."}'
        )
    code = (
        "import csv, json, sys; [print(json.dumps(dict(audio=row[0], text=row[1]))) for row in "
        f"csv.reader(sys.stdin, delimiter={separator!r}) if len(row) > 1]"
    )
    return (
        f"{path} is a table, not one JSON object a line; if its first two "
        "columns are file and text, this makes a manifest: "
        f'python -c "{code}" < {path.name} > manifest.jsonl'
    )
