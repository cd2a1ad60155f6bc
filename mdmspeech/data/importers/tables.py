"""Lines, cells and JSON objects of a corpus's lists, read as a stream: what is wrong with a line
costs that line, and no list has to fit into memory.
"""

import codecs
import csv
import json
import re
from collections.abc import Iterator
from typing import Any

from mdmspeech.data.importers.files import Unreadable, base_name, open_file
from mdmspeech.data.storage import json_lines
from mdmspeech.data.storage.json_lines import BadRecord

_BLOCK = 1 << 16  # bytes read at once
_LONGEST_LINE = 64 << 20
_BETWEEN = re.compile(r"[ \t\r\n,]*")  # items of a list
_QUOTED = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes without the line end) of every line. A line ends at a line feed, or, in
    old Macs' files, which have none, at a carriage return. A byte order mark is no part of a line.

    Raises:
      Unreadable: the file cannot be read, or is UTF-16.
    """
    number, rest, feed = 0, b"", b""
    for block in _blocks(path):
        feed = feed or (b"\r" if b"\r" in block and b"\n" not in block else b"\n")
        *whole, rest = (rest + block).split(feed)
        for line in whole:
            number += 1
            yield number, _bare(line)
        if len(rest) > _LONGEST_LINE:
            raise Unreadable(
                f"{path} has a line of more than {_LONGEST_LINE >> 20} MiB; is it a text at all?"
            )
    if rest:
        yield number + 1, _bare(rest)


def decode(data: bytes) -> str:
    """The text of UTF-8. Raises BadRecord for any other coding."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord(
            f"not UTF-8 (byte {data[error.start]:#04x} at position {error.start + 1}); "
            "save the file as UTF-8"
        ) from None


def read_text(path: str) -> str:
    """A small file's text, its line ends as spaces. Raises BadRecord if it cannot be read."""
    try:
        with open_file(path) as file:
            data = file.read(_BLOCK)
    except OSError as error:
        raise BadRecord(f"{base_name(path)} cannot be read: {error.strerror or error}") from error
    return " ".join(decode(data.removeprefix(codecs.BOM_UTF8)).split())


def cells(line: str, separator: str, most: int) -> list[str]:
    """The cells of a line of a table, at most so many, without blanks around them.

    Corpora's tables are written without quoting, so that a quote is a quote. A cell is unquoted
    only if a spreadsheet has plainly quoted it: its inner quotes are doubled, or the line has too
    many cells otherwise. A separator after a backslash is part of a cell.

    Raises:
      BadRecord: more cells.
    """
    found = [
        cell.replace("\\" + separator, separator).strip()
        for cell in re.split(rf"(?<!\\){re.escape(separator)}", line)
    ]
    if len(found) > most:
        try:
            found = [
                cell.strip() for cell in next(csv.reader([line], delimiter=separator, strict=True))
            ]
        except (csv.Error, StopIteration):
            pass
        if len(found) > most:
            shown = {"\t": "tab"}.get(separator, separator)
            raise BadRecord(
                f"{len(found)} columns between {shown!r}, at most {most} are expected; put the text "
                'that has one in it into "quotes"'
            )
    return [_unquoted(cell) for cell in found]


def read_table(path: str, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(line number, its cells by their column's name, or what is wrong with it) of a table with
    tabs and a first line that names the columns.

    Raises:
      Unreadable: one of the needed columns is not there.
    """
    names: list[str] = []
    for number, data in read_lines(path):
        if not data.strip():
            continue
        try:
            line = decode(data)
            row = cells(line, "\t", len(names) or 1000)
        except BadRecord as problem:
            if not names:
                raise Unreadable(f"{path}, line {number}: {problem}") from problem
            yield number, str(problem)
            continue
        if not names:
            names = row
            if lacking := [name for name in needed if name not in names]:
                raise Unreadable(
                    f"{path} has no column {' and no column '.join(lacking)}; its first line has to "
                    f"name the columns, and names {', '.join(names)[:200]}"
                )
        elif len(row) < 1 + max(names.index(name) for name in needed):
            yield number, f"{len(row)} columns, {len(names)} are expected"
        else:
            yield number, dict(zip(names, row, strict=False))


def read_objects(path: str) -> Iterator[tuple[str, dict[str, Any] | BadRecord]]:
    """(where, the object or what is wrong with it) of every line that is not blank, or of every
    item if the file is one JSON list.

    Raises:
      Unreadable: the file cannot be read, or is UTF-16.
    """
    name = base_name(path)
    if _is_list(path):
        for number, value in enumerate(_list_items(path), 1):
            found = value if isinstance(value, BadRecord) else json_lines.as_object(value)
            yield f"{name}, entry {number}", found
        return
    for number, data in read_lines(path):
        if json_lines.bare(data):
            yield f"{name}, line {number}", json_lines.read_line(data)


def _is_list(path: str) -> bool:
    """Whether the file is one JSON list, and not a line that happens to be one."""
    for block in _blocks(path):
        head = block.removeprefix(codecs.BOM_UTF8).lstrip()
        return head[:1] == b"[" and head[1:].lstrip()[:1] in (b"{", b"]", b"")
    return False


def _list_items(path: str) -> Iterator[Any]:
    """The items of a JSON list, one after the other; after one that is no JSON nothing follows."""
    decoder, text, at, size = json.JSONDecoder(), "", 0, 0
    begun = ended = False
    for block in codecs.iterdecode(_blocks(path), "utf-8-sig", "surrogateescape"):
        text, at = text[at:] + block, 0
        size += len(block)
        if not begun:
            at, begun = text.index("[") + 1, True
        while True:
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr] # it matches nothing, too
            if ended or text[at : at + 1] == "]":
                at, ended = at + (not ended), True
                break
            try:
                value, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                break  # it may end in the next block
            yield value
        if len(text) > _LONGEST_LINE or (ended and text[at:].strip()):
            break
    if not ended or text[at:].strip():
        yield BadRecord(
            f"not JSON from character {size - len(text) + at + 1:,} of the file on, and so is what "
            f"follows: {text[at : at + 40]!a}"
        )


def _blocks(path: str) -> Iterator[bytes]:
    try:
        with open_file(path) as file:
            first = True
            while block := file.read(_BLOCK):
                if first and (
                    block.startswith(_UTF16) or 3 * block[:64].count(0) > len(block[:64])
                ):
                    raise Unreadable(
                        f"{path} is UTF-16, not UTF-8; write it again: iconv -f UTF-16 -t UTF-8 "
                        f"{base_name(path)} > utf8.txt"
                    )
                yield block.removeprefix(codecs.BOM_UTF8) if first else block
                first = False
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from error


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def _unquoted(cell: str) -> str:
    quoted = _QUOTED.fullmatch(cell)
    return quoted[1].replace('""', '"').strip() if quoted and '""' in quoted[1] else cell
