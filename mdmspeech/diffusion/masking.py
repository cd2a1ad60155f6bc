"""Masking schedules: which tokens of a training sequence are hidden, and how much each counts.

Source: docs/method.md, "Masking schedules" and "Hierarchical block-wise masking".

A schedule is a frozen dataclass with one method, `sample(key, valid_BL, block) -> Masking`. The
hidden tokens are drawn among the valid ones only, and every row that has a valid token gets at
least one hidden token, so that no row is a wasted row. `get("hierarchical", blocks=(0.5, 1.0))`
builds one by name. B batch, L length, P blocks, K block size.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mdmspeech.diffusion.layout import from_blocks, to_blocks
from mdmspeech.diffusion.unmasking import rank, select
from mdmspeech.errors import UserError


class Masking(NamedTuple):
    """`mask_BL` bool: hidden tokens. `weight_BL` f32: weight of each token's loss, 0 where it is
    not hidden.
    """

    mask_BL: jax.Array
    weight_BL: jax.Array


class Schedule(Protocol):
    """What every schedule offers."""

    def sample(self, key: jax.Array, valid_BL: jax.Array, block: int) -> Masking:
        """Draws the hidden tokens of a batch: `key` one typed PRNG key; `valid_BL` bool, False on
        padding; `block` tokens a block.
        """


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Global Bernoulli (stage 2): a rate g ~ U(low, high) for each sequence, each token hidden
    i.i.d. with it. Mean rate 0.55.
    """

    low: float = 0.3
    high: float = 0.8

    def __post_init__(self):
        _check_range("Bernoulli", self.low, self.high)

    def sample(self, key: jax.Array, valid_BL: jax.Array, block: int) -> Masking:
        rate_key, token_key, last_key = jax.random.split(key, 3)
        rate_B1 = _uniform(rate_key, (valid_BL.shape[0], 1), self.low, self.high)
        mask_BL = (jax.random.uniform(token_key, valid_BL.shape) < rate_B1) & valid_BL
        return _even(_at_least_one(last_key, mask_BL, valid_BL))


@dataclasses.dataclass(frozen=True)
class Hierarchical:
    """Hierarchical block-wise masking, HBM (stage 3): a share c ~ U(blocks) of the blocks, then in
    each chosen block a share t ~ U(tokens) of its tokens, t per block; the other blocks stay clean.
    Mean rate 0.75 x 0.65 = 0.4875.

    Both choices are of an exact count, uniformly among the sets of that size. The count is the
    share times the number of valid blocks (tokens), rounded up or down at random so that its mean
    is exact; it is at least one block a row, one token a block.
    """

    blocks: tuple[float, float] = (0.5, 1.0)
    tokens: tuple[float, float] = (0.3, 1.0)

    def __post_init__(self):
        _check_range("Hierarchical blocks", *self.blocks)
        _check_range("Hierarchical tokens", *self.tokens)

    def sample(self, key: jax.Array, valid_BL: jax.Array, block: int) -> Masking:
        keys = jax.random.split(key, 6)
        valid_BPK = to_blocks(valid_BL, block, False)
        valid_BP = jnp.any(valid_BPK, axis=-1)
        share_B = _uniform(keys[0], valid_BP.shape[:1], *self.blocks)
        chosen_BP = _choose(keys[1], keys[2], valid_BP, share_B)
        share_BP = _uniform(keys[3], valid_BP.shape, *self.tokens)
        mask_BPK = _choose(keys[4], keys[5], valid_BPK, share_BP) & chosen_BP[..., None]
        return _even(from_blocks(mask_BPK, valid_BL.shape[1]))


@dataclasses.dataclass(frozen=True)
class InverseT:
    """LLaDA (arXiv 2502.09992): t ~ U(low, 1), each token hidden with probability t and weighted
    1/t: an unbiased likelihood bound.

    `per` "block" draws one t a block, stratified over the blocks of a row; "sequence" one a row,
    stratified over the batch: strata (u + i)/n in random order keep the weights' variance down. A
    token hidden only because its row would else have none has weight 1, not 1/t.
    """

    low: float = 1e-3
    per: str = "block"

    def __post_init__(self):
        _check_range("InverseT", self.low, 1.0)
        if self.low <= 0:
            raise UserError(
                "InverseT low=0: weights are 1/t, so give a small positive low such as 1e-3"
            )
        if self.per not in ("block", "sequence"):
            raise UserError(f"InverseT per={self.per!r}: choose 'block' or 'sequence'")

    def sample(self, key: jax.Array, valid_BL: jax.Array, block: int) -> Masking:
        order_key, shift_key, token_key, last_key = jax.random.split(key, 4)
        valid_BP = jnp.any(to_blocks(valid_BL, block, False), axis=-1)
        if self.per == "block":
            t_BP = _stratified(order_key, shift_key, valid_BP)
        else:
            t_1B = _stratified(order_key, shift_key, jnp.any(valid_BP, axis=-1)[None, :])
            t_BP = jnp.broadcast_to(t_1B.T, valid_BP.shape)
        t_BP = self.low + (1.0 - self.low) * t_BP
        t_BL = jnp.repeat(t_BP, block, axis=1)[:, : valid_BL.shape[1]]
        mask_BL = (jax.random.uniform(token_key, valid_BL.shape) < t_BL) & valid_BL
        full_BL = _at_least_one(last_key, mask_BL, valid_BL)
        return Masking(full_BL, jnp.where(mask_BL, 1.0 / t_BL, full_BL.astype(jnp.float32)))


@dataclasses.dataclass(frozen=True)
class Cosine:
    """MaskGIT (arXiv 2202.04200): a share cos(pi u / 2), u ~ U(0, 1), of each sequence's tokens, an
    exact count. Mean rate 2/pi.
    """

    def sample(self, key: jax.Array, valid_BL: jax.Array, block: int) -> Masking:
        share_key, round_key, choice_key = jax.random.split(key, 3)
        share_B = jnp.cos(0.5 * jnp.pi * jax.random.uniform(share_key, valid_BL.shape[:1]))
        return _even(_choose(round_key, choice_key, valid_BL, share_B))


@dataclasses.dataclass(frozen=True)
class Spans:
    """MAGNeT (arXiv 2401.04577): spans of `length` tokens, which may overlap, covering cos(pi u /
    2) of a sequence on average.

    Span starts are i.i.d. with q = 1 - (1 - rate)^(1/length), which gives every token, edges
    included, exactly that chance.
    """

    length: int = 3

    def __post_init__(self):
        if self.length < 1:
            raise UserError(f"Spans length={self.length}: a span holds at least one token")

    def sample(self, key: jax.Array, valid_BL: jax.Array, block: int) -> Masking:
        rate_key, start_key, last_key = jax.random.split(key, 3)
        batch, width = valid_BL.shape
        rate_B1 = jnp.cos(0.5 * jnp.pi * jax.random.uniform(rate_key, (batch, 1)))
        chance_B1 = 1.0 - (1.0 - rate_B1) ** (1.0 / self.length)
        start_BS = jax.random.uniform(start_key, (batch, width + self.length - 1)) < chance_B1
        covered = jnp.stack([start_BS[:, shift : shift + width] for shift in range(self.length)])
        return _even(_at_least_one(last_key, jnp.any(covered, axis=0) & valid_BL, valid_BL))


def loss_weight(schedule: Schedule, weight: jax.Array, valid_BL: jax.Array) -> jax.Array:
    """f32 scalar: what a schedule's loss sum, weighted by `weight` (any shape), is divided by. The
    number of valid tokens for 1/t weights, whose sum that is on average, so that the loss is
    LLaDA's unbiased bound in nats per token; the sum of the weights for all others."""
    return jnp.sum(valid_BL if isinstance(schedule, InverseT) else weight).astype(jnp.float32)


SCHEDULES = {
    "bernoulli": Bernoulli,
    "hierarchical": Hierarchical,
    "inverse_t": InverseT,
    "cosine": Cosine,
    "spans": Spans,
}


def get(name: str, **kwargs) -> Schedule:
    """The schedule of that name with those fields; UserError lists the names (or the fields) when
    it does not exist.
    """
    if name not in SCHEDULES:
        raise UserError(
            f"masking schedule {name!r} is unknown; choose one of {', '.join(SCHEDULES)}"
        )
    fields = [field.name for field in dataclasses.fields(SCHEDULES[name])]
    unknown = sorted(set(kwargs) - set(fields))
    if unknown:
        raise UserError(
            f"masking schedule {name!r} has no field {unknown[0]!r}; it has: "
            f"{', '.join(fields) or 'none'}"
        )
    return SCHEDULES[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()})


def _even(mask_BL: jax.Array) -> Masking:
    return Masking(mask_BL, mask_BL.astype(jnp.float32))


def _uniform(key: jax.Array, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def _choose(
    round_key: jax.Array, choice_key: jax.Array, among: jax.Array, share: jax.Array
) -> jax.Array:
    """A uniformly random subset of `among` (bool [..., N]) of size share * members (f32 [...]),
    randomly rounded, at least one.
    """
    members = jnp.sum(among, axis=-1)
    count = jnp.floor(share * members + jax.random.uniform(round_key, share.shape)).astype(
        jnp.int32
    )
    return select(jax.random.uniform(choice_key, among.shape), among, jnp.maximum(count, 1))


def _at_least_one(key: jax.Array, mask_BL: jax.Array, valid_BL: jax.Array) -> jax.Array:
    """`mask_BL`, and one random valid token in each row in which nothing is hidden."""
    none_B = ~jnp.any(mask_BL, axis=-1)
    noise_BL = jnp.where(valid_BL, jax.random.uniform(key, mask_BL.shape), -1.0)
    one_BL = (
        jnp.arange(mask_BL.shape[1])[None, :] == jnp.argmax(noise_BL, axis=-1)[:, None]
    ) & valid_BL
    return mask_BL | (one_BL & none_B[:, None])


def _stratified(order_key: jax.Array, shift_key: jax.Array, among: jax.Array) -> jax.Array:
    """f32 [..., N] in [0, 1): one draw from each of n equal strata, dealt in random order to the n
    members of `among`.
    """
    place = rank(jax.random.uniform(order_key, among.shape), among)
    members = jnp.maximum(jnp.sum(among, axis=-1, keepdims=True), 1)
    shift = jax.random.uniform(shift_key, among.shape)
    return jnp.where(among, (place + shift) / members, 0.5)


def _check_range(name: str, low: float, high: float) -> None:
    if not 0.0 <= low <= high <= 1.0:
        raise UserError(f"{name} range ({low}, {high}): give 0 <= low <= high <= 1")
