"""Choosing the next token: greedy, temperature, top-k and top-p, reproducible for each request whatever its batch."""

import dataclasses

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw a token.

    Attributes:
      temperature: 0 = greedy. top_k: keep the k likeliest (0 = all). top_p: keep the smallest set of the likeliest tokens whose
        probability reaches top_p (1 = all). Both filters look at the same unfiltered distribution and are intersected.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"{self} is out of range: temperature >= 0, top_k >= 0 and 0 < top_p <= 1 are needed")


GREEDY = Sampling()


def step_keys(request_keys_B: jax.Array, positions_B: jax.Array) -> jax.Array:
    """Typed keys [B]: each request's key folded with its own position, so that a row draws alike alone and in any batch."""
    return jax.vmap(jax.random.fold_in)(request_keys_B, positions_B)


def sample(logits_BV: jax.Array, keys_B: jax.Array, sampling: Sampling = GREEDY) -> jax.Array:
    """Token ids int32 [B]; `keys_B` are typed PRNG keys (unused when greedy)."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    scaled_BV = logits_BV / sampling.temperature
    keep_BV = jnp.ones(scaled_BV.shape, bool)
    if sampling.top_k:
        keep_BV &= scaled_BV >= jax.lax.top_k(scaled_BV, min(sampling.top_k, scaled_BV.shape[-1]))[0][:, -1:]
    if sampling.top_p < 1:
        keep_BV &= scaled_BV >= _nucleus_threshold(scaled_BV, sampling.top_p)
    draw = jax.vmap(jax.random.categorical)
    return draw(keys_B, jnp.where(keep_BV, scaled_BV, -jnp.inf)).astype(jnp.int32)


def _nucleus_threshold(logits_BV: jax.Array, top_p: float) -> jax.Array:
    """Logit [B, 1] of the last token inside the nucleus (at least one token is)."""
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    return jnp.where(before_BV < top_p, sorted_BV, jnp.inf).min(axis=-1, keepdims=True)
