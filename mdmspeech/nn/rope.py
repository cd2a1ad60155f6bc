"""Rotary position embedding (Su et al., 2021, arXiv 2104.09864) in the half-split ("NeoX") layout of the Hugging Face checkpoints.

In this layout dimension `i` is rotated together with dimension `i + head_dim/2`; checkpoints stored for interleaved pairs
(GGUF's Llama family) are permuted once, when they are imported.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError


def rope_frequencies(head_dim: int, theta: float, scaling: Mapping[str, Any] | None = None) -> np.ndarray:
    """Angular frequencies, radians per position, float32 [head_dim/2].

    `scaling` is the `rope_scaling` entry of a Hugging Face config, or None. Known types: "default", "linear" (divide by
    `factor`) and "llama3" (slow frequencies divided by `factor`, fast ones kept, a ramp between).

    Raises:
      UserError: `head_dim` is odd or the scaling type is unknown.
    """
    if head_dim % 2:
        raise UserError(f"rope needs an even head_dim, got {head_dim}; give the model an even head_dim")
    inverse = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    scaling = scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        pass
    elif kind == "linear":
        inverse = inverse / scaling["factor"]
    elif kind == "llama3":
        inverse = _llama3(inverse, scaling)
    else:
        raise UserError(f"rope scaling type {kind!r} is not known; use one of: default, linear, llama3")
    return inverse.astype(np.float32)


def _llama3(inverse: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """Llama 3.1's rule: by how many turns a frequency makes within the original context, keep, blend or divide it."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * inverse / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return keep * inverse + (1 - keep) * inverse / factor


def rope_table(positions_BT: jax.Array, frequencies: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the rotation at each position, both float32 [B, T, head_dim/2]."""
    angles = positions_BT[..., None].astype(jnp.float32) * jnp.asarray(frequencies)[None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x_BTHD: jax.Array, cos_BTF: jax.Array, sin_BTF: jax.Array) -> jax.Array:
    """Rotates every head of `x_BTHD` by its position's table entry (F = D/2); computes in float32, keeps x's dtype."""
    cos, sin = cos_BTF[:, :, None, :], sin_BTF[:, :, None, :]
    first, second = jnp.split(x_BTHD.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTHD.dtype)
