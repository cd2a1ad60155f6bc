"""Multi-head attention with grouped K/V heads, an optional K/V cache and any mask, dense or
described (`nn.masks`).

What computes it on which machine is `nn.backends`' business.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from mdmspeech.nn.backends import attend
from mdmspeech.nn.linear import Linear
from mdmspeech.nn.masks import Mask
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import constrain
from mdmspeech.nn.rope import apply_rope
from mdmspeech.nn.tracing import attention_backend

__all__ = ["Attention", "CrossAttention", "KVCache", "attend", "attention_backend"]


@struct.dataclass
class KVCache:
    """Keys (already rotated) and values of one layer: both [B, S, K, D]."""

    k_BSKD: jax.Array
    v_BSKD: jax.Array

    @classmethod
    def zeros(
        cls, batch: int, length: int, num_kv_heads: int, head_dim: int, dtype=jnp.float32
    ) -> "KVCache":
        shape = (batch, length, num_kv_heads, head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    @property
    def columns(self) -> int:
        """Positions there is room for."""
        return self.k_BSKD.shape[-3]

    def fitted(self, rows: int, columns: int) -> "KVCache":
        """One row, repeated, with room for `columns` positions (of one layer, or of layers that are
        stacked in front).
        """
        return jax.tree.map(lambda leaf: fitted(leaf, rows, columns, axis=-3), self)

    def write(self, k_BTKD: jax.Array, v_BTKD: jax.Array, write_at_B: jax.Array) -> "KVCache":
        """New cache with k, v stored at columns write_at .. write_at+T-1 of each row; columns past
        the end are dropped.
        """
        batch, length = k_BTKD.shape[:2]
        rows_B1 = jnp.arange(batch)[:, None]
        columns_BT = write_at_B[:, None] + jnp.arange(length)[None, :]
        return KVCache(
            self.k_BSKD.at[rows_B1, columns_BT].set(k_BTKD.astype(self.k_BSKD.dtype), mode="drop"),
            self.v_BSKD.at[rows_B1, columns_BT].set(v_BTKD.astype(self.v_BSKD.dtype), mode="drop"),
        )


def fitted(leaf: jax.Array, rows: int, columns: int, axis: int) -> jax.Array:
    """A cache's [..., 1, a, b, c] -> [..., rows, a, b, c], padded to `columns` along `axis`."""
    widths = [(0, 0)] * leaf.ndim
    widths[axis] = (0, columns - leaf.shape[axis])
    return jnp.repeat(jnp.pad(leaf, widths), rows, axis=-4)


class Attention(nn.Module):
    """Projections + rotary embedding + `attend`.

    Attributes:
      qkv_bias: biases on q, k and v (Qwen2); `k_bias` overrides it for k (Whisper has none there);
        `out_bias` is the output's.
      qk_norm: RMSNorm over head_dim on q and k before the rotation (Qwen3).
      lora_rank, lora_alpha: low-rank updates of all four projections, see `nn.linear`.
      score_scale: factor on the scores beside 1 / sqrt(head_dim) (muP: `TalkerConfig.score_scale`).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    k_bias: bool | None = None
    out_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-6
    lora_rank: int = 0
    lora_alpha: float = 16.0
    score_scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        mask_BTS: Mask,
        rope: tuple[jax.Array, jax.Array] | None = None,
        cache: KVCache | None = None,
        write_at_B: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Attends within x (S = T) or, given a cache, over the whole cache after writing x's keys
        and values into it.

        Args:
          mask_BTS: bool [B or 1, T, S], True = may attend; with a cache S is the cache length.
            Without one, an `AttentionMask` as well.
          rope: (cos, sin) [B or 1, T, head_dim/2] of x's positions, or None for no rotation.
          write_at_B: int32 [B], first cache column of each row; needed with a cache.

        Returns:
          (y [B, T, D], the new cache or None).
        """
        k_bias = self.qkv_bias if self.k_bias is None else self.k_bias
        q_BTHD = self._project(x_BTD, self.num_heads, self.qkv_bias, "q")
        k_BTKD = self._project(x_BTD, self.num_kv_heads, k_bias, "k")
        v_BTKD = self._project(x_BTD, self.num_kv_heads, self.qkv_bias, "v")
        if self.qk_norm:
            q_BTHD = RMSNorm(self.norm_eps, name="q_norm")(q_BTHD)
            k_BTKD = RMSNorm(self.norm_eps, name="k_norm")(k_BTKD)
        if rope is not None:
            q_BTHD, k_BTKD = apply_rope(q_BTHD, *rope), apply_rope(k_BTKD, *rope)
        if self.score_scale != 1.0:
            q_BTHD = q_BTHD * self.score_scale
        if cache is not None:
            assert write_at_B is not None, "a cache needs write_at_B"
            cache = cache.write(k_BTKD, v_BTKD, write_at_B)
            k_BTKD, v_BTKD = cache.k_BSKD.astype(q_BTHD.dtype), cache.v_BSKD.astype(q_BTHD.dtype)
        out_BTHD = attend(q_BTHD, k_BTKD, v_BTKD, mask_BTS)
        out_BTE = out_BTHD.reshape(*out_BTHD.shape[:2], self.num_heads * self.head_dim)
        out_BTE = constrain(out_BTE, "batch", "length", "heads")
        return Linear(x_BTD.shape[-1], self.out_bias, self.lora_rank, self.lora_alpha, name="o")(
            out_BTE
        ), cache

    def _project(self, x_BTD: jax.Array, heads: int, bias: bool, name: str) -> jax.Array:
        y_BTE = Linear(heads * self.head_dim, bias, self.lora_rank, self.lora_alpha, name=name)(
            x_BTD
        )
        return constrain(
            y_BTE.reshape(*x_BTD.shape[:2], heads, self.head_dim),
            "batch",
            "length",
            "heads",
            "none",
        )


class CrossAttention(nn.Module):
    """Attention from a text to states that stay the same while it is written: their keys and values
    are made once, by `encode_memory`.

    Whisper's biases: none on k.
    """

    num_heads: int
    head_dim: int
    out_dim: int

    def setup(self):
        inner = self.num_heads * self.head_dim
        self.q, self.k, self.v = nn.Dense(inner), nn.Dense(inner, use_bias=False), nn.Dense(inner)
        self.o = nn.Dense(self.out_dim)

    def encode_memory(self, states_BSE: jax.Array) -> KVCache:
        """[B, S, E] -> keys and values [B, S, H, head_dim]."""
        heads = (*states_BSE.shape[:2], self.num_heads, self.head_dim)
        return KVCache(self.k(states_BSE).reshape(heads), self.v(states_BSE).reshape(heads))

    def __call__(self, x_BTD: jax.Array, memory: KVCache, mask_BTS: jax.Array) -> jax.Array:
        """x [B, T, D] reads the memory; mask_BTS: bool [B or 1, T or 1, S], True = may attend."""
        batch, length = x_BTD.shape[:2]
        q_BTHD = self.q(x_BTD).reshape(batch, length, self.num_heads, self.head_dim)
        mask_BTS = jnp.broadcast_to(mask_BTS, (mask_BTS.shape[0], length, mask_BTS.shape[2]))
        return self.o(
            attend(q_BTHD, memory.k_BSKD, memory.v_BSKD, mask_BTS).reshape(batch, length, -1)
        )
