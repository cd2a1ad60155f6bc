"""A random share of a corpus by its number of tokens: for experiments on repeated data, which read
few records many times (Muennighoff et al. 2023, arXiv 2305.16264).
"""

from typing import Any

import numpy as np

from mdmspeech.errors import UserError


def some(source: Any, tokens: int, seed: int) -> "SomeTokens":
    """Records of `source` drawn without replacement until they hold `tokens` tokens or just more. Less
    of the same seed is a part of more.

    Raises:
      UserError: it holds fewer.
    """
    lengths_N = np.asarray(source.counts("tokens"))
    if tokens > lengths_N.sum():
        raise UserError(
            f"data.unique is {tokens} tokens and the data hold {int(lengths_N.sum())}: give at most "
            "so many, or 0 for all"
        )
    order_N = np.random.default_rng((seed, 4)).permutation(len(lengths_N))
    taken = int(np.searchsorted(np.cumsum(lengths_N[order_N]), tokens)) + 1
    return SomeTokens(source, order_N[:taken])


class SomeTokens:
    """The records `rows` of a source of `datasets.corpus.tokens`, as one."""

    def __init__(self, source: Any, rows: np.ndarray):
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._source[int(self._rows[i])]

    def counts(self, column: str) -> np.ndarray:
        """See `datasets.reader.Dataset.counts`."""
        return self._source.counts(column)[self._rows]

    @property
    def content(self) -> str:
        """See `datasets.reader.Subset.content`; which records they are is told by their lengths."""
        return getattr(self._source, "content", "")
