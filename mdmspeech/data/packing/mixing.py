"""Several sources as one endless stream of draws: exact proportions, every source reshuffled for
each of its own passes, any position at once.

The sources are interleaved by a fixed pattern of low discrepancy (Bresenham's line for many): of
the first n draws, a source of share p has p n, give or take less than one per source. Nothing is
drawn by chance but the order inside a source, so a short run sees the mixture that was asked for.
"""

import functools
import math
import zlib
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from mdmspeech.errors import UserError

_LONGEST_PATTERN = 2**20
_FINENESS = 10_000  # weights are read as fractions with at most this denominator: 0.1 is a tenth


class Mixture:
    """The stream. Small sources come again, large ones are not cut: `passes` tells how often each
    was seen.

    Args:
      sizes: source name -> number of its records.
      weights: source name -> how many of its records per record of the others; None: in proportion
        to the sizes, so that all sources end together.
      seed: of the shuffles.
      temperature: without weights, a source of n records is drawn in proportion to n ** (1 /
        temperature): above 1 small sources come oftener (Arivazhagan et al. 2019, arXiv
        1907.05019).

    Raises:
      UserError: an empty source, a weight that is not positive, a name that only one of the two
        has.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        temperature: float = 1.0,
    ):
        _check(sizes, weights)
        if temperature != 1.0:
            weights = _tempered(sizes, weights, temperature)
        self.names = tuple(sizes)
        self.sizes = np.array([sizes[name] for name in self.names], np.int64)
        self.counts = _counts([weights[name] if weights else sizes[name] for name in self.names])
        self._seed = seed
        self._pattern, self._rank = _interleave(self.counts)
        self._order = functools.lru_cache(maxsize=len(self.names) + 1)(self._shuffled)

    @property
    def period(self) -> int:
        """Draws after which every source has come exactly `counts` times."""
        return len(self._pattern)

    def draw(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(source number, record number) of the draws [start, stop), int64 [stop - start] each."""
        turn, place = np.divmod(np.arange(start, stop, dtype=np.int64), self.period)
        source = self._pattern[place]
        seen = turn * self.counts[source] + self._rank[place]  # draws of this source before
        record = np.empty_like(seen)
        for s, size in enumerate(self.sizes):
            mine = np.flatnonzero(source == s)
            passes = seen[mine] // size
            for epoch in np.unique(passes):
                at = mine[passes == epoch]
                record[at] = self._order(s, int(epoch))[seen[at] % size]
        return source, record

    def passes(self, draws: int) -> dict[str, float]:
        """How many times each source has been gone through after so many draws."""
        turns, rest = divmod(draws, self.period)
        seen = turns * self.counts + np.bincount(self._pattern[:rest], minlength=len(self.names))
        return {
            name: float(n / size)
            for name, n, size in zip(self.names, seen, self.sizes, strict=True)
        }

    def _shuffled(self, source: int, epoch: int) -> np.ndarray:
        # by name, so that one more source leaves the order of the others as it was
        rng = np.random.default_rng((self._seed, zlib.crc32(self.names[source].encode()), epoch))
        return rng.permutation(int(self.sizes[source])).astype(np.int32)


def _check(sizes: Mapping[str, int], weights: Mapping[str, float] | None) -> None:
    if not sizes:
        raise UserError("no source to read from: name at least one")
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"the source {name!r} has no usable record; leave it out or fill it")
    if weights is None:
        return
    if set(weights) != set(sizes):
        raise UserError(
            f"weights are given for {', '.join(sorted(weights))}, but the sources "
            f"are {', '.join(sorted(sizes))}"
        )
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(
                f"the weight of {name!r} is {weight}: give a positive number, or "
                "leave the source out"
            )


def _tempered(
    sizes: Mapping[str, int], weights: Mapping[str, float] | None, temperature: float
) -> dict[str, float]:
    if weights is not None:
        raise UserError(
            f"both weights and a temperature ({temperature:g}) are given: set data.weights to () or "
            "data.temperature to 1"
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise UserError(f"the temperature is {temperature}: give a number above 0, 1 for none")
    most = max(sizes.values())
    return {name: (size / most) ** (1 / temperature) for name, size in sizes.items()}


def _counts(weights: list[float]) -> np.ndarray:
    """Smallest integers in the proportion of the weights, int64; rounded, at least 1 each, if their
    sum would be too large.
    """
    fractions = [
        Fraction(w)
        if isinstance(w, int)
        else Fraction(float(w)).limit_denominator(_FINENESS) or Fraction(float(w))
        for w in weights
    ]
    scale = math.lcm(*[f.denominator for f in fractions])
    counts = [int(f * scale) for f in fractions]
    counts = [c // math.gcd(*counts) for c in counts]
    if sum(counts) > _LONGEST_PATTERN:
        counts = [max(1, round(_LONGEST_PATTERN * c / sum(counts))) for c in counts]
    return np.array(counts, np.int64)


def _interleave(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One period: the source of each draw, and how many draws of that source come before it. Draw j
    of a source with n is due at (j + 1/2) / n.
    """
    source = np.repeat(np.arange(len(counts)), counts)
    rank = np.concatenate([np.arange(n) for n in counts])
    order = np.argsort((rank + 0.5) / counts[source], kind="stable")
    return source[order], rank[order]
