"""What a corpus holds and what is wrong with it, found out before anything long starts: lengths,
speakers, duplicates, clipped and silent sound, texts and recordings that stand in two splits.

Of a record some 30 bytes are kept, so that millions of them fit.
"""

import array
import collections
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mdmspeech.audio.wave import to_int16
from mdmspeech.data.importers import checks
from mdmspeech.data.importers.records import BadItem, Item
from mdmspeech.data.storage.splits import SPLITS
from mdmspeech.text import signs
from mdmspeech.text.characters import fold, sayable

BIN = 2.0  # seconds, of the length histogram
LONGEST_ANSWER = 600.0  # seconds
NAMED = 5  # examples of each kind
_REMEMBERED = 200_000  # records that can be named later
_FULL = 0.999  # of full scale, twice in a row: clipped
_JUDGED = 0.02  # seconds that are silent or not
# a frame is silent 40 dB below the loud ones of its recording, or below -60 dB of full scale
_QUIET, _SILENT = 0.01, 1e-3
_LOUD = 95  # percentile of the frames
_ENGLISH = 0.8  # share of ASCII letters from which on a text without a language counts as English


class Survey:
    """Adds records up; `report` says what is known so far."""

    def __init__(self):
        self.seconds, self.answers = array.array("f"), 0.0
        self.texts, self.audio = array.array("Q"), array.array("Q")
        self.splits = array.array("B")
        self.names: list[str] = []
        self.rates: collections.Counter = collections.Counter()
        self.speakers: dict[str, list[float]] = {}  # records, seconds
        self.languages: collections.Counter = collections.Counter()
        self.licences: collections.Counter = collections.Counter()
        self.rejected: dict[str, list[Any]] = {}  # count, then the first of them
        self.unsayable: collections.Counter = collections.Counter()
        self.samples = self.clipped = self.silent = 0.0
        self.with_units = 0

    def add(self, item: Item, wave_N: np.ndarray, rate: int) -> None:
        """One good record with its sound."""
        seconds = len(wave_N) / rate
        self.seconds.append(seconds)
        self.splits.append(SPLITS.index(item.split))
        self.texts.append(_text_key(item.text or item.answer))
        self.audio.append(_digest(to_int16(wave_N).tobytes() + str(rate).encode()))
        if len(self.names) < _REMEMBERED:
            self.names.append(item.id)
        self.rates[rate] += 1
        heard = self.speakers.setdefault(item.speaker, [0, 0.0])
        heard[0] += 1
        heard[1] += seconds
        self.languages[item.language] += 1
        self.licences[item.licence] += 1
        self.with_units += item.units is not None
        self.samples += seconds
        self.clipped += seconds * clipped_share(wave_N)
        self.silent += seconds * silent_share(wave_N, rate)
        if not item.text.isascii() and _is_english(item):
            folded = fold(item.text)
            self.unsayable.update(sign for sign in folded if not sayable(sign, signs.KNOWN))

    def reject(self, problem: BadItem) -> None:
        """One record that cannot be used."""
        found = self.rejected.setdefault(problem.kind, [0])
        found[0] += 1
        if len(found) <= NAMED:
            found.append(str(problem))

    def report(self) -> dict[str, Any]:
        """Everything, in values that JSON has."""
        usable, bad = len(self.seconds), sum(found[0] for found in self.rejected.values())
        seconds = np.frombuffer(self.seconds, np.float32).astype(float)
        spread = {
            "shortest": seconds.min(),
            "median": np.median(seconds),
            "mean": seconds.mean(),
            "longest": seconds.max(),
        } if usable else {}  # fmt: skip
        speakers = sorted(self.speakers.items(), key=lambda row: (-row[1][1], row[0]))
        return {
            "records": usable + bad,
            "usable": usable,
            "hours": round(float(seconds.sum()) / 3600, 6),
            "answer_hours": round(self.answers / 3600, 6),
            "answer_tokens": self.with_units,
            "seconds": {name: round(float(value), 3) for name, value in spread.items()},
            "lengths": self._lengths(seconds),
            "rates": {str(rate): count for rate, count in self.rates.most_common()},
            "splits": self._by_split(seconds),
            "speakers": len([name for name in self.speakers if name]),
            "largest_speakers": [
                {"speaker": name, "records": int(count), "hours": round(total / 3600, 6)}
                for name, (count, total) in speakers[:NAMED]
            ],
            "languages": dict(self.languages.most_common()),
            "licences": dict(self.licences.most_common()),
            "duplicate_texts": self._twice(self.texts),
            "duplicate_audio": self._twice(self.audio),
            "leakage": {"text": self._leaks(self.texts), "audio": self._leaks(self.audio)},
            "clipped_share": _share(self.clipped, self.samples),
            "silent_share": _share(self.silent, self.samples),
            "rejected": {
                kind: {"records": found[0], "first": found[1:]}
                for kind, found in sorted(self.rejected.items(), key=lambda row: -row[1][0])
            },
            "unsayable": [
                {"character": sign, "name": unicodedata.name(sign, "?"), "times": count}
                for sign, count in self.unsayable.most_common(4 * NAMED)
            ],
        }

    def _lengths(self, seconds: np.ndarray) -> list[dict[str, float]]:
        """Records by length, in steps of `BIN` from 0 to the longest."""
        counts = np.bincount((seconds // BIN).astype(int)) if len(seconds) else ()
        return [{"from": BIN * i, "records": int(count)} for i, count in enumerate(counts)]

    def _by_split(self, seconds: np.ndarray) -> dict[str, dict[str, float]]:
        of = np.frombuffer(self.splits, np.uint8)
        return {
            split: {
                "records": int((of == i).sum()),
                "hours": round(float(seconds[of == i].sum()) / 3600, 6),
            }
            for i, split in enumerate(SPLITS)
            if (of == i).any()
        }

    def _twice(self, keys: array.array) -> dict[str, Any]:
        """Records whose text or sound was there before. Key 0 is that of no text."""
        values = np.frombuffer(keys, np.uint64)
        _, first = np.unique(values, return_index=True)
        again = np.setdiff1d(np.arange(len(values)), first)
        again = again[values[again] != 0]
        return {"records": len(again), "first": [self._name(i) for i in again[:NAMED]]}

    def _leaks(self, keys: array.array) -> dict[str, Any]:
        """Records of validation and test whose text or sound is in the training split as well."""
        values, of = np.frombuffer(keys, np.uint64), np.frombuffer(self.splits, np.uint8)
        held_out = (of != SPLITS.index("train")) & (values != 0)
        leaks = np.flatnonzero(held_out & np.isin(values, values[of == SPLITS.index("train")]))
        return {
            **{
                split: int((of[leaks] == i).sum())
                for i, split in enumerate(SPLITS)
                if split != "train" and (of == i).any()
            },
            "first": [self._name(i) for i in leaks[:NAMED]],
        }

    def _name(self, number: int) -> str:
        return self.names[number] if number < len(self.names) else f"record {number + 1:,}"


def survey(
    found: Iterable[Item | BadItem],
    into: Survey,
    *,
    limit: int | None = None,
    max_seconds: float = checks.LONGEST,
) -> Iterator[int]:
    """Looks at the records of a corpus, all or the first `limit`, and yields how many it has seen."""
    for number, item in enumerate(itertools.islice(found, limit), 1):
        try:
            if isinstance(item, BadItem):
                raise item
            wave, rate = item.load(max_seconds=max_seconds)
            check_pace(item, len(wave) / rate)
            if item.units is not None:
                item.units.load()
            if item.answer_audio is not None:
                answer, its_rate = item.answer_audio.load(max_seconds=LONGEST_ANSWER)
                into.answers += len(answer) / its_rate
            into.add(item, wave, rate)
        except BadItem as problem:
            into.reject(problem)
        yield number


def check_pace(item: Item, seconds: float) -> None:
    """Raises BadItem for a text that nobody says in so short a time."""
    if len(item.text) > checks.FEW_LETTERS and len(item.text) > checks.FASTEST * seconds:
        raise BadItem(
            item.where,
            f"{len(item.text)} characters in {seconds:.2f} s; is it the text of this recording?",
            "text too long for its audio",
        )


def clipped_share(wave_N: np.ndarray) -> float:
    """Share of samples that stay at full scale."""
    at_limit = np.abs(wave_N) >= _FULL
    beside = np.zeros_like(at_limit)
    beside[1:] |= at_limit[:-1]
    beside[:-1] |= at_limit[1:]
    return float((at_limit & beside).mean())


def silent_share(wave_N: np.ndarray, rate: int) -> float:
    """Share of 20 ms frames that are silent beside the loud ones of the same recording."""
    size = max(int(_JUDGED * rate), 1)
    whole = wave_N[: max(len(wave_N) // size, 1) * size]
    power = np.sqrt(np.square(whole.reshape(-1, min(size, len(whole)))).mean(axis=1))
    return float((power < max(_QUIET * np.percentile(power, _LOUD), _SILENT)).mean())


def _is_english(item: Item) -> bool:
    if item.language:
        return item.language.lower().startswith("en")
    letters = [character for character in item.text if character.isalpha()]
    return sum(map(str.isascii, letters)) >= _ENGLISH * len(letters)


def _text_key(text: str) -> int:
    """The same for a text in any case and punctuation, in any script; 0 for no words."""
    said = " ".join(re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.casefold())).replace("’", "'")
    return _digest(said.encode()) if said else 0


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0
