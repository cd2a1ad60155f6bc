"""Positions in a stream that know of which data they are: a run is never continued on other records
without a word.
"""

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mdmspeech.errors import UserError


def check_same_data(then: str, now: str) -> None:
    """A UserError if a position was saved on other data: it would mean other records."""
    if then != now:
        raise UserError(
            f"the data have changed since this position was saved (then {then}, now {now}): restore "
            "the corpus and the data settings, or go on with the new ones from their beginning "
            "(--set train.new_data=True)"
        )


def digest_of(source: Any, column: str) -> str:
    """What a source is known by: how many records it has, their lengths where it tells them, and
    `content_of`.
    """
    counts = source.counts(column) if hasattr(source, "counts") else np.zeros(0)
    lengths = zlib.crc32(np.asarray(counts, np.int64).tobytes(), len(source))
    return f"{lengths:08x}{content_of([source])}"


def content_of(sources: Iterable[Any]) -> str:
    """What else sources tell of themselves (`datasets.reader.Subset.content`), "" if nothing."""
    return "".join(getattr(source, "content", "") for source in sources)


class CheckedBatches:
    """A Grain iterator of batches whose saved position knows its data. digest: see `digest_of`.
    epoch: batches in which every record comes once, if that is a number.

    Positions of earlier versions, which do not know, are taken as they are.
    """

    def __init__(self, batches: Any, digest: str, epoch: float | None = None):
        self._batches, self._digest, self._epoch = batches, digest, epoch

    def batches_of(self, epochs: float) -> int | None:
        """Batches after which every record has come `epochs` times; None if nobody can tell."""
        return None if self._epoch is None else math.ceil(epochs * self._epoch - 1e-9)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch handed out, for JSON; the same on every host."""
        return {"place": self._batches.get_state(), "records": self._digest}

    def set_state(self, state: Any) -> None:
        """Continues there. UserError if the data are others."""
        if isinstance(state, dict) and "records" in state:
            check_same_data(state["records"], self._digest)
            state = state["place"]
        self._batches.set_state(state)
