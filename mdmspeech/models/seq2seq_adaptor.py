"""An adaptor that writes: speech states -> text pieces, by an attention decoder that begins as
Whisper's own.

CTC letters (ctc_adaptor.py) must learn every voice from our own corpus. Whisper's decoder has
learned from 680,000 hours how its encoder's states are read, so some or all of its layers, its
English pieces and a short training (stages/hearing.py: short states, our way of writing) hear
people no corpus of ours contains. What it writes is tokenised like typed text; the frozen Thinker
reads it.

The layer is Whisper's (Radford et al. 2022, arXiv 2212.04356): pre-norm causal attention, attention
over the states, GELU MLP; learned positions; the embedding is also the output layer. B batch, T
states (50 a second), N pieces, V = pieces + 5 ids: the pieces, then end, then the four that prompt.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdmspeech.config_names import renamed_fields
from mdmspeech.decoding.autoregressive import generate
from mdmspeech.decoding.sampling import sample
from mdmspeech.nn.attention import Attention, CrossAttention, KVCache
from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.nn.mlp import GeluMLP
from mdmspeech.text.pieces import PIECES

# Whisper's start, language, task and no-timestamps: the first four positions of every text
PROMPT = 4
_PIECES_A_SECOND, _LEAST = 6, 12  # limits of what is written: nobody speaks faster
_LOOP = 8  # pieces written again that are a loop
_NORM_EPS = 1e-5


@renamed_fields
@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes. encoder_dim: the speech encoder's width; pieces: text pieces it can write (the ids
    below `end`); positions: longest text, prompt included.
    """

    encoder_dim: int = 512
    dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    pieces: int = PIECES
    positions: int = 200

    @property
    def end(self) -> int:
        """The id that ends a text."""
        return self.pieces

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids that begin a text."""
        return tuple(range(self.pieces + 1, self.pieces + 1 + PROMPT))

    @property
    def vocab_size(self) -> int:
        """All ids."""
        return self.pieces + 1 + PROMPT


class DecoderLayer(nn.Module):
    """One layer. `memory` are this layer's keys and values of the states, from `encode_memory`."""

    config: Seq2SeqConfig

    def setup(self):
        c = self.config
        head_dim = c.dim // c.num_heads
        self.attn_norm, self.cross_norm, self.mlp_norm = (
            nn.LayerNorm(epsilon=_NORM_EPS) for _ in range(3)
        )
        self.attn = Attention(
            c.num_heads, c.num_heads, head_dim, qkv_bias=True, k_bias=False, out_bias=True
        )
        self.cross = CrossAttention(c.num_heads, head_dim, c.dim)
        self.mlp = GeluMLP(c.ffn_dim)

    def encode_memory(self, states_BTD: jax.Array) -> KVCache:
        """States -> keys and values, once for a whole text."""
        return self.cross.encode_memory(states_BTD)

    def __call__(
        self,
        x_BND,
        mask_BNM,
        memory: KVCache,
        valid_BT,
        cache: KVCache | None = None,
        write_at_B=None,
    ):
        attended_BND, cache = self.attn(self.attn_norm(x_BND), mask_BNM, None, cache, write_at_B)
        x_BND = x_BND + attended_BND
        x_BND = x_BND + self.cross(self.cross_norm(x_BND), memory, valid_BT[:, None, :])
        return x_BND + self.mlp(self.mlp_norm(x_BND)), cache


class Seq2SeqAdaptor(nn.Module):
    """States and the text so far -> logits of the next piece."""

    config: Seq2SeqConfig

    def setup(self):
        c = self.config
        self.embedding = self.param(
            "embedding", nn.initializers.normal(0.02), (c.vocab_size, c.dim)
        )
        self.positions = self.param("positions", nn.initializers.normal(0.02), (c.positions, c.dim))
        self.layers = [DecoderLayer(c, name=f"layer_{i}") for i in range(c.num_layers)]
        self.norm = nn.LayerNorm(epsilon=_NORM_EPS)

    def __call__(self, states_BTD: jax.Array, valid_BT: jax.Array, ids_BN: jax.Array) -> jax.Array:
        """Logits [B, N, V]: position n foresees id n + 1 from ids 0..n. A whole text at once, for
        training.
        """
        length = ids_BN.shape[1]
        x_BND = self.embedding[ids_BN] + self.positions[None, :length]
        causal_1NM = jnp.tril(jnp.ones((1, length, length), bool))
        for layer in self.layers:
            x_BND, _ = layer(x_BND, causal_1NM, layer.encode_memory(states_BTD), valid_BT)
        return self.logits(x_BND)

    def encode_memory(self, states_BTD: jax.Array) -> tuple[KVCache, ...]:
        """Keys and values of the states in every layer."""
        return tuple(layer.encode_memory(states_BTD) for layer in self.layers)

    def step(
        self, ids_BN, at_B, memory: tuple[KVCache, ...], valid_BT, caches: tuple[KVCache, ...]
    ):
        """Ids that stand at positions at .. at+N-1 of their rows -> (what `logits` takes [B, N, D],
        the caches with them in it).
        """
        places_BN = at_B[:, None] + jnp.arange(ids_BN.shape[1])[None, :]
        x_BND = self.embedding[ids_BN] + self.positions[places_BN]
        seen_BNM = jnp.arange(caches[0].k_BSKD.shape[1])[None, None, :] <= places_BN[:, :, None]
        new = []
        for layer, kept, cache in zip(self.layers, memory, caches, strict=True):
            x_BND, cache = layer(x_BND, seen_BNM, kept, valid_BT, cache, at_B)
            new.append(cache)
        return x_BND, tuple(new)

    def logits(self, x_BND: jax.Array) -> jax.Array:
        """Of the next id [..., V]."""
        return matmul(self.norm(x_BND), self.embedding.T)


def most_pieces(config: Seq2SeqConfig, states: int) -> int:
    """The longest text of so many states. One as long as that was cut, and did not end by itself."""
    return min(_sayable(states), config.positions - PROMPT)


def _sayable(states):
    return states * _PIECES_A_SECOND // 50 + _LEAST


def without_loop(ids: Sequence[int], most: int) -> Sequence[int]:
    """The ids of a text of at most `most` (see `most_pieces`) without its repetition of itself: a
    decoder that misses the end writes its last words again and again. One that ended by itself
    comes back as it is, whatever it repeats: so it was spoken.
    """
    if len(ids) < most:
        return ids
    for period in range(1, len(ids) // 3 + 1):
        again = 0
        while again < len(ids) - period and ids[-1 - again] == ids[-1 - again - period]:
            again += 1
        if again >= max(2 * period, _LOOP):
            return ids[: len(ids) - again]
    return ids


class Transcription(NamedTuple):
    """ids_BN: int32 [B, N], `config.end` from where a text ends. first_BV: float32 [B, end + 1],
    log-probabilities of the first id.
    """

    ids_BN: jax.Array
    first_BV: jax.Array


def greedy_decode(
    config: Seq2SeqConfig,
    params,
    states_BTD: jax.Array,
    valid_BT: jax.Array,
    drafts_BD: jax.Array | None = None,
) -> Transcription:
    """Greedy decoding, each row as if it were alone.

    At most 6 pieces a second of speech (+ 12) are written, so that nothing, be it noise or music,
    is written about for ever.

    Args:
      drafts_BD: int32, what each row probably begins with, then `config.end`: as far as it is what
        would be written anyway, one forward writes it (speculative decoding, Leviathan et al. 2023,
        at temperature 0). The ids are those without drafts.
    """
    module = Seq2SeqAdaptor(config)
    batch, length = valid_BT.shape
    most = most_pieces(config, length)
    most_B = jnp.minimum(_sayable(jnp.sum(valid_BT, axis=1)), most)
    memory = module.apply({"params": params}, states_BTD, method="encode_memory")
    nothing = tuple(
        KVCache.zeros(batch, PROMPT + most, config.num_heads, config.dim // config.num_heads)
        for _ in range(config.num_layers)
    )
    prompt_BN = jnp.broadcast_to(jnp.array(config.prompt, jnp.int32), (batch, PROMPT))

    def read(ids_BN, at_B, caches):
        return module.apply(
            {"params": params}, ids_BN, at_B, memory, valid_BT, caches, method="step"
        )

    def logits(x_BND):
        found = module.apply({"params": params}, x_BND, method="logits")
        return found[..., : config.end + 1]

    def begin(drafts_BD):
        """(Logits of the first id, and of the one behind the drafts that are right; how many those
        are; the caches.)
        """
        ids_BN = jnp.concatenate([prompt_BN, drafts_BD], axis=1)
        x_BND, caches = read(ids_BN, jnp.zeros(batch, jnp.int32), nothing)
        logits_BNV = logits(x_BND[:, PROMPT - 1 :])
        right_BD = (sample(logits_BNV[:, :-1]) == drafts_BD) & (drafts_BD != config.end)
        count_B = jnp.minimum(jnp.sum(jnp.cumprod(right_BD, axis=1), axis=1), most_B)
        next_B1V = jnp.take_along_axis(logits_BNV, count_B[:, None, None], axis=1)
        return logits_BNV[:, 0], next_B1V[:, 0], count_B.astype(jnp.int32), caches

    if drafts_BD is None:
        drafts_BD = prompt_BN[:, :0]
        begun = begin(drafts_BD)
    else:
        drafts_BD = drafts_BD[:, :most]
        begun = jax.lax.cond(  # without a draft its columns are not computed
            jnp.any(drafts_BD[:, :1] != config.end),
            lambda: begin(drafts_BD),
            lambda: begin(drafts_BD[:, :0]),
        )
    first_BV, logits_BV, count_B, caches = begun

    def next_piece(model_state, index, running_B):
        id_B = sample(model_state[0])

        def read_it():
            x_B1D, caches = read(id_B[:, None], PROMPT + count_B + index, model_state[1])
            return logits(x_B1D)[:, 0], caches

        # nobody reads the last end
        over = jnp.all((id_B == config.end) | ~running_B)
        return id_B, (), jax.lax.cond(over, lambda: model_state, read_it)

    behind_BN = generate(
        next_piece,
        (logits_BV, caches),
        max_new=most,
        stop_ids=(config.end,),
        limit_B=most_B - count_B,
        fill=config.end,
    ).ids_BN
    ids_BN = jnp.concatenate([drafts_BD, behind_BN], axis=1)
    place_BN = jnp.arange(most)[None, :]
    skipped_BN = jnp.where(place_BN < count_B[:, None], 0, drafts_BD.shape[1] - count_B[:, None])
    return Transcription(
        jnp.take_along_axis(ids_BN, place_BN + skipped_BN, axis=1),
        jax.nn.log_softmax(first_BV.astype(jnp.float32)),
    )
