"""What this machine does at best, and what a Talker's matrix products take there alone.

Figures of speed are compared inside one run only: between runs, clocks and neighbours change them
by half. So every comparison is interleaved (`interleaved`), and beside it stands the time of the bare
products of the same shapes, each in the best layout of those tried.

D width, F feed-forward width, M columns of one forward, V rows of the output table.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.models.talker import TalkerConfig
from mdmspeech.nn.tracing import platform
from mdmspeech.speech_format import VOCAB


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one job, measured again and again."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Quartiles."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(low), float(high)


def interleaved(
    jobs: Mapping[str, Callable[[], Any]], rounds: int, told: Callable[[str], None] = lambda _: None
) -> dict[str, Times]:
    """Times of jobs that take turns: once each to be compiled, then `rounds` times, in another order
    every time. A job returns when its result is there.
    """
    for name, job in jobs.items():
        told(f"compiling {name}")
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    order, rng = list(jobs), np.random.default_rng(0)
    for number in range(rounds):
        told(f"round {number + 1} of {rounds}")
        rng.shuffle(order)
        for name in order:
            began = time.perf_counter()
            jobs[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


@dataclasses.dataclass(frozen=True)
class Machine:
    """copy_gbs: a large array read and written, GB of traffic a second. read_gbs: weights streamed
    through a product with one column. matmul_gflops: a large square product.
    """

    copy_gbs: float
    read_gbs: float
    matmul_gflops: float

    def told(self) -> dict[str, float]:
        """JSON-ready."""
        return {name: round(value, 2) for name, value in vars(self).items()}

    def bound(self, read_bytes: float, flops: float) -> float:
        """Seconds that something takes at least: its bytes or its arithmetic, whichever is more."""
        return max(read_bytes / self.read_gbs, flops / self.matmul_gflops) / 1e9


def measure(
    rounds: int = 5, size: int | None = None, megabytes: int | None = None, dtype: str = "float32"
) -> Machine:
    """The machine now, medians of `rounds`, with numbers of `dtype`. size, megabytes: of the
    matrices and arrays (None: as many as keep it busy).
    """
    here, there = platform() == "cpu", jnp.dtype(dtype)
    size, megabytes = size or (1536 if here else 8192), megabytes or (256 if here else 4096)
    square = _random(size, size, there)
    thousands = megabytes * 1000 // there.itemsize
    long = jnp.zeros(thousands * 1000, there)
    weights_NK = jnp.full((thousands, 1000), 0.5, there)
    x_K1 = jnp.ones((1000, 1), there)
    add, product = jax.jit(lambda x: x + 1.0), jax.jit(jnp.matmul)
    times = interleaved(
        {
            "copy": lambda: jax.block_until_ready(add(long)),
            "read": lambda: jax.block_until_ready(product(weights_NK, x_K1)),
            "matmul": lambda: jax.block_until_ready(product(square, square)),
        },
        rounds,
    )
    return Machine(
        copy_gbs=2 * long.nbytes / times["copy"].median / 1e9,
        read_gbs=weights_NK.nbytes / times["read"].median / 1e9,
        matmul_gflops=2 * size**3 / times["matmul"].median / 1e9,
    )


def products(config: TalkerConfig) -> list[tuple[int, int, int]]:
    """(N, K, how many) of the matrix products of one forward's trunk, those that read the same input
    as one; without the output layer.
    """
    heads = (config.num_heads + 2 * config.cache_heads) * config.head_dim
    inner, width, ffn = config.num_heads * config.head_dim, config.dim, config.ffn_dim
    shapes = [(heads, width), (width, inner), (2 * ffn, width), (width, ffn)]
    return [(*shape, config.num_layers) for shape in shapes]


def parameters(config: TalkerConfig, logits: bool = True) -> int:
    """Weights that one forward reads."""
    trunk = sum(n * k * count for n, k, count in products(config))
    return trunk + logits * VOCAB * config.dim


def bare_forward(
    config: TalkerConfig, columns: int, logits: int, dtype: str = "float32"
) -> Callable[[], Any]:
    """A job: `REPEATS` times the matrix products of one forward of `columns` columns, `logits` of
    which go through the output layer, one after the other inside the device and nothing else. Each
    shape in the best of three layouts, found here.
    """
    parts = []
    for n, k, count in [*products(config), (VOCAB + -VOCAB % 64, config.dim, 1)]:
        m = logits if n > VOCAB else columns
        if m:
            weights = [_random(n, k, dtype, seed) for seed in range(count)]
            name = _best_layout(weights[0], m)
            stored = [w if _LAYOUTS[name][0] else jnp.array(w.T) for w in weights]
            parts.append((name, stored, _random(k, m, dtype)))
    return _repeated(parts)


REPEATS = 8
_LAYOUTS: dict[str, tuple[bool, Callable]] = {
    # name -> (whether the weight is stored [N, K]; the product of weight and x [K, M])
    "weight @ x": (True, lambda w_NK, x_KM: w_NK @ x_KM),
    "x @ weight": (False, lambda w_KN, x_KM: x_KM.T @ w_KN),
    "x @ weight'": (True, lambda w_NK, x_KM: x_KM.T @ w_NK.T),
}


def _repeated(parts: Sequence[tuple[str, list[jax.Array], jax.Array]]) -> Callable[[], Any]:
    """A job: the products of each part `REPEATS` times, in a loop on the device."""
    names = [name for name, _, _ in parts]

    @jax.jit
    def run(weights, xs):
        def once(_, carry):
            xs, seen = carry
            out = []
            for name, layers, x in zip(names, weights, xs, strict=True):
                for layer in layers:
                    # the next product waits for the one before, as in a network
                    seen = seen + _LAYOUTS[name][1](layer, x).ravel()[0]
                    x = x + (1e-12 * seen).astype(x.dtype)
                out.append(x)
            return tuple(out), seen * 1e-6

        return jax.lax.fori_loop(0, REPEATS, once, (xs, jnp.float32(0)))

    weights, xs = [layers for _, layers, _ in parts], tuple(x for _, _, x in parts)
    return lambda: jax.block_until_ready(run(weights, xs))


def _random(n: int, m: int, dtype: Any, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (n, m), dtype)


def _best_layout(weight_NK: jax.Array, m: int) -> str:
    """The fastest way to multiply such a weight with `m` columns."""
    x_KM, turned = _random(weight_NK.shape[1], m, weight_NK.dtype), jnp.array(weight_NK.T)
    jobs = {
        name: _repeated([(name, [weight_NK if whole else turned], x_KM)])
        for name, (whole, _) in _LAYOUTS.items()
    }
    times = interleaved(jobs, 7)
    return min(jobs, key=lambda name: times[name].median)
