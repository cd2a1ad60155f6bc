"""Bin packing with several capacities: which records share a row. Pure functions of the sizes and
their order.
"""

import bisect
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

VERSION = 2  # of the rules: other rules, other rows
_GOOD = 1.01  # times as many rows as the sums need: not worth another try
_CANDIDATES = 16  # records looked at for one place in a row
_COMBINATIONS = 200  # tried to close a row
_CLOSING = 4.0  # mean records: room at which a row is closed
_IN_ORDER, _LAST = 64, 3.0  # the same by joint slack: records looked at, mean records
# records whose combinations of one, of two, of three are tried to close a row
_LOOKED_AT = (96, 64, 20)
_ROUNDING = 1e-9  # of shares of a capacity


def pack(sizes_NC: np.ndarray, capacities: Sequence[int]) -> list[list[int]]:
    """The record numbers of each row. Every size is within its capacity (the caller's duty); every
    record is in exactly one row.

    Two heuristics, and the one with fewer rows: the first is quick and nearly perfect where one
    capacity decides; where it is not, because several capacities fill up together, the second is.
    """
    rows = _by_least_slack(sizes_NC, capacities)
    needed = (np.asarray(sizes_NC).sum(axis=0) / np.asarray(capacities)).max()
    return (
        rows
        if len(rows) <= _GOOD * needed + 1
        else min(rows, _by_joint_slack(sizes_NC, capacities), key=len)
    )


def _by_least_slack(sizes_NC: np.ndarray, capacities: Sequence[int]) -> list[list[int]]:
    """A row begins with the longest record that is left, goes on in the given order while there is
    much room, and closes with the few records that fill the rest best (bin packing by minimum
    slack, Gupta & Ho 1999). Long and short records so share rows, and equal sums are found where
    they exist."""
    tightest = _tightest(sizes_NC, capacities)
    pool = _Pool(sizes_NC, tightest)
    mean = sizes_NC[:, tightest].mean()
    rows = []
    while pool.sizes:
        room = list(capacities)
        row = [pool.take(pool.largest(), room)]
        while room[tightest] > _CLOSING * mean and (found := pool.next_in_order(room)) is not None:
            row.append(pool.take(found, room))
        refused: set[int] = set()  # sizes of which no record keeps the other capacities
        while combination := _closest(room[tightest], pool.sizes, pool.counts, refused):
            for size in combination:
                found = pool.of_size(size, room)
                if found is None:
                    refused.add(size)
                else:
                    row.append(pool.take(found, room))
        rows.append(row)
    return rows


def _by_joint_slack(sizes_NC: np.ndarray, capacities: Sequence[int]) -> list[list[int]]:
    """As by least slack, with an eye on all capacities: a row closes with those one, two or three
    records after which its room is closest to what the records left over will leave in every row:
    none in the capacity that decides, in each other one what cannot be filled. So no row spends on
    the one what the next ones need of the other. Sizes are shares of their capacities.
    """
    sizes_NC = np.asarray(sizes_NC) / np.asarray(capacities, float)
    total_C = sizes_NC.sum(axis=0)
    left_N, pool = np.ones(len(sizes_NC), bool), np.arange(len(sizes_NC))
    longest_first = iter(np.argsort(-sizes_NC.max(axis=1), kind="stable").tolist())
    rows = []
    while len(pool := pool[left_N[pool]]):
        spare_C, mean_C = 1 - total_C / total_C.max(), total_C / len(pool)
        row = [next(i for i in longest_first if left_N[i])]
        room_C = 1 - sizes_NC[row[0]]
        left_N[row[0]] = False
        for i in pool[:_IN_ORDER]:
            if (room_C / mean_C).min() <= _LAST:
                break
            if left_N[i] and (sizes_NC[i] <= room_C + _ROUNDING).all():
                row.append(int(i))
                left_N[i] = False
                room_C = room_C - sizes_NC[i]
        while len(
            fitting := pool[left_N[pool] & (sizes_NC[pool] <= room_C + _ROUNDING).all(axis=1)]
        ):
            last = fitting[_closing_records(sizes_NC[fitting[: max(_LOOKED_AT)]], room_C, spare_C)]
            row += last.tolist()
            left_N[last] = False
            room_C = room_C - sizes_NC[last].sum(axis=0)
        rows.append(row)
        total_C = total_C - sizes_NC[row].sum(axis=0)
    return rows


def _closing_records(sizes_KC: np.ndarray, room_C: np.ndarray, spare_C: np.ndarray) -> np.ndarray:
    """Which few of K records, each of which fits, leave a room closest to `spare_C`."""
    best, least = np.zeros(1, int), np.inf
    for count, looked_at in enumerate(_LOOKED_AT, start=1):
        chosen_XR = _combinations(min(len(sizes_KC), looked_at), count)
        if not len(chosen_XR):
            break
        after_XC = room_C - sizes_KC[chosen_XR].sum(axis=1)
        off_X = np.where(
            (after_XC < -_ROUNDING).any(axis=1), np.inf, np.abs(after_XC - spare_C).sum(axis=1)
        )
        x = int(off_X.argmin())
        if off_X[x] < least:
            best, least = chosen_XR[x], off_X[x]
    return best


@functools.cache
def _combinations(of: int, count: int) -> np.ndarray:
    """Int [X, count]: every choice of so many numbers below `of`."""
    return np.array(list(itertools.combinations(range(of), count)), np.int32).reshape(-1, count)


def _tightest(sizes_NC: np.ndarray, capacities: Sequence[int]) -> int:
    return int((sizes_NC / np.asarray(capacities)).sum(axis=0).argmax())


class _Pool:
    """The records that are in no row yet, by their size in the tightest capacity. sizes: which
    sizes there are, ascending; counts: records of each.
    """

    def __init__(self, sizes_NC: np.ndarray, tightest: int):
        self._records, self._tightest = sizes_NC.tolist(), tightest
        self._others = [c for c in range(sizes_NC.shape[1]) if c != tightest]
        self._left = [True] * len(self._records)
        self._next = 0
        self._of_size: dict[int, list[int]] = {}
        for i, record in enumerate(self._records):
            self._of_size.setdefault(record[tightest], []).append(i)
        self.sizes = sorted(self._of_size)
        self.counts = {size: len(records) for size, records in self._of_size.items()}

    def take(self, i: int, room: list[int]) -> int:
        """Takes record i out, and its sizes off `room`."""
        size = self._records[i][self._tightest]
        self._left[i] = False
        self.counts[size] -= 1
        if not self.counts[size]:
            self.sizes.remove(size)
        for c, s in enumerate(self._records[i]):
            room[c] -= s
        return i

    def largest(self) -> int:
        """A record of the largest size."""
        return next(i for i in self._alive(self.sizes[-1]))

    def next_in_order(self, room: list[int]) -> int | None:
        """The first of the next few records that fits."""
        while self._next < len(self._left) and not self._left[self._next]:
            self._next += 1
        near = range(self._next, min(self._next + _CANDIDATES, len(self._left)))
        return next(
            (
                i
                for i in near
                if self._left[i]
                and all(s <= r for s, r in zip(self._records[i], room, strict=True))
            ),
            None,
        )

    def of_size(self, size: int, room: list[int]) -> int | None:
        """A record of this size that fits in every other respect too; only a few are tried."""
        tried = itertools.islice(self._alive(size), _CANDIDATES)
        return next(
            (
                i
                for i in tried
                if all(self._records[i][c] <= room[c] for c in (self._tightest, *self._others))
            ),
            None,
        )

    def _alive(self, size: int) -> Iterator[int]:
        records = self._of_size[size]
        while records and not self._left[records[-1]]:
            records.pop()
        return (i for i in reversed(records) if self._left[i])


def _closest(
    room: int, sizes: list[int], counts: Mapping[int, int], refused: set[int]
) -> list[int]:
    """Sizes (of which there are so many records) whose sum comes closest to `room` from below,
    among the first combinations tried; [] if none fits.
    """
    best, least, left_to_try = [], room, _COMBINATIONS

    def search(rest: int, top: int, chosen: list[int]) -> bool:
        """Whether to stop. Sizes in `chosen` descend; those before index `top` may follow."""
        nonlocal best, least, left_to_try
        for k in range(min(top, bisect.bisect_right(sizes, rest)) - 1, -1, -1):
            size = sizes[k]
            if size in refused or chosen.count(size) >= counts[size]:
                continue
            left_to_try -= 1
            if rest - size < least:
                best, least = [*chosen, size], rest - size
            if not least or left_to_try <= 0:
                return True
            if search(rest - size, k + 1, [*chosen, size]):
                return True
        return False

    if room >= (sizes[0] if sizes else room + 1):
        search(room, len(sizes), [])
    return best
