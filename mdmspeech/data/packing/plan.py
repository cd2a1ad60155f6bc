"""Which records share a row: variable-length records packed into rows of fixed capacities, as a
pure function of (seed, place in the stream).

The stream of a `Mixture` is cut into windows of some thousand draws; the records of a window are
packed into rows that keep several capacities at once (speech tokens and symbols, frames and ids),
and the rows are shuffled. Batches are cut from the endless sequence of rows, so neither a record
nor a row is lost at the end of a window. Every host plans the same global batches and makes its own
rows of them.
"""

import bisect
import dataclasses
import functools
import math
import sys
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from mdmspeech.data.packing.bins import VERSION, pack
from mdmspeech.data.packing.mixing import Mixture
from mdmspeech.data.packing.position import check_same_data
from mdmspeech.data.packing.sharding import Shard, host_rows
from mdmspeech.errors import UserError

Batch = dict[str, np.ndarray]
WINDOW = 16_384  # draws that are packed together; more do not pack better
# a smaller corpus is packed several passes at a time: a handful of records leaves gaps
_LEAST_WINDOW = 2048
# windows that are packed to count rows; the rows of more are told from these
COUNTED_WINDOWS = 32
ENDLESS = 2**40  # batches
MUCH = 0.03  # padding


class Draw(NamedTuple):
    """One record of a row. position: its place in the stream, the seed of anything random done to it."""

    source: str
    record: int
    position: int


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a stretch of the stream (by default one pass over the records) is packed into.

    Attributes:
      rows, records: how many. repeats: records that had been in an earlier row of the stretch.
      used, capacity: field -> positions filled, positions there are.
      naive: field -> padding share if each random batch of as many records were padded to its
        longest.
      too_long: source -> records that fit no row and are never read. passes: source -> how many
        times the stretch goes through it.
    """

    rows: int
    records: int
    repeats: int
    used: Mapping[str, int]
    capacity: Mapping[str, int]
    naive: Mapping[str, float]
    too_long: Mapping[str, int]
    passes: Mapping[str, float]

    @property
    def padding(self) -> dict[str, float]:
        """Field -> share of positions that nothing fills."""
        return {field: 1 - self.used[field] / self.capacity[field] for field in self.used}

    def __str__(self) -> str:
        fields = ", ".join(
            f"{field} {share:.2%} (naive {self.naive[field]:.1%})"
            for field, share in self.padding.items()
        )
        sources = ", ".join(f"{name} x {count:.3g}" for name, count in self.passes.items())
        lines = [
            f"{self.records} records in {self.rows} rows; padding: {fields}; passes: {sources}"
        ]
        if self.repeats:
            lines.append(f"{self.repeats} of them repeat")
        lines += [
            f"{name}: {count} too long for a row, never read"
            for name, count in self.too_long.items()
            if count
        ]
        return "; ".join(lines)


class PackPlan:
    """Random access to batches of draws: `plan[k]` -> this host's rows of global batch k, each a
    list of `Draw`.

    Args:
      sizes: source name -> int [N, C], what each record takes of each capacity.
      capacities: field -> positions of a row, in the order of C.
      usable: source name -> bool [N], False for records that the caller has refused and told of;
        they count as too long.
      batch: rows of a global batch. weights, temperature: see `Mixture`. shard: (number, count) of
        this host.
        window: draws packed together, 0 chooses.
      say: gets one line a source that has records too long for a row.

    Raises:
      UserError: nothing fits, a batch that does not divide among the hosts, and what `Mixture`
        refuses.
    """

    def __init__(
        self,
        sizes: Mapping[str, np.ndarray],
        capacities: Mapping[str, int],
        *,
        batch: int,
        seed: int,
        usable: Mapping[str, np.ndarray] | None = None,
        weights: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        shard: Shard = (0, 1),
        window: int = 0,
        say: Callable[[str], None] | None = None,
    ):
        self.capacities, self.batch, self._seed, self._mine = (
            dict(capacities),
            batch,
            seed,
            host_rows(batch, shard),
        )
        # source -> numbers of the records that are used, None: all. 5 million records of two sizes
        # and a shuffle of them are 100 MB: experiments/bench_index.py
        self._kept: dict[str, np.ndarray | None] = {}
        self._sizes: dict[str, np.ndarray] = {}
        self.too_long: dict[str, int] = {}
        say = say or (_tell if shard[0] == 0 else _hush)
        for name, sizes_NC in sizes.items():
            sizes_NC = np.asarray(sizes_NC, np.int32).reshape(-1, len(capacities))
            self._keep(
                name,
                sizes_NC,
                np.ones(len(sizes_NC), bool) if usable is None else usable[name],
                say,
            )
        self.mixture = Mixture(
            {name: len(found) for name, found in self._sizes.items()}, weights, seed, temperature
        )
        self.window = window or self._window_of(int(self.mixture.sizes.sum()))
        self._drawn = functools.lru_cache(maxsize=4)(self._draw_window)
        self._rows = functools.lru_cache(maxsize=4)(self._pack_window)
        self._lock = threading.RLock()
        # the row number at which the windows first, first + 1, ... start, as far as known
        self._first, self._starts = 0, [0]

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, k: int) -> list[list[Draw]]:
        numbers = range(
            int(k) * self.batch + self._mine.start, int(k) * self.batch + self._mine.stop
        )
        return [self.row(number) for number in numbers]

    def row(self, number: int) -> list[Draw]:
        """Row `number` of the endless sequence."""
        with self._lock:
            window = self._window_with(number)
            positions = self._rows(window)[number - self._starts[window - self._first]]
            source, record = self._drawn(window)
        names, offset = self.mixture.names, window * self.window
        draws = [(names[source[p - offset]], int(record[p - offset]), p) for p in positions]
        return [Draw(name, self._number(name, r), p) for name, r, p in draws]

    def _number(self, name: str, record: int) -> int:
        """Of a record that is used, among all of its source."""
        kept = self._kept[name]
        return record if kept is None else int(kept[record])

    def anchor(self, k: int) -> dict[str, int]:
        """Where batch k lies, so that `go_to` need not pack the windows before it."""
        with self._lock:
            window = self._window_with(int(k) * self.batch)
            return {"window": window, "row": self._starts[window - self._first]}

    def go_to(self, anchor: Mapping[str, int]) -> None:
        """Continues the knowledge of another plan of the same records."""
        with self._lock:
            self._first, self._starts = int(anchor["window"]), [int(anchor["row"])]

    def passes(self, batch: int, anchor: Mapping[str, int]) -> dict[str, float]:
        """How often each source has been gone through before a batch, whose `anchor` this is."""
        with self._lock:
            rows = len(self._rows(int(anchor["window"])))
        share = (batch * self.batch - int(anchor["row"])) / rows
        return self.mixture.passes(int((int(anchor["window"]) + share) * self.window))

    def batches_of(self, epochs: float) -> int:
        """Batches after which as many records have been drawn as the sources have together, `epochs`
        times over: the first position at which `passes` says so. Of more than COUNTED_WINDOWS
        windows the first are packed, and the rest is told from what their records fill: within a
        thousandth.
        """
        draws = round(epochs * int(self.mixture.sizes.sum()))
        whole, rest = divmod(draws, self.window)
        counted = min(whole, COUNTED_WINDOWS)
        rows = float(sum(len(self._rows(w)) for w in range(counted)))
        if counted < whole:
            filled = sum(self._filled(w) for w in range(counted))
            return math.ceil(rows * epochs * self._filled_by_all() / filled / self.batch)
        if rest:
            rows += rest / self.window * len(self._rows(whole))
        return math.ceil(rows / self.batch - 1e-9)

    def _filled(self, window: int) -> float:
        """Rows that a window's records would fill if none had a gap, by the capacity that decides."""
        return self._rows_filled(self._sizes_of(*self._drawn(window)).sum(axis=0))

    def _filled_by_all(self) -> float:
        """The same of as many draws as there are records, in the proportions of the mixture."""
        share_N = self.mixture.counts / self.mixture.counts.sum()
        means_NC = np.array([self._sizes[name].mean(axis=0) for name in self.mixture.names])
        return self._rows_filled((share_N[:, None] * means_NC).sum(axis=0)) * float(
            self.mixture.sizes.sum()
        )

    def _rows_filled(self, sums_C: np.ndarray) -> float:
        return float((sums_C / np.array(list(self.capacities.values()))).max())

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of everything the batches follow from, the seed and the host excepted."""
        settings = (
            VERSION,
            self.mixture.names,
            self.mixture.counts.tolist(),
            self.capacities,
            self.window,
        )
        digest = zlib.crc32(repr(settings).encode())
        for name in self.mixture.names:
            for first in range(0, len(self._sizes[name]), 2**16):  # of millions, no copy at once
                part = self._sizes[name][first : first + 2**16].astype(np.int64)
                digest = zlib.crc32(part.tobytes(), digest)
        return f"{digest:08x}"

    def statistics(self, windows: int = 0) -> Statistics:
        """Of the first so many windows; by default of as many as one pass over the records takes,
        at least one.
        """
        windows = windows or max(1, -(-int(self.mixture.sizes.sum()) // self.window))
        used, rows, naive = np.zeros(len(self.capacities), np.int64), 0, []
        drawn: set[tuple[int, int]] = set()
        for w in range(windows):
            source, record = self._drawn(w)
            sizes_WC = self._sizes_of(source, record)
            used += sizes_WC.sum(axis=0)
            rows += len(self._rows(w))
            naive.append(_naive_padding(sizes_WC, self.batch))
            drawn.update(zip(source.tolist(), record.tolist(), strict=True))
        records = windows * self.window
        return Statistics(
            rows,
            records,
            records - len(drawn),
            dict(zip(self.capacities, used.tolist(), strict=True)),
            {field: rows * size for field, size in self.capacities.items()},
            dict(zip(self.capacities, np.mean(naive, axis=0).tolist(), strict=True)),
            dict(self.too_long),
            self.mixture.passes(records),
        )

    def about(self) -> list[str]:
        """Lines for the user: how much of the rows is padding, and if that is much, sizes of rows
        that would have less.
        """
        padding = self.statistics(1).padding
        lines = [f"packed rows: {_describe(self.capacities)}; padding {_percent(padding)}"]
        better = (
            better_capacities(self._sizes_of(*self._drawn(0)), self.capacities)
            if max(padding.values()) > MUCH
            else None
        )
        if better:
            capacities, padding = better
            lines.append(
                f"rows of {_describe(capacities)} would have {_percent(padding)} "
                "padding on these records"
            )
        return lines

    def _keep(
        self, name: str, sizes_NC: np.ndarray, usable_N: np.ndarray, say: Callable[[str], None]
    ) -> None:
        fits_NC = sizes_NC <= np.array(list(self.capacities.values()))
        fits_N = fits_NC.all(axis=1)
        used_N = fits_N & usable_N
        kept = None if used_N.all() else np.flatnonzero(used_N).astype(np.int32)
        self._kept[name] = kept
        self._sizes[name] = sizes_NC if kept is None else sizes_NC[kept]
        self.too_long[name] = len(sizes_NC) - len(self._sizes[name])
        if fits_N.all():
            return
        parts = [
            f"{int((~fits).sum())} beyond {capacity} {field} (the longest has {longest})"
            for fits, longest, (field, capacity) in zip(
                fits_NC.T, sizes_NC.max(axis=0).tolist(), self.capacities.items(), strict=True
            )
            if not fits.all()
        ]
        text = (
            f"{name}: {int((~fits_N).sum())} of {len(sizes_NC)} records are too "
            f"long for a row: {', '.join(parts)}"
        )
        if not len(self._sizes[name]):
            raise UserError(f"{text}; make the rows longer")
        say(f"{text}; they are left out, longer rows would take them")

    def _window_of(self, records: int) -> int:
        if records >= WINDOW:
            return WINDOW
        return records * -(-_LEAST_WINDOW // records)

    def _window_with(self, row: int) -> int:
        if row < self._starts[0]:
            self._first, self._starts = 0, [0]
        while self._starts[-1] <= row:
            self._starts.append(
                self._starts[-1] + len(self._rows(self._first + len(self._starts) - 1))
            )
        return self._first + bisect.bisect_right(self._starts, row) - 1

    def _draw_window(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        return self.mixture.draw(window * self.window, (window + 1) * self.window)

    def _sizes_of(self, source: np.ndarray, record: np.ndarray) -> np.ndarray:
        sizes_WC = np.empty((len(source), len(self.capacities)), np.int64)
        for s, name in enumerate(self.mixture.names):
            mine = source == s
            sizes_WC[mine] = self._sizes[name][record[mine]]
        return sizes_WC

    def _pack_window(self, window: int) -> list[list[int]]:
        """The stream positions of each row of a window."""
        rng = np.random.default_rng((self._seed, window, 1))
        rows = pack(self._sizes_of(*self._drawn(window)), list(self.capacities.values()))
        for row in rows:
            rng.shuffle(row)  # or the longest would always come first
        offset = window * self.window
        return [[offset + i for i in rows[r]] for r in rng.permutation(len(rows))]


def better_capacities(
    sizes_NC: np.ndarray, capacities: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, float]] | None:
    """(capacities, their padding shares) whose worst padding is at least a point below that of
    those given; None if none of those tried is.

    Tried are the wasteful one smaller and each other one larger, in steps that keep their divisors
    (blocks, tiles, whole vectors).
    """
    sizes_NC = sizes_NC[:_LEAST_WINDOW]

    def padding(of: Mapping[str, int]) -> dict[str, float]:
        return _padding(sizes_NC, len(pack(sizes_NC, list(of.values()))), of)

    now = padding(capacities)
    worst = max(now, key=lambda field: now[field])
    longest = dict(zip(capacities, sizes_NC.max(axis=0).tolist(), strict=True))
    tried = []
    for field, size in capacities.items():
        step, right = (
            _step(size),
            size * (1 - now[worst])
            if field == worst
            else size * (1 - now[field]) / (1 - now[worst]),
        )
        for k in (0, 1, 2):
            other = (int(right / step) + k) * step
            if other != size and other >= longest[field]:
                tried.append({**capacities, field: other})
    found = [(of, padding(of)) for of in tried]
    best = min(found, key=lambda one: max(one[1].values()), default=None)
    return best if best and max(best[1].values()) < now[worst] - 0.01 else None


def _step(size: int) -> int:
    """The twos and the five that a size is a multiple of, as long as that is fine enough."""
    step = math.gcd(size, 640)
    while step % 2 == 0 and step > size / 8:
        step //= 2
    return step


def _padding(sizes_NC: np.ndarray, rows: int, capacities: Mapping[str, int]) -> dict[str, float]:
    used = sizes_NC.sum(axis=0).tolist()
    return {
        field: 1 - n / (rows * size)
        for n, (field, size) in zip(used, capacities.items(), strict=True)
    }


def _describe(capacities: Mapping[str, int]) -> str:
    return " and ".join(f"{size} {field}" for field, size in capacities.items())


def _percent(shares: Mapping[str, float]) -> str:
    return " and ".join(f"{share:.1%}" for share in shares.values())


def _naive_padding(sizes_NC: np.ndarray, batch: int) -> np.ndarray:
    """Padding shares [C] of random batches padded to their longest record."""
    whole = len(sizes_NC) // batch * batch
    if not whole:
        batch = whole = len(sizes_NC)
    sizes_KBC = sizes_NC[:whole].reshape(-1, batch, sizes_NC.shape[1])
    return 1 - sizes_KBC.sum(axis=(0, 1)) / np.maximum(batch * sizes_KBC.max(axis=1).sum(axis=0), 1)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _hush(line: str) -> None:
    """Only the first host speaks."""


def read_draws(sources: Mapping[str, Any], rows: Sequence[Sequence[Draw]]) -> list[list[Any]]:
    """The records of the rows. A source that can read several at once (`__getitems__`) is asked
    once: from a bucket that is one round of requests, not one a record.
    """
    draws = [draw for row in rows for draw in row]
    found: dict[tuple[str, int], Any] = {}
    for name, source in sources.items():
        numbers = list(dict.fromkeys(draw.record for draw in draws if draw.source == name))
        if hasattr(source, "__getitems__"):
            records = source.__getitems__(numbers)
        else:
            records = [source[number] for number in numbers]
        found.update({(name, n): record for n, record in zip(numbers, records, strict=True)})
    return [[found[draw.source, draw.record] for draw in row] for row in rows]


class PackedBatches:
    """Endless. `make(rows)` turns this host's rows of a batch, lists of `Draw`, into arrays; it is
    called from `threads` threads at once. content: see `position.content_of`.
    """

    def __init__(
        self,
        plan: PackPlan,
        make: Callable[[list[list[Draw]]], Batch],
        threads: int = 1,
        content: str = "",
    ):
        self.plan, self._content = plan, content
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        self._batches = iter(grain.MapDataset.source(plan).map(make).to_iter_dataset(options))

    def __iter__(self) -> "PackedBatches":
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def statistics(self, windows: int = 0) -> Statistics:
        """See `PackPlan.statistics`."""
        return self.plan.statistics(windows)

    def about(self) -> list[str]:
        """See `PackPlan.about`."""
        return self.plan.about()

    def batches_of(self, epochs: float) -> int:
        """See `PackPlan.batches_of`."""
        return self.plan.batches_of(epochs)

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch handed out, for JSON; the same on every host."""
        batch = self._batches.get_state()["next_index"]
        place = {"batch": batch, **self.plan.anchor(batch), "records": self.plan.fingerprint}
        return place | ({"content": self._content} if self._content else {})

    def passes(self, state: Mapping[str, Any]) -> dict[str, float]:
        """How often each source has been gone through at a position."""
        return self.plan.passes(int(state["batch"]), state)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues there. UserError if the records or the sizes of the rows are others than then."""
        check_same_data(state["records"], self.plan.fingerprint)
        if "content" in state:  # positions of earlier versions know lengths alone
            check_same_data(state["content"], self._content)
        self.plan.go_to(state)
        self._batches.set_state({"next_index": int(state["batch"])})
