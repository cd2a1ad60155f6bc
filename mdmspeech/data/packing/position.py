"""Positions in a stream that know of which data they are: a run is never continued on other records
without a word.
"""

import zlib
from collections.abc import Iterator
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
    """What a source is known by: how many records it has, and their lengths where it tells them."""
    counts = source.counts(column) if hasattr(source, "counts") else np.zeros(0)
    return f"{zlib.crc32(np.asarray(counts, np.int64).tobytes(), len(source)):08x}"


class CheckedBatches:
    """A Grain iterator of batches whose saved position knows its data. digest: see `digest_of`.

    Positions of earlier versions, which do not know, are taken as they are.
    """

    def __init__(self, batches: Any, digest: str):
        self._batches, self._digest = batches, digest

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
