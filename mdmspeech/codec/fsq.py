"""Finite scalar quantisation: 8 digits of 3 levels, 3^8 = 6561 codes (Mentzer et al. 2023), the
vocabulary of S3-v2 too.

Source: docs/method.md, "The codecs".

A latent of 8 numbers is bounded by tanh, rounded to {-1, 0, 1}, and read as a base-3 number whose
digit 0 is the least significant. The rounding is straight-through: its gradient is that of the
identity.
"""

import jax
import jax.numpy as jnp

from mdmspeech.speech_format import CODES, DIGITS, LEVELS

_BOUND = 0.999  # keeps |tanh| strictly inside the outer levels, as the S3 tokenizer does


def quantise(latent: jax.Array) -> jax.Array:
    """Latents [..., 8] (any real) -> codes [..., 8] in {-1, 0, 1}; straight-through gradient."""
    bounded = jnp.tanh(latent) * _BOUND
    return bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)


def codes_to_ids(codes: jax.Array) -> jax.Array:
    """Codes [..., 8] in {-1, 0, 1} -> token ids int32 [...], 0..6560."""
    digits = jnp.round(codes).astype(jnp.int32) + 1
    return jnp.sum(digits * _powers(digits.ndim), axis=-1)


def ids_to_codes(ids: jax.Array) -> jax.Array:
    """Token ids int32 [...] -> codes float32 [..., 8] in {-1, 0, 1}. Ids outside 0..6560 are clipped."""
    ids = jnp.clip(ids, 0, CODES - 1)[..., None]
    return (ids // _powers(ids.ndim) % LEVELS - 1).astype(jnp.float32)


def _powers(ndim: int) -> jax.Array:
    """3^0 .. 3^7 on the last of `ndim` axes."""
    return (LEVELS ** jnp.arange(DIGITS, dtype=jnp.int32)).reshape((1,) * (ndim - 1) + (DIGITS,))


def usage_penalty(codes: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far the codes are from using all 6561 values evenly: means 0, variances 2/3, no
    correlation between digits.

    codes [..., 8], weight [...] (0 where padded). Returns (sum, weight) so that it can be
    accumulated like the other losses.
    """
    weight = weight[..., None]
    total = jnp.maximum(jnp.sum(weight), 1.0)
    axes = tuple(range(codes.ndim - 1))
    mean = jnp.sum(codes * weight, axes) / total
    centred = (codes - mean.reshape((1,) * (codes.ndim - 1) + (DIGITS,))) * weight
    covariance = jnp.tensordot(centred, codes, axes=(axes, axes)) / total
    target = jnp.eye(DIGITS) * (2.0 / 3.0)
    penalty = jnp.mean(jnp.square(mean)) + jnp.sum(jnp.square(covariance - target)) / DIGITS
    return penalty * total, total
