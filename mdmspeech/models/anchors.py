"""From text to what the Talker hears: one condition vector for every speech position.

Source: docs/method.md, "Fixed anchors", "Paced anchors" and "Text prefix".

Two schedules behind one result, `cond_BLD`, which the Talker adds to its token embeddings (and
`TextPrefix`, which needs none):

- `FixedAnchors`, the paper's: Q = 4 anchors a block, each a fusion of [Emb(y); h] of one text
  token, on the block's first Q positions.
- `PacedAnchors`, ours: a small encoder reads the symbols (phonemes, or letters) of the text with a
  bounded look-ahead, a duration head says how long each lasts, and every speech position gets the
  features of the symbols spoken there and how far into them it is. New words are read, not
  memorised; and the length of the speech is known before it is spoken, so that a stop cannot be
  missed.
- `TextPrefix`, of autoregressive speech LMs: the text's own embeddings stand before the speech, and
  attention finds the place.

B batch, N text tokens, M symbols, L speech positions, Q anchors a block, D model width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.nn.linear import Linear
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import lookup
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.transformer import LlamaBlock
from mdmspeech.speech_format import NO_ANCHOR, NULL_ANCHOR

MIN_DURATION = 0.05  # speech tokens: no symbol is skipped altogether
# where inside a speech token (40 ms, which may span two phonemes) the text is looked up
_SAMPLES = (1 / 6, 1 / 2, 5 / 6)


def anchor_index(
    count_B: jax.Array, positions_BL: jax.Array, block: int = 16, anchors: int = 4
) -> jax.Array:
    """The paper's schedule: which of `count_B` text tokens stands at each speech position, int32
    [B, L].

    Anchor n stands at position (n // Q) * block + n % Q: block b sees text up to Q(b+1) and never
    later text. `NO_ANCHOR` at the other positions, `NULL_ANCHOR` at anchor positions after the end
    of the text.
    """
    inside = positions_BL % block
    index = (positions_BL // block) * anchors + inside
    return jnp.where(
        inside < anchors, jnp.where(count_B[:, None] > index, index, NULL_ANCHOR), NO_ANCHOR
    )


class FixedAnchors(nn.Module):
    """The paper's anchors: a fusion of [Emb(y); h] of one text token each, placed where `index`
    says (see `anchor_index`).

    Text features [B, N, E] (token embedding and Thinker state, concatenated by the caller) -> cond
    [B, L, D]. Positions without an anchor get zeros, those after the end of the text a learned null
    vector.
    """

    dim: int

    def setup(self):
        self.fuse_in, self.fuse_out = Linear(2 * self.dim), Linear(self.dim)
        self.null = self.param("null", nn.initializers.normal(0.02), (self.dim,))

    def __call__(self, text_BNE: jax.Array, index_BL: jax.Array) -> jax.Array:
        return self.place(self.fuse(text_BNE), index_BL)

    def fuse(self, text_BNE: jax.Array) -> jax.Array:
        """[B, N, E] -> [B, N, D], each token by itself."""
        return self.fuse_out(nn.silu(self.fuse_in(text_BNE)))

    def place(self, fused_BND: jax.Array, index_BL: jax.Array) -> jax.Array:
        """Fused text and which of it stands where -> cond [B, L, D]."""
        null_D = self.null.astype(fused_BND.dtype)
        here_BLD = jnp.take_along_axis(fused_BND, jnp.maximum(index_BL, 0)[..., None], axis=1)
        placed = jnp.where((index_BL == NULL_ANCHOR)[..., None], null_D[None, None], here_BLD)
        return jnp.where((index_BL == NO_ANCHOR)[..., None], 0.0, placed)


class PacedAnchors(nn.Module):
    """Our schedule: `encode` the symbols, predict `durations`, `place` the features on speech
    positions.

    Attributes:
      lookahead: symbols to the right that each layer may see; their sum is the look-ahead of the
        whole.
      reach: symbols to the left that each layer may see.
      output_scale: factor on what the last layer of the durations reads (muP:
        `TalkerConfig.output_scale`).
    """

    dim: int
    symbols: int
    lookahead: tuple[int, ...] = (6, 4, 2)
    reach: int = 32
    head_dim: int = 64
    output_scale: float = 1.0
    rope_theta: float = 10_000.0

    def window(self, count: int, right: int) -> np.ndarray:
        """bool [M, M]: what a layer that looks `right` symbols ahead may see."""
        distance = np.arange(count)[None, :] - np.arange(count)[:, None]
        return (distance >= -self.reach) & (distance <= right)

    def setup(self):
        self.embed = nn.Embed(self.symbols, self.dim, embedding_init=nn.initializers.normal(0.3))
        ffn = -(-self.dim * 8 // 3 // 64) * 64
        heads = self.dim // self.head_dim
        if not heads:
            raise UserError(
                f"a Talker with paced anchors is {self.head_dim} wide or more, not {self.dim}"
            )
        self.layers = [LlamaBlock(heads, heads, self.head_dim, ffn) for _ in self.lookahead]
        self.norm = RMSNorm(1e-6)
        self.duration_in = Linear(self.dim)
        self.duration_out = Linear(1)
        self.inside = Linear(self.dim)
        self.join = Linear(self.dim)

    def __call__(
        self, symbols_BM: jax.Array, valid_BM: jax.Array, durations_BM: jax.Array, length: int
    ) -> tuple[jax.Array, jax.Array]:
        """(cond [B, L, D] placed by the given durations, predicted log-durations [B, M])."""
        features = self.encode(symbols_BM, valid_BM)
        return self.place(
            features, valid_BM, durations_BM, jnp.arange(length)[None, :]
        ), self.log_durations(features)

    def packed(
        self, symbols_BM, symbols_segment_BM, durations_BM, segment_BL, position_BL
    ) -> tuple[jax.Array, jax.Array]:
        """As `__call__` for rows packed with several utterances, numbered 1, 2, ... in order (0 =
        padding): each gets what it would get alone.

        segment_BL, position_BL: the utterance a speech position belongs to, and its index in it.
          Positions of padding get some finite vector.
        """
        valid_BM = symbols_segment_BM > 0
        features = self.encode(symbols_BM, valid_BM, symbols_segment_BM)
        # On a common time axis utterance s + 1 starts where s ends by its symbols;
        # positions are shifted there.
        lengths_BM = jnp.where(valid_BM, jnp.maximum(durations_BM, MIN_DURATION), 0.0)
        before_BL = (symbols_segment_BM[:, None, :] < segment_BL[:, :, None]) & valid_BM[:, None, :]
        until_BL = (symbols_segment_BM[:, None, :] <= segment_BL[:, :, None]) & valid_BM[:, None, :]
        start_BL = jnp.sum(jnp.where(before_BL, lengths_BM[:, None, :], 0.0), axis=-1)
        first_BL, last_BL = (
            jnp.sum(before_BL, axis=-1),
            jnp.maximum(jnp.sum(until_BL, axis=-1) - 1, 0),
        )
        looked_up = self._look_up(features, lengths_BM, position_BL + start_BL, first_BL, last_BL)
        return self.join(looked_up), self.log_durations(features)

    def encode(
        self, symbols_BM: jax.Array, valid_BM: jax.Array, segment_BM: jax.Array | None = None
    ) -> jax.Array:
        """Symbols int32 [B, M] -> features [B, M, D]; feature m depends on no symbol beyond m +
        sum(lookahead), and on none of another segment.
        """
        count = symbols_BM.shape[1]
        known = valid_BM[:, None, :] & valid_BM[:, :, None]
        if segment_BM is not None:
            known = known & (segment_BM[:, None, :] == segment_BM[:, :, None])
        frequencies = rope_frequencies(self.head_dim, self.rope_theta)
        rope = rope_table(jnp.arange(count)[None, :], frequencies)
        x = self.embed(symbols_BM)
        for layer, right in zip(self.layers, self.lookahead, strict=True):
            window = jnp.asarray(self.window(count, right))
            x, _ = layer(x, window[None] & known, rope)
        return self.norm(x)

    def log_durations(self, features_BMD: jax.Array) -> jax.Array:
        """Natural log of each symbol's duration in speech tokens, [B, M]."""
        hidden_BMD = nn.silu(self.duration_in(features_BMD))
        if self.output_scale != 1.0:
            hidden_BMD = hidden_BMD * self.output_scale
        return self.duration_out(hidden_BMD)[..., 0]

    def place(
        self,
        features_BMD: jax.Array,
        valid_BM: jax.Array,
        durations_BM: jax.Array,
        positions_BL: jax.Array,
    ) -> jax.Array:
        """Condition of the speech positions [B or 1, L] (absolute, in tokens) -> [B, L, D].

        durations_BM: speech tokens per symbol, float; padding is ignored. A position after the end
          keeps the last symbol, and is told so.
        """
        return self.join(self.look_up(features_BMD, valid_BM, durations_BM, positions_BL))

    def look_up(
        self,
        features_BMD: jax.Array,
        valid_BM: jax.Array,
        durations_BM: jax.Array,
        positions_BL: jax.Array,
    ) -> jax.Array:
        """What `place` joins: the text at each of `_SAMPLES` of a position, [B, L, 3 D]."""
        lengths_BM = jnp.where(valid_BM, jnp.maximum(durations_BM, MIN_DURATION), 0.0)
        last_B1 = jnp.maximum(jnp.sum(valid_BM, axis=1) - 1, 0)[:, None]
        first_B1 = jnp.zeros_like(last_B1)
        return self._look_up(features_BMD, lengths_BM, positions_BL, first_B1, last_B1)

    def _look_up(self, features_BMD, lengths_BM, time_BL, first_BL, last_BL) -> jax.Array:
        """Text of the positions at `time_BL`, whose symbols are first..last: [B or 1, L] each."""
        ends = jnp.cumsum(lengths_BM, axis=1)
        parts = []
        for offset in _SAMPLES:
            time = time_BL + offset
            index = jnp.clip(
                jnp.sum(ends[:, None, :] <= time[..., None], axis=-1), first_BL, last_BL
            )
            end, span = (
                jnp.take_along_axis(x, index, axis=1)
                for x in (ends, jnp.maximum(lengths_BM, MIN_DURATION))
            )
            fraction = (time - (end - span)) / span
            inside = jnp.stack(
                [jnp.clip(fraction, 0.0, 1.0), jnp.log(span), (fraction > 1.0).astype(span.dtype)],
                axis=-1,
            )
            features = jnp.take_along_axis(features_BMD, index[..., None], axis=1)
            parts.append(features + self.inside(inside.astype(features.dtype)))
        return jnp.concatenate(parts, axis=-1)


class TextPrefix(nn.Module):
    """The text as CosyVoice2's LM reads it: embeddings of its ids, in front of the speech. int32
    [B, N] -> [B, N, D]; negative ids give some row.
    """

    dim: int
    vocab_size: int

    @nn.compact
    def __call__(self, text_BN: jax.Array) -> jax.Array:
        return lookup(
            self.param("embedding", nn.initializers.normal(0.02), (self.vocab_size, self.dim)),
            jnp.maximum(text_BN, 0),
        )
