"""The encoder of CosyVoice2's flow (Du et al., 2024, arXiv 2412.10117, section 2.4): token
embeddings at 25 Hz -> states at 50 Hz.

A convolution that looks 3 tokens ahead, conformer blocks (without their convolution) that attend
with relative positions as in Transformer-XL (Dai et al., 2019, arXiv 1901.02860), doubling of the
rate by repetition and a causal convolution, and more of the same blocks.

It works on a window of tokens: the first T are encoded, the last `lookahead` are only seen by the
look-ahead convolution. Given a cache, the window continues what was encoded before.

B batch, T tokens, L = T + lookahead, S tokens of history, D model, H heads, P distances.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from mdmspeech.codec.cosyvoice2.flow_layers import with_history, with_past
from mdmspeech.config_names import renamed_fields
from mdmspeech.errors import UserError
from mdmspeech.nn.attention import KVCache

RATE = 2  # frames a token
_UP_WIDTH = 5  # of the convolution after the doubling
_BLOCK_EPS = 1e-12  # of the norms inside the blocks; 1e-5 elsewhere


@renamed_fields
@dataclasses.dataclass(frozen=True)
class FlowEncoderConfig:
    """Sizes of the encoder; the defaults are CosyVoice2's (37.8 M parameters).

    Attributes:
      num_layers, up_num_layers: blocks at 25 Hz and at 50 Hz.
      lookahead: tokens seen ahead (120 ms).
    """

    dim: int = 512
    num_heads: int = 8
    ffn_dim: int = 2048
    num_layers: int = 6
    up_num_layers: int = 4
    lookahead: int = 3

    def __post_init__(self):
        if self.dim % self.num_heads or self.dim % 2:
            raise UserError(
                f"the flow encoder's dim {self.dim} must be even and a multiple of "
                f"its {self.num_heads} heads"
            )


@struct.dataclass
class EncoderCache:
    """What the encoder remembers of earlier windows."""

    lookahead_BKD: jax.Array  # inputs of the look-ahead layer's second convolution
    up_BKD: jax.Array  # repeated frames before the convolution
    blocks: tuple[KVCache, ...]  # S tokens each
    up_blocks: tuple[KVCache, ...]  # 2 S frames each

    @classmethod
    def zeros(cls, config: FlowEncoderConfig, batch: int, history: int) -> "EncoderCache":
        """The cache before the first window; history: S, tokens that later ones may attend to."""

        def blocks(count: int, length: int) -> tuple[KVCache, ...]:
            head_dim = config.dim // config.num_heads
            return tuple(
                KVCache.zeros(batch, length, config.num_heads, head_dim) for _ in range(count)
            )

        return cls(
            jnp.zeros((batch, 2, config.dim)),
            jnp.zeros((batch, _UP_WIDTH - 1, config.dim)),
            blocks(config.num_layers, history),
            blocks(config.up_num_layers, RATE * history),
        )


class FlowEncoder(nn.Module):
    """Token embeddings -> frame states."""

    config: FlowEncoderConfig

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        present_BL: jax.Array,
        valid_BT: jax.Array,
        mask_BTS: jax.Array,
        frame_mask_BFG: jax.Array,
        cache: EncoderCache | None = None,
    ) -> tuple[jax.Array, EncoderCache | None]:
        """Encodes the first T of L = T + lookahead positions.

        Args:
          x_BLD: token embeddings.
          present_BL: bool, where there is a token; the look-ahead sees zeros elsewhere.
          valid_BT: bool, the tokens that are encoded (present, and not only looked at); all others
            influence nothing.
          mask_BTS, frame_mask_BFG: bool, who attends to whom among tokens [B or 1, T, S+T] and
            among frames [B or 1, 2T, 2S+2T].
          cache: of the windows before, or None at a start.

        Returns:
          (states [B, 2T, D], the next cache or None).
        """
        c = self.config
        x_BLD = InputLayer(c.dim, name="embed")(x_BLD) * present_BL[:, :, None]
        past = None if cache is None else cache.lookahead_BKD
        x_BTD, lookahead_BKD = LookAhead(c.lookahead, name="lookahead")(x_BLD, valid_BT, past)
        x_BTD, blocks = self._blocks(
            x_BTD, mask_BTS, c.num_layers, "block", None if cache is None else cache.blocks
        )

        x_BFD = jnp.repeat(x_BTD * valid_BT[:, :, None], RATE, axis=1)
        padded, up_BKD = with_past(x_BFD, None if cache is None else cache.up_BKD, _UP_WIDTH - 1)
        x_BFD = nn.Conv(c.dim, (_UP_WIDTH,), padding="VALID", name="up")(padded)
        x_BFD = InputLayer(c.dim, name="up_embed")(x_BFD)
        x_BFD, up_blocks = self._blocks(
            x_BFD,
            frame_mask_BFG,
            c.up_num_layers,
            "up_block",
            None if cache is None else cache.up_blocks,
        )
        new = None if cache is None else EncoderCache(lookahead_BKD, up_BKD, blocks, up_blocks)
        return _norm(1e-5, "norm")(x_BFD), new

    def _blocks(
        self,
        x_BTD: jax.Array,
        mask_BTS: jax.Array,
        count: int,
        name: str,
        caches: tuple[KVCache, ...] | None,
    ):
        """`count` blocks over the same table of distances -> (x, their new caches)."""
        c = self.config
        distances_PD = jnp.asarray(
            distance_table(x_BTD.shape[1], mask_BTS.shape[2] - x_BTD.shape[1], c.dim)
        )
        new = []
        for i in range(count):
            block = ConformerBlock(c.num_heads, c.ffn_dim, name=f"{name}_{i}")
            x_BTD, cache = block(
                x_BTD, distances_PD, mask_BTS, None if caches is None else caches[i]
            )
            new.append(cache)
        return x_BTD, tuple(new)


class InputLayer(nn.Module):
    """sqrt(D) * norm(linear(x)): the scale of an embedding beside sinusoids, though the positions
    are not added here.
    """

    dim: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return _norm(1e-5, "norm")(nn.Dense(self.dim, name="linear")(x_BTD)) * math.sqrt(self.dim)


class LookAhead(nn.Module):
    """x + conv(leaky(conv(x))): the first convolution sees `lookahead` positions ahead, the second
    two behind.
    """

    lookahead: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, valid_BT: jax.Array, past_BKD: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T + lookahead, D] -> ([B, T, D], the next past)."""
        dim, length = x_BLD.shape[-1], valid_BT.shape[1]
        hidden_BTD = nn.Conv(dim, (self.lookahead + 1,), padding="VALID", name="conv1")(x_BLD)
        # Before a row's first token the first convolution already sees it;
        # there the second one must see zeros.
        hidden_BTD = nn.leaky_relu(hidden_BTD, 0.01) * valid_BT[:, :, None]
        padded, past_BKD = with_past(hidden_BTD, past_BKD, 2)
        return x_BLD[:, :length] + nn.Conv(dim, (3,), padding="VALID", name="conv2")(
            padded
        ), past_BKD


class ConformerBlock(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + ffn(norm(x)) with SiLU."""

    num_heads: int
    ffn_dim: int

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, distances_PD: jax.Array, mask_BTS: jax.Array, cache: KVCache | None
    ):
        attention = RelativeAttention(self.num_heads, name="attn")
        attended_BTD, cache = attention(
            _norm(_BLOCK_EPS, "attn_norm")(x_BTD), distances_PD, mask_BTS, cache
        )
        x_BTD = x_BTD + attended_BTD
        hidden_BTF = nn.silu(
            nn.Dense(self.ffn_dim, name="fc1")(_norm(_BLOCK_EPS, "mlp_norm")(x_BTD))
        )
        return x_BTD + nn.Dense(x_BTD.shape[-1], name="fc2")(hidden_BTF), cache


class RelativeAttention(nn.Module):
    """softmax(((q + u) k' + (q + v) p(i - j)') / sqrt(head_dim)) values: p is a projected sinusoid
    of the distance of query and key.
    """

    num_heads: int

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, distances_PD: jax.Array, mask_BTS: jax.Array, cache: KVCache | None
    ):
        """x_BTD attends to the S positions in the cache and to itself; distances_PD: from
        `distance_table`.
        """
        batch, length, dim = x_BTD.shape
        heads = (self.num_heads, dim // self.num_heads)

        def project(name: str) -> jax.Array:
            return nn.Dense(dim, name=name)(x_BTD).reshape(batch, length, *heads)

        q_BTHD, k_BTHD, v_BTHD = project("q"), project("k"), project("v")
        p_PHD = nn.Dense(dim, use_bias=False, name="position")(distances_PD).reshape(-1, *heads)
        of_content_HD = self.param("content_bias", nn.initializers.xavier_uniform(), heads)
        of_position_HD = self.param("position_bias", nn.initializers.xavier_uniform(), heads)
        k_BSHD, v_BSHD, cache = with_history(k_BTHD, v_BTHD, cache)
        scores = jnp.einsum("bthd,bshd->bhts", q_BTHD + of_content_HD[None, None], k_BSHD)
        far = jnp.einsum("bthd,phd->bhtp", q_BTHD + of_position_HD[None, None], p_PHD)
        scores = (scores + by_key(far, k_BSHD.shape[1])) * heads[1] ** -0.5
        mask = mask_BTS[:, None]
        weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1), 0.0)
        out_BTHD = jnp.einsum("bhts,bshd->bthd", weights, v_BSHD)
        return nn.Dense(dim, name="o")(out_BTHD.reshape(batch, length, dim)), cache


@functools.lru_cache(maxsize=16)
def distance_table(length: int, history: int, dim: int) -> np.ndarray:
    """Sinusoids of the distances query minus key, from history + length - 1 down to -length,
    float32 [history + 2 length, D].

    Even columns sine, odd ones cosine. (The last distance does not occur; it makes `by_key` a
    reshape.)
    """
    distances = np.arange(history + length - 1, -length - 1, -1, dtype=np.float64)
    angles = (
        distances[:, None] * np.exp(np.arange(0, dim, 2) * (-math.log(10_000.0) / dim))[None, :]
    )
    table = (
        np.stack([np.sin(angles), np.cos(angles)], axis=-1)
        .reshape(len(distances), dim)
        .astype(np.float32)
    )
    table.flags.writeable = False  # it is shared
    return table


def by_key(scores_BHTP: jax.Array, keys: int) -> jax.Array:
    """Scores by distance (in the order of `distance_table`) -> scores by key [B, H, T, keys]: each
    query's row is moved by one more.
    """
    batch, heads, length, count = scores_BHTP.shape
    flat = scores_BHTP.reshape(batch, heads, length * count)
    moved = flat[:, :, length - 1 : length - 1 + length * (count - 1)]
    return moved.reshape(batch, heads, length, count - 1)[..., :keys]


def _norm(eps: float, name: str) -> nn.LayerNorm:
    """The residual stream is large beside its variance's digits: no E[x^2] - E[x]^2."""
    return nn.LayerNorm(epsilon=eps, use_fast_variance=False, name=name)
