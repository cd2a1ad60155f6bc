"""Ragged rows in a few padded shapes: every shape is compiled once, so there must not be many."""

from collections.abc import Iterator, Sequence

import numpy as np

ROWS = (1, 4, 16)  # padded batch sizes


def bucket(size: int, sizes: Sequence[int]) -> int:
    """The smallest of the (rising) `sizes` that holds `size`; the largest if none does."""
    return next((s for s in sizes if s >= size), sizes[-1])


def batches(
    lengths: Sequence[int], sizes: Sequence[int], rows: Sequence[int] = ROWS
) -> Iterator[tuple[list[int], int, int]]:
    """Batches of rows of similar lengths: (row numbers, padded length, padded number of rows). No
    length may exceed the largest of `sizes`.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    while order:
        width = bucket(lengths[order[0]], sizes)
        same = [i for i in order if lengths[i] <= width][: rows[-1]]
        yield same, width, bucket(len(same), rows)
        order = order[len(same) :]


def stack(
    rows: Sequence[np.ndarray], width: int, count: int, dtype=None
) -> tuple[np.ndarray, np.ndarray]:
    """Arrays [n, ...] padded with zeros to [count, width, ...], and bool [count, width], True where
    they are.
    """
    first = np.asarray(rows[0])
    out = np.zeros((count, width, *first.shape[1:]), dtype or first.dtype)
    valid = np.zeros((count, width), bool)
    for b, row in enumerate(rows):
        out[b, : len(row)], valid[b, : len(row)] = row, True
    return out, valid
