"""The Talker: a Llama-style trunk over 25 Hz speech tokens that reads a condition per position (method.md section 4).

One module serves every way of talking: masked diffusion passes a block-causal mask and the tokens with masks in them; the next-token baseline
passes a causal mask and the tokens shifted by one. What differs is the mask, never the parameters.

B batch, L positions, T positions of one forward, S cache slots, D width, V = 6566 rows: 6561 codes, then bos, sos, eos, pad, mask.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.models.anchors import FixedAnchors, PacedAnchors
from mdmspeech.nn.attention import KVCache
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import constrain, lookup
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.stack import rematted
from mdmspeech.nn.transformer import LlamaBlock

CODES, LEVELS, DIGITS = 6561, 3, 8
BOS, SOS, EOS, PAD, MASK = 6561, 6562, 6563, 6564, 6565
VOCAB = 6566


@dataclasses.dataclass(frozen=True)
class TalkerConfig:
    """Sizes of a Talker. `anchors` "paced" reads symbols, "fixed" reads [Emb(y); h] of text tokens."""

    width: int = 256
    layers: int = 6
    heads: int = 4
    ffn: int = 704
    block: int = 16
    anchors: str = "paced"
    symbols: int = 180  # paced: size of the symbol table
    symbol_lookahead: tuple[int, ...] = (6, 4, 2)
    anchors_per_block: int = 4  # fixed: Q
    text_width: int = 0  # fixed: width of [Emb(y); h]
    structured_codes: bool = True  # code embeddings share parameters through the FSQ digits
    rope_theta: float = 10_000.0

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


class CodeTable(nn.Module):
    """Rows [V, D] of the speech vocabulary: a free table plus, for FSQ codes, a linear map of the code's digits and their products.

    The digits tell a rare code what its common neighbours have learnt. The sum is one matrix, so it costs a (small) product once a forward.
    """

    width: int
    structured: bool
    scale: float

    @nn.compact
    def __call__(self) -> jax.Array:
        table = self.param("table", nn.initializers.normal(self.scale), (VOCAB, self.width))
        if not self.structured:
            return table
        features = jnp.asarray(code_features(), table.dtype)
        mix = self.param("digits", nn.initializers.normal(self.scale), (features.shape[1], self.width))
        return table + jnp.pad(features @ mix, ((0, VOCAB - CODES), (0, 0)))


def code_features() -> np.ndarray:
    """[6561, 44]: the 8 digits in {-1, 0, 1} of every code, their squares, and all products of two."""
    digits = (np.arange(CODES)[:, None] // LEVELS ** np.arange(DIGITS) % LEVELS - 1).astype(np.float32)
    i, j = np.triu_indices(DIGITS, 1)
    return np.concatenate([digits, digits**2 - 2 / 3, digits[:, i] * digits[:, j]], axis=1)


class Talker(nn.Module):
    """Trunk, anchors and output head. Methods: `condition`, `__call__` (trunk), `logits`."""

    config: TalkerConfig

    def setup(self):
        c = self.config
        self.inputs = CodeTable(c.width, c.structured_codes, 0.3)
        self.outputs = CodeTable(c.width, c.structured_codes, 0.01)
        layer_class = rematted(LlamaBlock)
        self.layers = [layer_class(c.heads, c.heads, c.head_dim, c.ffn, qk_norm=True) for _ in range(c.layers)]
        self.norm = RMSNorm(1e-6)
        if c.anchors == "paced":
            self.anchors: Any = PacedAnchors(c.width, c.symbols, c.symbol_lookahead)
        elif c.anchors == "fixed":
            self.anchors = FixedAnchors(c.width)
        else:
            raise ValueError(f"anchors {c.anchors!r}: choose 'paced' or 'fixed'")

    def __call__(self, ids_BT, cond_BTD, mask_BTS, positions_BT, caches: tuple[KVCache, ...] | None = None, write_at_B=None):
        """Trunk: token ids and conditions of T positions -> (hidden [B, T, D], caches).

        mask_BTS: bool, True = may attend; S = T without caches (or an `nn.masks.AttentionMask`), else the cache length.
        positions_BT: int32 [B or 1, T]. Caches: one a layer.
        """
        c = self.config
        x = lookup(self.inputs(), ids_BT)
        x = constrain(x + cond_BTD.astype(x.dtype), "batch", "length", "width")
        rope = rope_table(positions_BT, rope_frequencies(c.head_dim, c.rope_theta))
        new = []
        for i, layer in enumerate(self.layers):
            x, cache = layer(x, mask_BTS, rope, None if caches is None else caches[i], write_at_B)
            new.append(cache)
        return self.norm(x), None if caches is None else tuple(new)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] -> logits [..., V], float32."""
        return jnp.matmul(hidden, constrain(self.outputs(), "vocab", "none").T, preferred_element_type=jnp.float32)

    def condition_paced(self, symbols_BM, valid_BM, durations_BM, length: int):
        """Paced anchors by given durations: (cond [B, L, D], predicted log-durations [B, M])."""
        return self.anchors(symbols_BM, valid_BM, durations_BM, length)

    def read(self, symbols_BM, valid_BM):
        """Paced anchors: (features [B, M, D], log-durations [B, M]) of a text."""
        features = self.anchors.encode(symbols_BM, valid_BM)
        return features, self.anchors.log_durations(features)

    def place(self, features_BMD, valid_BM, durations_BM, positions_BL):
        """Paced anchors: condition of the given speech positions."""
        return self.anchors.place(features_BMD, valid_BM, durations_BM, positions_BL)

    def condition_packed(self, symbols_BM, symbols_segment_BM, durations_BM, segment_BL, position_BL):
        """Paced anchors of rows packed with several utterances: as `condition_paced`."""
        return self.anchors.packed(symbols_BM, symbols_segment_BM, durations_BM, segment_BL, position_BL)

    def condition_fixed(self, text_BNE, index_BL):
        """Fixed anchors: cond [B, L, D]; see `anchors.fixed_anchor_index`."""
        return self.anchors(text_BNE, index_BL)

    def fuse(self, text_BNE):
        """Fixed anchors: what each text token adds where it stands, [B, N, D]."""
        return self.anchors.fuse(text_BNE)

    def place_fixed(self, fused_BND, index_BL):
        """Fixed anchors: condition of speech positions, from `fuse` and `anchors.anchor_index`."""
        return self.anchors.place(fused_BND, index_BL)

    def initialise(self, length: int = 16):
        """Touches every parameter once (for `init`)."""
        c = self.config
        valid = jnp.ones((1, 4), bool)
        if c.anchors == "paced":
            cond, _ = self.condition_paced(jnp.zeros((1, 4), jnp.int32), valid, jnp.ones((1, 4)), length)
        else:
            cond = self.condition_fixed(jnp.zeros((1, 4, c.text_width)), jnp.zeros((1, length), jnp.int32))
        hidden, _ = self(jnp.zeros((1, length), jnp.int32), cond, jnp.ones((1, length, length), bool), jnp.arange(length)[None])
        return self.logits(hidden)


def init(config: TalkerConfig, rng: jax.Array):
    """Fresh parameters."""
    return Talker(config).init(rng, method="initialise")["params"]


def empty_caches(config: TalkerConfig, batch: int, slots: int) -> tuple[KVCache, ...]:
    """One empty K/V cache a layer."""
    return tuple(KVCache.zeros(batch, slots, config.heads, config.head_dim) for _ in range(config.layers))
