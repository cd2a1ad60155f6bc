"""The Talker: a Llama-style trunk over 25 Hz speech tokens that reads a condition per position.

Source: docs/method.md, "The Talker".

One module serves every way of talking: masked diffusion passes a block-causal mask and the tokens
with masks in them; the next-token baseline passes a causal mask and the tokens shifted by one. What
differs is the mask, never the parameters. Multi-token prediction adds modules behind the trunk
(`mtp_modules`), which `heads` runs and nothing else reads.

B batch, L positions, T positions of one forward, C conditions, S cache slots, D width, V = 6566
rows: 6561 codes, then bos, sos, eos, pad, mask.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.config_names import renamed_fields
from mdmspeech.errors import UserError
from mdmspeech.models.anchors import FixedAnchors, PacedAnchors, TextPrefix
from mdmspeech.nn.attention import KVCache
from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import constrain, lookup
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.stack import rematted
from mdmspeech.nn.transformer import LlamaBlock
from mdmspeech.speech_format import BOS as BOS
from mdmspeech.speech_format import CODES, DIGITS, LEVELS, SOS, START, VOCAB
from mdmspeech.speech_format import EOS as EOS
from mdmspeech.speech_format import MASK as MASK
from mdmspeech.speech_format import PAD as PAD


@renamed_fields
@dataclasses.dataclass(frozen=True)
class TalkerConfig:
    """Sizes of a Talker, and how it is read. `anchors` "paced" reads symbols, "fixed" reads
    [Emb(y); h] of text tokens, "prefix" text before the speech.

    Attributes:
      label_shift: of masked diffusion: the state that reads token i-1 predicts token i, as in an
        autoregressive model (see `diffusion.layout.shift_right`).
      num_kv_heads (0 = `num_heads`), qkv_bias, qk_norm, norm_eps: of the trunk, for weights of other
      people's making (Qwen2 has biases and no norm on q and k);
        output_bias likewise of the output layer.
      text_vocab_size: prefix: size of the text's vocabulary.
      mtp_modules: modules of multi-token prediction behind the trunk, see `Talker.heads`; 0 = none.
      base_dim: width at which the maximal update parametrisation (muP) is the standard one; 0 = the
        standard one at every width. It sets `output_scale` and `score_scale` here, and the learning
        rates of `training.mup`. base_head_dim (0 = `head_dim`): head size at that width.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    ffn_dim: int = 704
    block: int = 16
    anchors: str = "paced"
    symbols: int = 180  # paced: size of the symbol table
    symbol_lookahead: tuple[int, ...] = (6, 4, 2)
    anchors_per_block: int = 4  # fixed: Q
    text_dim: int = 0  # fixed: width of [Emb(y); h]
    structured_codes: bool = True  # code embeddings share parameters through the FSQ digits
    rope_theta: float = 10_000.0
    label_shift: bool = False
    num_kv_heads: int = 0
    qkv_bias: bool = False
    qk_norm: bool = True
    norm_eps: float = 1e-6
    output_bias: bool = False
    text_vocab_size: int = 0
    mtp_modules: int = 0
    base_dim: int = 0
    base_head_dim: int = 0

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def cache_heads(self) -> int:
        """Heads of keys and values, which a K/V cache holds."""
        return self.num_kv_heads or self.num_heads

    @property
    def output_scale(self) -> float:
        """muP's factor on what output layers read: base width / width."""
        return self.base_dim / self.dim if self.base_dim else 1.0

    @property
    def score_scale(self) -> float:
        """muP's factor on attention scores: they go by 1 / head size, not its root."""
        if not (self.base_dim and self.base_head_dim):
            return 1.0
        return (self.base_head_dim / self.head_dim) ** 0.5


# `TalkerConfig.anchors` -> the module that makes conditions of a text
ANCHORS: dict[str, Callable[[TalkerConfig], Any]] = {
    "paced": lambda c: PacedAnchors(
        c.dim, c.symbols, c.symbol_lookahead, output_scale=c.output_scale
    ),
    "fixed": lambda c: FixedAnchors(c.dim),
    "prefix": lambda c: TextPrefix(c.dim, c.text_vocab_size),
}


class CodeTable(nn.Module):
    """Rows [V, D] of the speech vocabulary: a free table plus, for FSQ codes, a linear map of the
    code's digits and their products.

    The digits tell a rare code what its common neighbours have learnt. The sum is one matrix, so it
    costs a (small) product once a forward.
    """

    dim: int
    structured: bool
    scale: float

    @nn.compact
    def __call__(self) -> jax.Array:
        table = self.param("table", nn.initializers.normal(self.scale), (VOCAB, self.dim))
        if not self.structured:
            return table
        features = jnp.asarray(code_features(), table.dtype)
        mix = self.param(
            "digits", nn.initializers.normal(self.scale), (features.shape[1], self.dim)
        )
        return table + jnp.pad(features @ mix, ((0, VOCAB - CODES), (0, 0)))


def code_features() -> np.ndarray:
    """[6561, 44]: the 8 digits in {-1, 0, 1} of every code, their squares, and all products of two."""
    digits = (np.arange(CODES)[:, None] // LEVELS ** np.arange(DIGITS) % LEVELS - 1).astype(
        np.float32
    )
    i, j = np.triu_indices(DIGITS, 1)
    return np.concatenate([digits, digits**2 - 2 / 3, digits[:, i] * digits[:, j]], axis=1)


class Talker(nn.Module):
    """Trunk, anchors and output head. Methods: `condition`, `__call__` (trunk), `heads` (trunk and
    modules of multi-token prediction), `logits`.
    """

    config: TalkerConfig

    def setup(self):
        c = self.config
        self.inputs = CodeTable(c.dim, c.structured_codes, 0.3)
        self.outputs = CodeTable(c.dim, c.structured_codes, 0.01)
        layer_class = rematted(LlamaBlock)
        trunk: dict[str, Any] = dict(
            qkv_bias=c.qkv_bias,
            qk_norm=c.qk_norm,
            norm_eps=c.norm_eps,
            score_scale=c.score_scale,
        )
        sizes = c.num_heads, c.cache_heads, c.head_dim, c.ffn_dim
        self.layers = [layer_class(*sizes, **trunk) for _ in range(c.num_layers)]
        self.norm = RMSNorm(c.norm_eps)
        self.mtp_layers = [layer_class(*sizes, **trunk) for _ in range(c.mtp_modules)]
        self.mtp_norms = [RMSNorm(c.norm_eps) for _ in range(c.mtp_modules)]
        if c.anchors not in ANCHORS:
            raise UserError(f"anchors {c.anchors!r}: choose {' or '.join(map(repr, ANCHORS))}")
        if c.anchors == "prefix" and c.mtp_modules:
            raise UserError(
                f"mtp_modules={c.mtp_modules} with anchors 'prefix': the modules read the condition "
                "of the position they predict, and a text in front gives none; use 'paced' or "
                "'fixed' anchors, or mtp_modules=0"
            )
        self.anchors = ANCHORS[c.anchors](c)
        if c.output_bias:
            self.output_bias = self.param("output_bias", nn.initializers.zeros_init(), (VOCAB,))

    def __call__(
        self,
        ids_BT,
        cond_BTD,
        mask_BTS,
        positions_BT,
        caches: tuple[KVCache, ...] | None = None,
        write_at_B=None,
        before_BND=None,
    ):
        """Trunk: token ids and conditions (None: none) of T positions -> (hidden [B, T, D],
        caches).

        before_BND: N embeddings in front of them, from `prefix`; mask, positions and the result
          have N + T positions then. T may be 0.

        mask_BTS: bool, True = may attend; S = T without caches (or an `nn.masks.AttentionMask`),
          else the cache length.
        positions_BT: int32 [B or 1, T]. Caches: one a layer, those of modules behind them, which
          stay as they are.
        """
        x, _, caches = self._trunk(
            ids_BT, cond_BTD, mask_BTS, positions_BT, caches, write_at_B, before_BND
        )
        return self.norm(x), caches

    def _trunk(self, ids_BT, cond_BTD, mask_BTS, positions_BT, caches, write_at_B, before_BND=None):
        """As `__call__`: (states before the norm, rotations of the positions, caches)."""
        c = self.config
        x = lookup(self.inputs(), ids_BT)
        if cond_BTD is not None:
            x = x + cond_BTD.astype(x.dtype)
        if before_BND is not None:
            x = jnp.concatenate([before_BND.astype(x.dtype), x], axis=1)
        x = constrain(x, "batch", "length", "width")
        rope = rope_table(positions_BT, rope_frequencies(c.head_dim, c.rope_theta))
        new = []
        for i, layer in enumerate(self.layers):
            x, cache = layer(x, mask_BTS, rope, None if caches is None else caches[i], write_at_B)
            new.append(cache)
        return x, rope, None if caches is None else (*new, *caches[c.num_layers :])

    def heads(
        self,
        ids_BT,
        cond_BCD,
        mask_BTS,
        positions_BT,
        caches: tuple[KVCache, ...] | None = None,
        write_at_B=None,
        count: int | None = None,
    ):
        """Multi-token prediction: as `__call__`, with a causal mask over the *previous* tokens ->
        (states [B, T, D] for the logits of head 0, 1, ... `count` - 1, a tuple; caches).

        Head 0 is the trunk's, and predicts the token of each position. Module k is one more layer,
        with a norm of its own: it reads the states of the stage before (the trunk for k = 1), before
        their norm, and the condition of the position k places further, whose token it predicts.

        Args:
          cond_BCD: conditions of the T positions and of those behind them, C >= T; zeros where
            there are none any more.
          caches: one a layer, then one a module. count: static; None: all. Modules behind it are
            not run and their caches stay.

        Raises:
          UserError: more heads than there are modules for.
        """
        c, length = self.config, ids_BT.shape[1]
        count = 1 + c.mtp_modules if count is None else count
        if not 1 <= count <= 1 + c.mtp_modules:
            raise UserError(
                f"{count} tokens at once of a Talker with mtp_modules={c.mtp_modules}: it predicts "
                f"from 1 to {1 + c.mtp_modules}"
            )
        x, rope, caches = self._trunk(
            ids_BT, cond_BCD[:, :length], mask_BTS, positions_BT, caches, write_at_B
        )
        cond_BCD = jnp.pad(cond_BCD, ((0, 0), (0, count - 1), (0, 0))).astype(x.dtype)
        states, new = [self.norm(x)], list(caches or ())
        for k in range(1, count):
            at = c.num_layers + k - 1
            x, cache = self.mtp_layers[k - 1](
                x + cond_BCD[:, k : k + length],
                mask_BTS,
                rope,
                None if caches is None else new[at],
                write_at_B,
            )
            states.append(self.mtp_norms[k - 1](x))
            if caches is not None:
                new[at] = cache
        return tuple(states), None if caches is None else tuple(new)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] -> logits [..., V], float32."""
        if self.config.output_scale != 1.0:
            hidden = hidden * self.config.output_scale
        table = constrain(self.outputs(), "vocab", "none", padded=True)  # 6566 = 2 x 7 x 7 x 67
        out = matmul(hidden, table.T, jnp.float32)
        return (
            out + self.output_bias.reshape((1,) * (out.ndim - 1) + (VOCAB,)).astype(out.dtype)
            if self.config.output_bias
            else out
        )

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

    def look_up(self, features_BMD, valid_BM, durations_BM, positions_BL):
        """Paced anchors: what `place` joins, [B, L, 3 D]."""
        return self.anchors.look_up(features_BMD, valid_BM, durations_BM, positions_BL)

    def condition_packed(
        self, symbols_BM, symbols_segment_BM, durations_BM, segment_BL, position_BL
    ):
        """Paced anchors of rows packed with several utterances: as `condition_paced`."""
        return self.anchors.packed(
            symbols_BM, symbols_segment_BM, durations_BM, segment_BL, position_BL
        )

    def condition_fixed(self, text_BNE, index_BL):
        """Fixed anchors: cond [B, L, D]; see `anchors.anchor_index`."""
        return self.anchors(text_BNE, index_BL)

    def fuse(self, text_BNE):
        """Fixed anchors: what each text token adds where it stands, [B, N, D]."""
        return self.anchors.fuse(text_BNE)

    def place_anchors(self, fused_BND, index_BL):
        """Fixed anchors: condition of speech positions, from `fuse` and `anchors.anchor_index`."""
        return self.anchors.place(fused_BND, index_BL)

    def prefix(self, text_BN):
        """Prefix anchors: embeddings [B, N, D] of text ids int32 [B, N]; -1 stands before the
        first, see `START`.
        """
        start_D = self.inputs()[SOS]
        return jnp.where((text_BN == START)[..., None], start_D[None, None], self.anchors(text_BN))

    def initialise(self, length: int = 16):
        """Touches every parameter once (for `init`)."""
        c = self.config
        valid = jnp.ones((1, 4), bool)
        cond = None
        if c.anchors == "paced":
            cond, _ = self.condition_paced(
                jnp.zeros((1, 4), jnp.int32), valid, jnp.ones((1, 4)), length
            )
        elif c.anchors == "prefix":
            self.prefix(jnp.zeros((1, 4), jnp.int32))
        else:
            cond = self.condition_fixed(
                jnp.zeros((1, 4, c.text_dim)), jnp.zeros((1, length), jnp.int32)
            )
        inputs = (
            jnp.zeros((1, length), jnp.int32),
            cond,
            jnp.ones((1, length, length), bool),
            jnp.arange(length)[None],
        )
        hidden = self.heads(*inputs)[0][0] if c.mtp_modules else self(*inputs)[0]
        return self.logits(hidden)


def init(config: TalkerConfig, rng: jax.Array):
    """Fresh parameters."""
    return Talker(config).init(rng, method="initialise")["params"]


def empty_caches(config: TalkerConfig, batch: int, slots: int) -> tuple[KVCache, ...]:
    """One empty K/V cache a layer, and behind them one a module of multi-token prediction."""
    return tuple(
        KVCache.zeros(batch, slots, config.cache_heads, config.head_dim)
        for _ in range(config.num_layers + config.mtp_modules)
    )


def with_new_mask(config: TalkerConfig, params: dict) -> dict:
    """`params` of a Talker that never saw a mask, a next-token one, with a start for the mask's
    embedding: the mean of all codes' embeddings.

    It is what the trunk would see on average if it were shown every code there, the least that a
    place can say to weights that know codes alone; a random row would look like some code. Nothing
    else is new.
    """
    inputs = params["inputs"]
    rows_VD = CodeTable(config.dim, config.structured_codes, 1.0).apply({"params": inputs})
    table = jnp.asarray(inputs["table"]).at[MASK].set(jnp.mean(rows_VD[:CODES], axis=0))
    return {**params, "inputs": {**inputs, "table": table}}
