"""Tokens a second of every way of talking, on one trunk, in one engine, in one run.

Masked diffusion at S steps a block, next-token and multi-token decoding take turns on the same
weights' shapes and the same text; beside each stand the time of its matrix products alone, and what
the machine's bandwidth and arithmetic allow. Weights are random, or those of a release: only how
often a draft is right depends on them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError
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
from mdmspeech.inference.paced_synthesizer import pronounce_text
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
        if self.mode == "mdm":
            return f"S={self.steps}"
        return {
            "ntp": "NTP",
            "mtp": f"MTP {self.emit}",
            "mtp_verified": f"MTP {self.emit} verified",
        }[self.mode]

    def forwards(self, block: int, count: float | None = None) -> list[tuple[int, int, float]]:
        """(columns a row, of them through the output layer, how many) of the forwards of a block,
        without modules. count: of a way whose forwards depend on what is written.
        """
        if self.mode == "mtp_verified":  # head 0 at each place, and a draft a module
            return [(self.emit, 2 * self.emit - 1, block if count is None else count)]
        if self.mode != "mdm":
            return [(self.emit, 1, -(-block // self.emit))]
        first, others = (2 * block, block, 1), (block, block, self.steps - 1)
        return [first] if self.steps == 1 else [first, others]


WAYS = (Way("ntp"), Way("mtp", emit=EMIT), *(Way("mdm", steps) for steps in STEPS))
TRAINED = ", trained"  # behind the name of a release, in place of a size
VERIFIED = Way("mtp_verified", emit=EMIT)  # means something with trained weights only
TEXT = (
    "The first people who came here, long before there were roads, followed the river to its spring, "
    "and built their houses where the valley is wide and the ground is dry all year."
)


class Talkers(NamedTuple):
    """Of one trunk: an engine a mode, what each says (read by its own weights), the ways to measure."""

    name: str
    config: TalkerConfig
    engines: dict[str, TalkerEngine]
    texts: dict[str, PacedText]
    ways: tuple[Way, ...]


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
    forwards: float  # of a block

    @property
    def rate(self) -> float:
        """Tokens a second, all rows together."""
        return self.batch * self.tokens / self.block.median


def measure_talkers(
    talkers: Iterable[Talkers],
    batches: Sequence[int],
    machine: Machine,
    *,
    blocks: int = 8,
    rounds: int = 7,
    dtype: str = "float32",
    told: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Every way of every Talker and batch.

    Args:
      talkers: of `random_talkers` or `release_talkers`, with texts of `blocks` blocks; one after
        another, so that only one is in memory.
      blocks: of each utterance. dtype: of the weights.
    """
    rows = []
    for one in talkers:
        for batch in batches:
            told(f"{one.name}, batch {batch}")
            rows += _batch(one, batch, machine, blocks, rounds, dtype, told)
    return rows


def random_talkers(size: str, blocks: int = 8, dtype: str = "float32") -> Talkers:
    """Of one of `SIZES`. Weights are random: they decide no shape and, drafts apart, no number of
    forwards.
    """
    config = SIZES[size]
    several = dataclasses.replace(config, mtp_modules=MODULES)
    params = _weights(several, dtype)
    engines = {
        "mdm": TalkerEngine(config, params),
        "ntp": TalkerEngine(config, params, "ntp"),
        "mtp": TalkerEngine(several, params, "mtp", mtp_emit=EMIT),
    }
    texts = {mode: text_of_blocks(engine, blocks) for mode, engine in engines.items()}
    return Talkers(size, config, engines, texts, WAYS)


def release_talkers(release: Any, blocks: int = 8) -> Talkers:
    """Those of a release (`interop.release.Release`), which say `TEXT`, evenly paced; of multi-token
    decoding with what it wrote checked, too.

    Raises:
      UserError: it lacks a Talker with paced anchors, or the next-token one.
    """
    parts = {
        "mdm": "talker",
        "ntp": "talker_ntp",
        "mtp": "talker_mtp",
        "mtp_verified": "talker_mtp",
    }
    for part in ("talker", "talker_ntp"):
        if part not in release.parts or release.part(part).config.anchors != "paced":
            raise UserError(
                f"release {release.name!r} has no {part} with paced anchors, beside which others "
                "could be measured: give one that has"
            )
    engines = {
        mode: TalkerEngine(release.part(part).config, release.part(part).params, mode)
        for mode, part in parts.items()
        if part in release.parts
    }
    symbols = pronounce_text(TEXT).symbols
    texts = {mode: text_of_blocks(engine, blocks, symbols) for mode, engine in engines.items()}
    ways = tuple(way for way in (*WAYS[:2], VERIFIED, *WAYS[2:]) if way.mode in engines)
    name = f"{release.name}{TRAINED}"
    return Talkers(name, release.part("talker").config, engines, texts, ways)


def _weights(config: TalkerConfig, dtype: str) -> Any:
    """Random ones, rounded as they are made, so that there is only one of each."""

    @jax.jit
    def make(key: jax.Array) -> Any:
        params = talker.init(config, key)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    return make(jax.random.key(0))


def text_of_blocks(
    engine: TalkerEngine, blocks: int, symbols: np.ndarray | None = None
) -> PacedText:
    """Symbols int [M], or random ones, that are spoken, evenly, in exactly so many blocks."""
    if symbols is None:
        symbols = np.random.default_rng(0).integers(0, engine.config.symbols, 90)
    tokens = blocks * engine.config.block
    text = PacedText(PacedReader(engine.talker, engine.params), engine.config.block)
    text.extend(symbols.tolist(), closed=True)
    text.give(np.full(len(symbols), tokens / len(symbols), np.float32))
    return text


def _batch(talkers: Talkers, batch, machine, blocks, rounds, dtype, told) -> list[Row]:
    config = talkers.config
    block, width = config.block, jnp.dtype(dtype).itemsize
    jobs: dict[str, Any] = {
        way.name: _job(talkers.engines[way.mode], talkers.texts[way.mode], way, batch, blocks)
        for way in talkers.ways
    }
    forwards = {
        way: way.forwards(block, jobs[way.name]() / blocks if way is VERIFIED else None)
        for way in talkers.ways
    }
    bare = {
        f"bare {columns} {logits}": bare_forward(config, columns * batch, logits * batch, dtype)
        for parts in forwards.values()
        for columns, logits, _ in parts
    }
    one = dataclasses.replace(config, num_layers=1)
    bare["bare module"] = bare_forward(one, EMIT * batch, batch, dtype)
    times = interleaved({**jobs, **bare}, rounds, told)
    alone_s = {name: times[name].median / REPEATS for name in bare}
    rows = []
    for way, parts in forwards.items():
        alone = sum(count * alone_s[f"bare {columns} {logits}"] for columns, logits, count in parts)
        weights = width * parameters(config)
        flops = {"trunk": parameters(config, logits=False), "out": talker.VOCAB * config.dim}
        bound = sum(
            count * machine.bound(weights, 2 * batch * (c * flops["trunk"] + n * flops["out"]))
            for c, n, count in parts
        )
        count = sum(count for *_, count in parts)
        if way.emit > 1:
            modules = (way.emit - 1) * count
            alone += modules * alone_s["bare module"]
            work = 2 * batch * (way.emit * parameters(one, logits=False) + flops["out"])
            bound += modules * machine.bound(width * parameters(one, logits=False), work)
        each = Times(tuple(value / blocks for value in times[way.name].seconds))
        rows.append(Row(talkers.name, way.name, batch, each, alone, bound, block, count))
    return rows


def _job(engine: TalkerEngine, text: PacedText, way: Way, batch: int, blocks: int):
    """Says the text with `batch` rows, from their beginning to their end -> forwards of the batch."""

    def run() -> int:
        rows = [Utterance(engine, text, steps=way.steps, seed=n) for n in range(batch)]
        advance(rows, blocks)
        for row in rows:
            if row.row.blocks != blocks or not row.finished:
                raise RuntimeError(
                    f"{way.name}: {blocks} blocks were asked for, {row.row.blocks} decoded, "
                    f"finished: {row.finished}"
                )
            row.close()
        steps_RL = np.stack([row.spoken().steps for row in rows])
        return int(np.sum(1 + steps_RL.reshape(batch, blocks, -1).max(axis=(0, 2))))

    return run
