"""The pre-norm decoder layer shared by the Thinker (Llama, Qwen) and the Talkers."""

import jax
from flax import linen as nn

from mdmspeech.nn.attention import Attention, KVCache
from mdmspeech.nn.masks import Mask
from mdmspeech.nn.mlp import SwiGLU
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.partition import constrain


class LlamaBlock(nn.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x)); the mask decides whether it is causal,
    block-causal or full.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_dim: int
    qkv_bias: bool = False
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
        """Arguments as `Attention`; returns (x [B, T, D], the new cache or None)."""
        attention = Attention(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            norm_eps=self.norm_eps,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            score_scale=self.score_scale,
            name="attn",
        )
        x_BTD = constrain(x_BTD, "batch", "length", "width")
        attended_BTD, cache = attention(
            RMSNorm(self.norm_eps, name="attn_norm")(x_BTD), mask_BTS, rope, cache, write_at_B
        )
        x_BTD = constrain(x_BTD + attended_BTD, "batch", "length", "width")
        mlp = SwiGLU(self.ffn_dim, self.lora_rank, self.lora_alpha, name="mlp")
        return constrain(
            x_BTD + mlp(RMSNorm(self.norm_eps, name="mlp_norm")(x_BTD)), "batch", "length", "width"
        ), cache
