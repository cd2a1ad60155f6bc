"""The velocity field of CosyVoice2's flow (Du et al., 2024, arXiv 2412.10117, section 2.4): a
causal U-Net over mel frames at one time.

The U has one level and never changes the rate: a stage down, stages in the middle, a stage up that
also sees what the first one gave. A stage is a causal convolutional block, which is told the time,
and transformers without positions (the convolutions carry them). From Matcha-TTS (Mehta et al.,
2023, arXiv 2309.03199), made causal.

B batch, T frames, S frames of history, M mel bins, C channels, E time vector.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from mdmspeech.codec.cosyvoice2.flow_layers import with_history, with_past
from mdmspeech.config_names import renamed_fields
from mdmspeech.nn.attention import KVCache, attend

_WIDTH = 3  # of every convolution
_EPS = 1e-5


@renamed_fields
@dataclasses.dataclass(frozen=True)
class FlowEstimatorConfig:
    """Sizes of the estimator; the defaults are CosyVoice2's (71.3 M parameters).

    Attributes:
      channels: C. The heads together may be wider than that.
      stage_num_layers: transformers of a stage. mid_stages: stages in the middle.
    """

    num_mels: int = 80
    channels: int = 256
    num_heads: int = 8
    head_dim: int = 64
    stage_num_layers: int = 4
    mid_stages: int = 12


@struct.dataclass
class StageCache:
    """What one stage remembers: the last inputs of its convolutions, and keys and values of S frames."""

    conv1_BKC: jax.Array
    conv2_BKC: jax.Array
    blocks: tuple[KVCache, ...]


@struct.dataclass
class EstimatorCache:
    """What the estimator remembers of earlier frames (at one time of the flow)."""

    stages: tuple[StageCache, ...]  # down, middle, up
    after_down_BKC: jax.Array
    after_up_BKC: jax.Array
    final_BKC: jax.Array

    @classmethod
    def zeros(cls, config: FlowEstimatorConfig, batch: int, history: int) -> "EstimatorCache":
        """The cache before the first frame; history: S, frames that later ones may attend to."""
        c = config

        def past(channels: int) -> jax.Array:
            return jnp.zeros((batch, _WIDTH - 1, channels))

        def stage(channels: int) -> StageCache:
            blocks = tuple(
                KVCache.zeros(batch, history, c.num_heads, c.head_dim)
                for _ in range(c.stage_num_layers)
            )
            return StageCache(past(channels), past(c.channels), blocks)

        stages = (
            stage(4 * c.num_mels),
            *(stage(c.channels) for _ in range(c.mid_stages)),
            stage(2 * c.channels),
        )
        return cls(stages, past(c.channels), past(c.channels), past(c.channels))


class FlowEstimator(nn.Module):
    """State of the flow at one time, and its conditions -> velocity."""

    config: FlowEstimatorConfig

    @nn.compact
    def __call__(
        self,
        x_BTM: jax.Array,
        mu_BTM: jax.Array,
        speaker_BM: jax.Array,
        cond_BTM: jax.Array,
        time_B: jax.Array,
        valid_BT: jax.Array,
        mask_BTS: jax.Array,
        cache: EstimatorCache | None = None,
    ) -> tuple[jax.Array, EstimatorCache | None]:
        """One evaluation.

        Args:
          x_BTM: the state. mu_BTM: from the encoder. speaker_BM: projected speaker vector.
            cond_BTM: mel of the prompt, zeros behind it.
          time_B: 0 (noise) to 1 (mel).
          valid_BT: bool; other frames influence nothing and get velocity 0.
          mask_BTS: bool [B or 1, T, S+T], who attends to whom.
          cache: of the frames before, or None at a start.

        Returns:
          (velocity [B, T, M], the next cache or None).
        """
        c = self.config
        stages = None if cache is None else cache.stages
        time_BE = nn.Dense(4 * c.channels, name="time1")(time_sinusoid(time_B, 4 * c.num_mels))
        time_BE = nn.Dense(4 * c.channels, name="time2")(nn.silu(time_BE))
        valid_BT1 = valid_BT[:, :, None].astype(x_BTM.dtype)
        new = []

        def stage(name: str, index: int, x_BTC: jax.Array) -> jax.Array:
            layer = Stage(c, name=name)
            x_BTC, stage_cache = layer(
                x_BTC, time_BE, valid_BT1, mask_BTS, None if stages is None else stages[index]
            )
            new.append(stage_cache)
            return x_BTC

        speaker_BTM = jnp.broadcast_to(speaker_BM[:, None, :], x_BTM.shape)
        skip_BTC = stage(
            "down", 0, jnp.concatenate([x_BTM, mu_BTM, speaker_BTM, cond_BTM], axis=-1)
        )
        x_BTC, after_down = _conv(
            skip_BTC,
            valid_BT1,
            None if cache is None else cache.after_down_BKC,
            c.channels,
            "after_down",
        )
        for i in range(c.mid_stages):
            x_BTC = stage(f"mid_{i}", 1 + i, x_BTC)
        x_BTC = stage("up", 1 + c.mid_stages, jnp.concatenate([x_BTC, skip_BTC], axis=-1))
        x_BTC, after_up = _conv(
            x_BTC, valid_BT1, None if cache is None else cache.after_up_BKC, c.channels, "after_up"
        )
        x_BTC, final = _conv(
            x_BTC, valid_BT1, None if cache is None else cache.final_BKC, c.channels, "final"
        )
        x_BTC = jax.nn.mish(_norm("final_norm")(x_BTC))
        velocity_BTM = nn.Conv(c.num_mels, (1,), name="out")(x_BTC) * valid_BT1
        return velocity_BTM, None if cache is None else EstimatorCache(
            tuple(new), after_down, after_up, final
        )


class Stage(nn.Module):
    """Convolutions that are told the time, then transformers. [B, T, any] -> [B, T, C]."""

    config: FlowEstimatorConfig

    @nn.compact
    def __call__(
        self, x_BTC, time_BE, valid_BT1, mask_BTS, cache: StageCache | None
    ) -> tuple[jax.Array, StageCache | None]:
        c = self.config
        pasts = (None, None) if cache is None else (cache.conv1_BKC, cache.conv2_BKC)
        x_BTC, (past1, past2) = TimedConvolutions(c.channels, name="convs")(
            x_BTC, time_BE, valid_BT1, pasts
        )
        blocks = []
        for i in range(c.stage_num_layers):
            block = TransformerBlock(c.num_heads, c.head_dim, name=f"block_{i}")
            x_BTC, block_cache = block(x_BTC, mask_BTS, None if cache is None else cache.blocks[i])
            blocks.append(block_cache)
        return x_BTC, None if cache is None else StageCache(past1, past2, tuple(blocks))


class TimedConvolutions(nn.Module):
    """Two causal convolutions, each with norm and Mish, the time vector added between them; and a
    projection of the input around them.
    """

    channels: int

    @nn.compact
    def __call__(self, x_BTC, time_BE, valid_BT1, pasts):
        """[B, T, any] -> ([B, T, C], the next past of either convolution)."""
        hidden_BTC, past1 = _conv(x_BTC, valid_BT1, pasts[0], self.channels, "conv1")
        hidden_BTC = jax.nn.mish(_norm("norm1")(hidden_BTC))
        hidden_BTC = (
            hidden_BTC + nn.Dense(self.channels, name="time")(jax.nn.mish(time_BE))[:, None, :]
        )
        hidden_BTC, past2 = _conv(hidden_BTC, valid_BT1, pasts[1], self.channels, "conv2")
        hidden_BTC = jax.nn.mish(_norm("norm2")(hidden_BTC)) * valid_BT1
        return hidden_BTC + nn.Conv(self.channels, (1,), name="skip")(x_BTC * valid_BT1), (
            past1,
            past2,
        )


class TransformerBlock(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + ffn(norm(x)) with GELU, 4 times as wide."""

    num_heads: int
    head_dim: int

    @nn.compact
    def __call__(
        self, x_BTC: jax.Array, mask_BTS: jax.Array, cache: KVCache | None
    ) -> tuple[jax.Array, KVCache | None]:
        batch, length, channels = x_BTC.shape
        inner = self.num_heads * self.head_dim
        normed_BTC = _norm("attn_norm")(x_BTC)

        def project(name: str) -> jax.Array:
            heads_BTE = nn.Dense(inner, use_bias=False, name=name)(normed_BTC)
            return heads_BTE.reshape(batch, length, self.num_heads, self.head_dim)

        q_BTHD = project("q")
        k_BSHD, v_BSHD, cache = with_history(project("k"), project("v"), cache)
        out_BTE = attend(q_BTHD, k_BSHD, v_BSHD, mask_BTS).reshape(batch, length, inner)
        x_BTC = x_BTC + nn.Dense(channels, name="o")(out_BTE)
        hidden_BTF = nn.gelu(
            nn.Dense(4 * channels, name="fc1")(_norm("mlp_norm")(x_BTC)), approximate=False
        )
        return x_BTC + nn.Dense(channels, name="fc2")(hidden_BTF), cache


def time_sinusoid(time_B: jax.Array, dim: int) -> jax.Array:
    """Sines, then cosines, of 1000 times the time [B, dim]."""
    rates = np.exp(np.arange(dim // 2) * (-math.log(10_000.0) / (dim // 2 - 1))).astype(np.float32)
    angles = (1000.0 * time_B)[:, None] * jnp.asarray(rates)[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _conv(x_BTC, valid_BT1, past_BKC, channels: int, name: str):
    """Causal convolution of the valid frames -> (y [B, T, channels], the next past)."""
    padded, past_BKC = with_past(x_BTC * valid_BT1, past_BKC, _WIDTH - 1)
    return nn.Conv(channels, (_WIDTH,), padding="VALID", name=name)(padded), past_BKC


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=_EPS, use_fast_variance=False, name=name)
