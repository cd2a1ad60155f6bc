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
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdmspeech.config_names import renamed_fields
from mdmspeech.decoding.autoregressive import generate
from mdmspeech.decoding.sampling import sample
from mdmspeech.nn.attention import Attention, CrossAttention, KVCache
from mdmspeech.nn.mlp import GeluMLP

# Whisper's start, language, task and no-timestamps: the first four positions of every text
PROMPT = 4
_PIECES_A_SECOND, _LEAST = 6, 12  # limits of what is written: nobody speaks faster
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
    pieces: int = 23793
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
        return self._logits(x_BND)

    def encode_memory(self, states_BTD: jax.Array) -> tuple[KVCache, ...]:
        """Keys and values of the states in every layer."""
        return tuple(layer.encode_memory(states_BTD) for layer in self.layers)

    def step(self, ids_BN, at, memory: tuple[KVCache, ...], valid_BT, caches: tuple[KVCache, ...]):
        """Ids that stand at positions at .. at+N-1 -> (logits [B, V] after the last of them, the
        caches with them in it).
        """
        batch, length = ids_BN.shape
        places_N = at + jnp.arange(length)
        x_BND = self.embedding[ids_BN] + self.positions[places_N][None]
        seen_1NM = jnp.arange(caches[0].k_BSKD.shape[1])[None, None, :] <= places_N[None, :, None]
        at_B, new = jnp.full(batch, at, jnp.int32), []
        for layer, kept, cache in zip(self.layers, memory, caches, strict=True):
            x_BND, cache = layer(x_BND, seen_1NM, kept, valid_BT, cache, at_B)
            new.append(cache)
        return self._logits(x_BND[:, -1:])[:, 0], tuple(new)

    def _logits(self, x_BND: jax.Array) -> jax.Array:
        return self.norm(x_BND) @ self.embedding.T


class Transcription(NamedTuple):
    """ids_BN: int32 [B, N], `config.end` from where a text ends. first_BV: float32 [B, end + 1],
    log-probabilities of the first id.
    """

    ids_BN: jax.Array
    first_BV: jax.Array


def greedy_decode(
    config: Seq2SeqConfig, params, states_BTD: jax.Array, valid_BT: jax.Array
) -> Transcription:
    """Greedy decoding, each row as if it were alone.

    At most 6 pieces a second of speech (+ 12) are written, so that nothing, be it noise or music,
    is written about for ever.
    """
    module = Seq2SeqAdaptor(config)
    batch, length = valid_BT.shape
    most = min(config.positions - PROMPT, length * _PIECES_A_SECOND // 50 + _LEAST)
    most_B = jnp.sum(valid_BT, axis=1) * _PIECES_A_SECOND // 50 + _LEAST
    memory = module.apply({"params": params}, states_BTD, method="encode_memory")
    caches = tuple(
        KVCache.zeros(batch, PROMPT + most, config.num_heads, config.dim // config.num_heads)
        for _ in range(config.num_layers)
    )

    def read(ids_BN, at, caches):
        return module.apply({"params": params}, ids_BN, at, memory, valid_BT, caches, method="step")

    def next_piece(model_state, index, _):
        logits_BV, caches = model_state
        id_B = sample(logits_BV[:, : config.end + 1])
        return id_B, (), read(id_B[:, None], PROMPT + index, caches)

    logits_BV, caches = read(jnp.broadcast_to(jnp.array(config.prompt), (batch, PROMPT)), 0, caches)
    ids_BN = generate(
        next_piece,
        (logits_BV, caches),
        max_new=most,
        stop_ids=(config.end,),
        limit_B=most_B,
        fill=config.end,
    ).ids_BN
    return Transcription(
        ids_BN, jax.nn.log_softmax(logits_BV[:, : config.end + 1].astype(jnp.float32))
    )
