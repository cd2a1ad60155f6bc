"""Tokens a second of every way of talking, on one trunk, in one engine, in one run.

Masked diffusion at S steps a block, next-token and multi-token decoding take turns on the same
weights' shapes and the same text; beside each stand the time of its matrix products alone, and what
the machine's bandwidth and arithmetic allow.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.evaluation.speed.machine import (
    REPEATS,
    Machine,
    Times,
    bare_forward,
    interleaved,
    parameters,
)
from mdmspeech.inference.conditioning import PacedReader, PacedText
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.inference.utterance import Utterance, advance
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig

# the compact Talker's shape, a middle one, and the paper's
SIZES = {
    "compact": TalkerConfig(),
    "d1024": TalkerConfig(dim=1024, num_layers=4, num_heads=8, ffn_dim=4096),
    "paper": TalkerConfig(dim=4096, num_layers=4, num_heads=32, ffn_dim=16384),
}
MODULES, EMIT = 5, 3  # of multi-token prediction: trained, and tokens a forward (VocalNet)
STEPS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of talking. steps: S of masked diffusion. emit: tokens a forward (multi-token)."""

    mode: str
    steps: int = 1
    emit: int = 1

    @property
    def name(self) -> str:
        return {"mdm": f"S={self.steps}", "ntp": "NTP", "mtp": f"MTP {self.emit}"}[self.mode]

    def forwards(self, block: int) -> list[tuple[int, int, int]]:
        """(columns a row, of them through the output layer, how many) of the forwards of a block,
        without modules.
        """
        if self.mode != "mdm":
            return [(self.emit, 1, -(-block // self.emit))]
        first, others = (2 * block, block, 1), (block, block, self.steps - 1)
        return [first] if self.steps == 1 else [first, others]


WAYS = (Way("ntp"), Way("mtp", emit=EMIT), *(Way("mdm", steps) for steps in STEPS))


@dataclasses.dataclass(frozen=True)
class Row:
    """One way, one batch: seconds a block of every row, of its matrix products alone, and at least
    on this machine.
    """

    size: str
    way: str
    batch: int
    block: Times
    bare: float
    bound: float
    tokens: int  # of a block

    @property
    def rate(self) -> float:
        """Tokens a second, all rows together."""
        return self.batch * self.tokens / self.block.median


def measure_talkers(
    sizes: Sequence[str],
    batches: Sequence[int],
    machine: Machine,
    *,
    blocks: int = 8,
    rounds: int = 7,
    dtype: str = "float32",
    told: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Every way of every size and batch. Weights are random: they decide no shape and no number of
    forwards. blocks: of each utterance. dtype: of the weights. UserError: unknown size.
    """
    rows = []
    for size in sizes:
        config = SIZES[size]
        told(f"making {size}")
        params = _weights(dataclasses.replace(config, mtp_modules=MODULES), dtype)
        engines: dict[str, TalkerEngine] = {
            "mdm": TalkerEngine(config, params),
            "ntp": TalkerEngine(config, params, "ntp"),
            "mtp": TalkerEngine(
                dataclasses.replace(config, mtp_modules=MODULES), params, "mtp", mtp_emit=EMIT
            ),
        }
        text = text_of_blocks(engines["mdm"], blocks)
        for batch in batches:
            told(f"{size}, batch {batch}")
            rows += _batch(size, config, engines, text, batch, machine, blocks, rounds, dtype, told)
    return rows


def _weights(config: TalkerConfig, dtype: str) -> Any:
    """Random ones, rounded as they are made, so that there is only one of each."""

    @jax.jit
    def make(key: jax.Array) -> Any:
        params = talker.init(config, key)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    return make(jax.random.key(0))


def text_of_blocks(engine: TalkerEngine, blocks: int) -> PacedText:
    """Symbols that are spoken in exactly so many blocks."""
    config, count = engine.config, 90
    text = PacedText(PacedReader(engine.talker, engine.params), config.block)
    symbols = np.random.default_rng(0).integers(0, config.symbols, count)
    text.extend(symbols.tolist(), closed=True)
    text.give(np.full(count, blocks * config.block / count, np.float32))
    return text


def _batch(size, config, engines, text, batch, machine, blocks, rounds, dtype, told) -> list[Row]:
    block, width = config.block, jnp.dtype(dtype).itemsize
    jobs: dict[str, Any] = {
        way.name: _job(engines[way.mode], text, way, batch, blocks) for way in WAYS
    }
    forwards = {part for way in WAYS for part in way.forwards(block)}
    bare = {
        f"bare {columns} {logits}": bare_forward(config, columns * batch, logits * batch, dtype)
        for columns, logits, _ in forwards
    }
    one = dataclasses.replace(config, num_layers=1)
    bare["bare module"] = bare_forward(one, EMIT * batch, batch, dtype)
    times = interleaved({**jobs, **bare}, rounds, told)
    alone_s = {name: times[name].median / REPEATS for name in bare}
    rows = []
    for way in WAYS:
        alone = sum(
            count * alone_s[f"bare {columns} {logits}"]
            for columns, logits, count in way.forwards(block)
        )
        weights = width * parameters(config)
        flops = {"trunk": parameters(config, logits=False), "out": talker.VOCAB * config.dim}
        bound = sum(
            count * machine.bound(weights, 2 * batch * (c * flops["trunk"] + n * flops["out"]))
            for c, n, count in way.forwards(block)
        )
        if way.mode == "mtp":
            modules = (way.emit - 1) * -(-block // way.emit)
            alone += modules * alone_s["bare module"]
            work = 2 * batch * (way.emit * parameters(one, logits=False) + flops["out"])
            bound += modules * machine.bound(width * parameters(one, logits=False), work)
        each = Times(tuple(value / blocks for value in times[way.name].seconds))
        rows.append(Row(size, way.name, batch, each, alone, bound, block))
    return rows


def _job(engine: TalkerEngine, text: PacedText, way: Way, batch: int, blocks: int):
    """Says the text with `batch` rows, from their beginning to their end."""

    def run() -> None:
        rows = [Utterance(engine, text, steps=way.steps, seed=n) for n in range(batch)]
        advance(rows, blocks)
        for row in rows:
            if row.row.blocks != blocks or not row.finished:
                raise RuntimeError(
                    f"{way.name}: {blocks} blocks were asked for, {row.row.blocks} decoded, "
                    f"finished: {row.finished}"
                )
            row.close()

    return run
