"""Holds the numbers that README and model card quote against the result files, so that neither says
what no result holds.

Command:  python -m experiments.quote            says what differs, exit code 1 if anything does
          python -m experiments.quote --write    puts the numbers of the result files into the texts

experiments/results/quotes.toml has, for each quoted section, its sentences with a place for each
number, {FILE:KEY.KEY:FORMAT}, and as `plain` what else may stand there in digits (dates, names,
what was set and not measured). A number in such a section that belongs to neither is an error.
"""

import argparse
import dataclasses
import functools
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
_PLACE = re.compile(r"\{([\w/-]+):([^:{}]+):([^{}]*)\}")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_FOUND = r"(-?\d+(?:,\d{3})*(?:\.\d+)?)"


@dataclasses.dataclass(frozen=True)
class Section:
    """Part of a text file from the line that begins with `start` to the next that begins with `end`
    (or the file's end).
    """

    file: Path
    start: str
    end: str
    quotes: list[str]
    plain: list[str]

    def span(self, text: str) -> tuple[int, int]:
        """Where it is in the file's text. ValueError: it is not."""
        begin = f"\n{text}".find(f"\n{self.start}")
        if begin < 0:
            raise ValueError(f"{self.file}: no line begins with {self.start!r}")
        stop = text.find(f"\n{self.end}", begin + 1) if self.end else -1
        return begin, len(text) if stop < 0 else stop


def sections(table: Path = RESULTS / "quotes.toml", root: Path = ROOT) -> list[Section]:
    """The table's sections."""
    rows = tomllib.loads(table.read_text(encoding="utf-8"))["section"]
    return [
        Section(
            root / row["file"],
            row["start"],
            row.get("end", ""),
            row["quotes"],
            row.get("plain", []),
        )
        for row in rows
    ]


def value(file: str, keys: str, results: Path = RESULTS) -> Any:
    """A figure of a result file: keys of dicts and numbers of lists, joined by points (\\. is a point
    in a key). KeyError: no result holds it.
    """
    found = _result(results / f"{file}.json")
    for key in re.split(r"(?<!\\)\.", keys):
        key = key.replace("\\.", ".")
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise KeyError(f"no {keys!r} in {file}.json") from error
    return found


def compare(section: Section, results: Path = RESULTS) -> tuple[list[str], str]:
    """(what is wrong, in words; the file's text with the results' numbers)."""
    text = section.file.read_text(encoding="utf-8")
    begin, stop = section.span(text)
    covered: list[tuple[int, int]] = []
    changes: list[tuple[int, int, str]] = []
    wrong = []
    for quote in section.quotes:
        places = _PLACE.findall(quote)
        matches = list(_pattern(quote).finditer(text, begin, stop))
        if len(matches) != 1:
            wrong.append(f"{section.file.name}: stands {len(matches)} times, not once: {quote!r}")
            continue
        for n, (file, keys, form) in enumerate(places, 1):
            span = matches[0].span(n)
            covered.append(span)
            try:
                found = value(file, keys, results)
                # halves go up, as people round
                wanted = format(found + 1e-9 if isinstance(found, float) else found, form)
            except (KeyError, ValueError, TypeError, OSError) as error:
                wrong.append(
                    f"{section.file.name}: {matches[0][n]} is quoted from nowhere: {error}"
                )
                continue
            if matches[0][n] != wanted:
                wrong.append(
                    f"{section.file.name}: {matches[0][n]} instead of {wanted} ({file}:{keys})"
                )
                changes.append((*span, wanted))
    for pattern in section.plain:
        spans = [
            match.span() for match in _pattern(pattern, loose=False).finditer(text, begin, stop)
        ]
        wrong += [] if spans else [f"{section.file.name}: nothing to be plain: {pattern!r}"]
        covered += spans
    for number in _NUMBER.finditer(text, begin, stop):
        if not any(a <= number.start() and number.end() <= b for a, b in covered):
            wrong.append(
                f"{section.file.name}: {number[0]} is tied to no result: "
                f"...{text[max(begin, number.start() - 40) : number.end() + 20]!r}"
            )
    for a, b, wanted in sorted(changes, reverse=True):
        text = text[:a] + wanted + text[b:]
    return wrong, text


@functools.cache
def _pattern(quote: str, loose: bool = True) -> re.Pattern:
    """A quote with any number in its places and any space between its words."""
    parts = _PLACE.split(quote)[::4] if loose else [quote]
    return re.compile(
        _FOUND.join(r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in parts)
    )


@functools.cache
def _result(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the numbers of the result files into the texts"
    )
    args = parser.parse_args()
    wrong = []
    for section in sections():
        found, text = compare(section)
        if args.write and found:
            section.file.write_text(text, encoding="utf-8")
            found, _ = compare(section)
        wrong += found
    print(
        "\n".join(wrong) or "every number is a result's", file=sys.stderr if wrong else sys.stdout
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
