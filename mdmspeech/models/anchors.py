"""From text to what the Talker hears: one condition vector for every speech position (method.md sections 4 and 4b).

Two schedules behind one result, `cond_BLD`, which the Talker adds to its token embeddings:

- `FixedAnchors`, the paper's: Q = 4 anchors a block, each a fusion of [Emb(y); h] of one text token, on the block's first Q positions.
- `PacedAnchors`, ours: a small encoder reads the symbols (phonemes, or letters) of the text with a bounded look-ahead, a duration head says how long
  each lasts, and every speech position gets the features of the symbols spoken there and how far into them it is. New words are read, not
  memorised; and the length of the speech is known before it is spoken, so that a stop cannot be missed.

B batch, N text tokens, M symbols, L speech positions, Q anchors a block, D model width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.transformer import LlamaBlock

MIN_DURATION = 0.05  # speech tokens: no symbol is skipped altogether
_SAMPLES = (1 / 6, 1 / 2, 5 / 6)  # where inside a speech token (40 ms, which may span two phonemes) the text is looked up


class FixedAnchors(nn.Module):
    """The paper's schedule. Text features [B, N, E] (token embedding and Thinker state, concatenated by the caller) -> cond [B, L, D].

    Anchor n stands at position (n // Q) * block + n % Q: block b sees text up to Q(b+1) and never later text. Positions without an anchor, and
    anchor positions after the end of the text, get zeros and a learned null vector respectively.
    """

    width: int
    block: int = 16
    anchors: int = 4

    @nn.compact
    def __call__(self, text_BNE: jax.Array, text_valid_BN: jax.Array, length: int) -> jax.Array:
        fused = nn.Dense(self.width, name="fuse_out")(nn.silu(nn.Dense(2 * self.width, name="fuse_in")(text_BNE)))
        null = self.param("null", nn.initializers.normal(0.02), (self.width,))
        position = np.arange(length)
        inside = position % self.block
        index = jnp.asarray((position // self.block) * self.anchors + inside)
        in_text = index < text_BNE.shape[1]
        index = jnp.minimum(index, text_BNE.shape[1] - 1)
        here = (text_valid_BN[:, index] & in_text[None])[..., None]
        cond = jnp.where(here, fused[:, index], null[None, None])
        return jnp.where(jnp.asarray(inside < self.anchors)[None, :, None], cond, 0.0)


class PacedAnchors(nn.Module):
    """Our schedule: `encode` the symbols, predict `durations`, `place` the features on speech positions.

    Attributes:
      lookahead: symbols to the right that each layer may see; their sum is the look-ahead of the whole.
      reach: symbols to the left that each layer may see.
    """

    width: int
    symbols: int
    lookahead: tuple[int, ...] = (6, 4, 2)
    reach: int = 32
    head_dim: int = 64

    def setup(self):
        self.embed = nn.Embed(self.symbols, self.width, embedding_init=nn.initializers.normal(0.3))
        ffn = -(-self.width * 8 // 3 // 64) * 64
        heads = self.width // self.head_dim
        self.layers = [LlamaBlock(heads, heads, self.head_dim, ffn) for _ in self.lookahead]
        self.norm = RMSNorm(1e-6)
        self.duration_in = nn.Dense(self.width)
        self.duration_out = nn.Dense(1)
        self.inside = nn.Dense(self.width)
        self.join = nn.Dense(self.width)

    def __call__(self, symbols_BM: jax.Array, valid_BM: jax.Array, durations_BM: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
        """(cond [B, L, D] placed by the given durations, predicted log-durations [B, M])."""
        features = self.encode(symbols_BM, valid_BM)
        return self.place(features, valid_BM, durations_BM, jnp.arange(length)[None, :]), self.log_durations(features)

    def encode(self, symbols_BM: jax.Array, valid_BM: jax.Array) -> jax.Array:
        """Symbols int32 [B, M] -> features [B, M, D]; feature m depends on no symbol beyond m + sum(lookahead)."""
        count = symbols_BM.shape[1]
        distance = np.arange(count)[None, :] - np.arange(count)[:, None]
        rope = rope_table(jnp.arange(count)[None, :], rope_frequencies(self.head_dim, 10_000.0))
        x = self.embed(symbols_BM)
        for layer, right in zip(self.layers, self.lookahead, strict=True):
            window = jnp.asarray((distance >= -self.reach) & (distance <= right))
            x, _ = layer(x, window[None] & valid_BM[:, None, :] & valid_BM[:, :, None], rope)
        return self.norm(x)

    def log_durations(self, features_BMD: jax.Array) -> jax.Array:
        """Natural log of each symbol's duration in speech tokens, [B, M]."""
        return self.duration_out(nn.silu(self.duration_in(features_BMD)))[..., 0]

    def place(self, features_BMD: jax.Array, valid_BM: jax.Array, durations_BM: jax.Array, positions_BL: jax.Array) -> jax.Array:
        """Condition of the speech positions [B or 1, L] (absolute, in tokens) -> [B, L, D].

        durations_BM: speech tokens per symbol, float; padding is ignored. A position after the end keeps the last symbol, and is told so.
        """
        lengths = jnp.where(valid_BM, jnp.maximum(durations_BM, MIN_DURATION), 0.0)
        ends = jnp.cumsum(lengths, axis=1)
        last = jnp.maximum(jnp.sum(valid_BM, axis=1) - 1, 0)
        parts = []
        for offset in _SAMPLES:
            time = positions_BL + offset
            index = jnp.sum(ends[:, None, :] <= time[..., None], axis=-1)
            index = jnp.minimum(index, last[:, None])
            end, span = (jnp.take_along_axis(x, index, axis=1) for x in (ends, jnp.maximum(lengths, MIN_DURATION)))
            fraction = (time - (end - span)) / span
            inside = jnp.stack([jnp.clip(fraction, 0.0, 1.0), jnp.log(span), (fraction > 1.0).astype(span.dtype)], axis=-1)
            features = jnp.take_along_axis(features_BMD, index[..., None], axis=1)
            parts.append(features + self.inside(inside))
        return self.join(jnp.concatenate(parts, axis=-1))


def speech_length(durations_BM: jax.Array, valid_BM: jax.Array) -> jax.Array:
    """Speech tokens the symbols take, int32 [B], rounded up: the known length of paced speech."""
    total = jnp.sum(jnp.where(valid_BM, jnp.maximum(durations_BM, MIN_DURATION), 0.0), axis=1)
    return jnp.ceil(total - 1e-3).astype(jnp.int32)
