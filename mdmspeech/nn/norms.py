"""Normalisation layers that Linen does not spell the way the checkpoints do."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mdmspeech.nn.params import param


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich, 2019): x / rms(x) * scale over the last axis.

    The statistics are taken in float32 whatever the input, and the result has the input's dtype, as
    in Llama and Qwen.
    """

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = param(self, "scale", nn.initializers.ones_init(), (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (normed * _like_vector(scale, x)).astype(x.dtype)


def _like_vector(scale: jax.Array, x: jax.Array) -> jax.Array:
    """`scale` [D] with leading ones up to x's rank (implicit rank promotion is an error in our tests)."""
    return scale.reshape((1,) * (x.ndim - 1) + scale.shape)
