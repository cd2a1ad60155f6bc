"""Rotary position embedding (Su et al., 2021, arXiv 2104.09864) in the half-split ("NeoX") layout
of the Hugging Face checkpoints.

In this layout dimension `i` is rotated together with dimension `i + head_dim/2`; checkpoints stored
for interleaved pairs (GGUF's Llama family) are permuted once, when they are imported.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError

KINDS = ("default", "linear", "llama3", "yarn")


def rope_frequencies(
    head_dim: int, theta: float, scaling: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Angular frequencies, radians per position, float32 [head_dim/2].

    `scaling` is the `rope_scaling` entry of a Hugging Face config, or None. Known types: "default",
    "linear" (divide by `factor`), "llama3" (slow frequencies divided by `factor`, fast ones kept, a
    ramp over turns between) and "yarn" (Peng et al., 2023, arXiv 2309.00071: the same with a ramp
    over dimensions; see also `rope_attention_factor`).

    Raises:
      UserError: `head_dim` is odd or the scaling type is unknown. KeyError: an entry that the type
        needs is missing.
    """
    if head_dim % 2:
        raise UserError(
            f"rope needs an even head_dim, got {head_dim}; give the model an even head_dim"
        )
    inverse = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    scaling = scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        pass
    elif kind == "linear":
        inverse = inverse / scaling["factor"]
    elif kind == "llama3":
        inverse = _llama3(inverse, scaling)
    elif kind == "yarn":
        inverse = _yarn(inverse, head_dim, theta, scaling)
    else:
        raise UserError(f"rope scaling type {kind!r} is not known; use one of: {', '.join(KINDS)}")
    return inverse.astype(np.float32)


def rope_attention_factor(scaling: Mapping[str, Any] | None) -> float:
    """What YaRN multiplies cosines and sines with (attention logits: with its square); 1 for the
    other types.

    `attention_factor` if given, else 0.1 ln(factor) + 1 (eq. 22 of the paper, as sqrt(1/t)), with
    DeepSeek's `mscale` and `mscale_all_dim` if given.
    """
    scaling = scaling or {}
    if scaling.get("rope_type", scaling.get("type")) != "yarn":
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    of = lambda mscale: (
        1.0 if scaling["factor"] <= 1 else 0.1 * mscale * math.log(scaling["factor"]) + 1.0
    )
    mscale, of_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return of(mscale) / of(of_all) if mscale and of_all else of(1.0)


def _llama3(inverse: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """Llama 3.1's rule: by how many turns a frequency makes within the original context, keep,
    blend or divide it.
    """
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * inverse / (2 * math.pi)
    with np.errstate(divide="ignore", invalid="ignore"):  # equal bounds: a step
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return keep * inverse + (1 - keep) * inverse / factor


def _yarn(
    inverse: np.ndarray, head_dim: int, theta: float, scaling: Mapping[str, Any]
) -> np.ndarray:
    """Dimensions that turn more than `beta_fast` times within the original context are kept, those
    that turn less than `beta_slow` times divided.
    """

    def dimension(turns: float) -> float:
        """Where a frequency makes that many turns within the original context."""
        return (
            head_dim
            * math.log(scaling["original_max_position_embeddings"] / (turns * 2 * math.pi))
            / (2 * math.log(theta))
        )

    low, high = (
        dimension(scaling.get("beta_fast") or 32.0),
        dimension(scaling.get("beta_slow") or 1.0),
    )
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    divided = np.clip((np.arange(head_dim // 2) - low) / ((high - low) or 0.001), 0.0, 1.0)
    return (1 - divided) * inverse + divided * inverse / scaling["factor"]


def rope_table(
    positions_BT: jax.Array, frequencies: jax.Array | np.ndarray, attention_factor: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the rotation at each position times `attention_factor`, both float32
    [B, T, head_dim/2].
    """
    angles = positions_BT[..., None].astype(jnp.float32) * jnp.asarray(frequencies)[None, None, :]
    if attention_factor == 1.0:
        return jnp.cos(angles), jnp.sin(angles)
    return jnp.cos(angles) * attention_factor, jnp.sin(angles) * attention_factor


def apply_rope(x_BTHD: jax.Array, cos_BTF: jax.Array, sin_BTF: jax.Array) -> jax.Array:
    """Rotates every head of `x_BTHD` by its position's table entry (F = D/2); computes in float32,
    keeps x's dtype.
    """
    cos, sin = cos_BTF[:, :, None, :], sin_BTF[:, :, None, :]
    first, second = jnp.split(x_BTHD.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTHD.dtype)
