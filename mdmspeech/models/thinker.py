"""The Thinker: a causal text LLM of the Llama / Qwen2 / Qwen3 family, as a pure function of
parameters and cache.

It reads embeddings, not only token ids, because speech vectors stand in the prompt where a
placeholder was. Decoding is in `models.generation`; importers of real checkpoints are in `interop`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from mdmspeech.nn.attention import KVCache
from mdmspeech.nn.linear import widened
from mdmspeech.nn.masks import Mask, causal
from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import constrain, lookup_large
from mdmspeech.nn.rope import rope_attention_factor, rope_frequencies, rope_table
from mdmspeech.nn.stack import LayerStack
from mdmspeech.nn.transformer import LlamaBlock


@dataclasses.dataclass(frozen=True)
class ThinkerConfig:
    """Sizes and switches; the defaults are SmolLM2-135M.

    Attributes:
      qkv_bias: True for Qwen2. qk_norm: True for Qwen3.
      rope_scaling: None, or the items of a Hugging Face `rope_scaling` entry (a tuple of pairs, so
        that configs can be hashed).
      tie_embeddings: the output layer is the transposed embedding.
      scan_layers: see `nn.stack`.
      lora_rank, lora_alpha: low-rank updates of all projections of the layers, see `models.lora`;
        rank 0 has none.
    """

    vocab_size: int = 49152
    dim: int = 576
    num_layers: int = 30
    num_heads: int = 9
    num_kv_heads: int = 3
    head_dim: int = 64
    ffn_dim: int = 1536
    rope_theta: float = 100_000.0
    rope_scaling: tuple[tuple[str, Any], ...] | None = None
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = True
    scan_layers: bool = False
    lora_rank: int = 0
    lora_alpha: float = 16.0


SMOLLM2_135M = ThinkerConfig()
QWEN3_06B = ThinkerConfig(
    vocab_size=151936,
    dim=1024,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    ffn_dim=3072,
    rope_theta=1e6,
    norm_eps=1e-6,
    qk_norm=True,
    scan_layers=True,
)
LLAMA32_1B = ThinkerConfig(
    vocab_size=128256,
    dim=2048,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
    head_dim=64,
    ffn_dim=8192,
    rope_theta=500_000.0,
    rope_scaling=(
        ("rope_type", "llama3"),
        ("factor", 32.0),
        ("low_freq_factor", 1.0),
        ("high_freq_factor", 4.0),
        ("original_max_position_embeddings", 8192),
    ),
    scan_layers=True,
)
QWEN3_8B = ThinkerConfig(
    vocab_size=151936,
    dim=4096,
    num_layers=36,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    ffn_dim=12288,
    rope_theta=1e6,
    norm_eps=1e-6,
    qk_norm=True,
    tie_embeddings=False,
    scan_layers=True,
)


def every_layer(config: ThinkerConfig, empty: Any) -> Any:
    """An empty cache of one layer -> of all, in the layout that `scan_layers` needs."""
    if config.scan_layers:
        stack = lambda leaf: jnp.zeros((config.num_layers, *leaf.shape), leaf.dtype)
        return jax.tree.map(stack, empty)
    return (empty,) * config.num_layers


class Thinker(nn.Module):
    """Embedding, layers, final norm and output layer as separate methods, so that only the needed
    logits are computed.
    """

    config: ThinkerConfig

    def setup(self) -> None:
        config = self.config
        self.embedding = nn.Embed(config.vocab_size, config.dim)
        layer_kwargs = FrozenDict(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            ffn_dim=config.ffn_dim,
            qkv_bias=config.qkv_bias,
            qk_norm=config.qk_norm,
            norm_eps=config.norm_eps,
            lora_rank=config.lora_rank,
            lora_alpha=config.lora_alpha,
        )
        self.layers = LayerStack(LlamaBlock, layer_kwargs, config.num_layers, config.scan_layers)
        self.norm = RMSNorm(config.norm_eps)
        if not config.tie_embeddings:
            self.output = nn.Dense(config.vocab_size, use_bias=False)

    @nn.nowrap
    def init_cache(self, batch: int, columns: int, dtype: Any = jnp.float32) -> Any:
        """Empty K/V cache of so many positions in the layout that `scan_layers` needs."""
        heads = self.config.num_kv_heads, self.config.head_dim
        return every_layer(self.config, KVCache.zeros(batch, columns, *heads, dtype))

    def __call__(self, ids_BT: jax.Array) -> jax.Array:
        """Token ids [B, T] -> logits [B, T, V], causal, positions 0..T-1 (training on text, parity,
        initialisation).
        """
        hidden_BTD, _ = self.states(self.embed(ids_BT))
        return self.logits(hidden_BTD)

    def embed(self, ids_BT: jax.Array) -> jax.Array:
        """Token ids -> input embeddings [B, T, D]."""
        return lookup_large(self.embedding.embedding, ids_BT)

    def states(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array | None = None,
        mask_BTS: Mask | None = None,
        cache: Any = None,
        write_at_B: jax.Array | None = None,
        normed: bool = True,
    ) -> tuple[jax.Array, Any]:
        """Input embeddings -> final hidden states after the last norm [B, T, D], and the new cache
        (None without one).

        Args:
          positions_BT: default 0..T-1 for every row.
          mask_BTS: bool, True = may attend, or described; default causal over x. With a cache, S is
            its length and a dense mask must be given.
          cache, write_at_B: from `init_cache`, and the first column to write in each row.
          normed: False gives them before the last norm.
        """
        length = x_BTD.shape[1]
        if positions_BT is None:
            positions_BT = jnp.arange(length)[None, :]
        if mask_BTS is None:
            mask_BTS = causal(length)
        scaling = None if self.config.rope_scaling is None else dict(self.config.rope_scaling)
        frequencies = rope_frequencies(self.config.head_dim, self.config.rope_theta, scaling)
        rope = rope_table(positions_BT, frequencies, rope_attention_factor(scaling))
        x_BTD, cache = self.layers(x_BTD, mask_BTS, rope, cache, write_at_B)
        return self.last_norm(x_BTD) if normed else x_BTD, cache

    def last_norm(self, x_BTD: jax.Array) -> jax.Array:
        """What comes out of the last layer -> final hidden states."""
        return self.norm(x_BTD)

    def output_matrix(self) -> jax.Array:
        """[D, V]: `logits(h)` is h times this. For loops over parts of a sequence: over several
        devices the matrix is gathered once, before the loop.
        """
        config = self.config
        matrix = (
            self.embedding.embedding.T
            if config.tie_embeddings
            else self.output.variables["params"]["kernel"]
        )
        return constrain(matrix, "none", "vocab")

    def logits(self, hidden_BTD: jax.Array) -> jax.Array:
        """Final hidden states -> next-token logits [B, T, V], float32."""
        single = hidden_BTD.size == hidden_BTD.shape[-1]
        rows_BTD = widened(hidden_BTD, 1) if single else hidden_BTD
        out = (
            matmul(rows_BTD, constrain(self.embedding.embedding, "vocab", "none").T)
            if self.config.tie_embeddings
            else self.output(rows_BTD)
        )
        out = out[:, :1] if single else out
        return constrain(out, "batch", "length", "vocab").astype(jnp.float32)


def behind_prompt(segment_BL: jax.Array, prompt: int) -> jax.Array:
    """Mask of rows that hold what conversations begin with once, and several of them behind it: bool
    [B, L, L], True = may attend: causal, to the prompt's segment and the own one; padding (0) to
    itself only.
    """
    place = jnp.arange(segment_BL.shape[1])
    place_q, place_k = place[None, :, None], place[None, None, :]
    query, key = segment_BL[:, :, None], segment_BL[:, None, :]
    seen = (query == key) | ((key == prompt) & (query > 0))
    return (seen & (place_q >= place_k)) | (place_q == place_k)
