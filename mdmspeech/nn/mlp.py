"""Feed-forward layers: gated (Llama, Qwen) and plain (Whisper)."""

import jax
from flax import linen as nn


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), no biases (Shazeer, 2020, arXiv 2002.05202). [..., D] -> [..., D]."""

    ffn_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = nn.Dense(self.ffn_dim, use_bias=False, name="gate")(x)
        up = nn.Dense(self.ffn_dim, use_bias=False, name="up")(x)
        return nn.Dense(x.shape[-1], use_bias=False, name="down")(nn.silu(gate) * up)


class GeluMLP(nn.Module):
    """fc2(gelu(fc1(x))) with biases and the exact (erf) GELU, which Whisper was trained with. [..., D] -> [..., D]."""

    ffn_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.gelu(nn.Dense(self.ffn_dim, name="fc1")(x), approximate=False)
        return nn.Dense(x.shape[-1], name="fc2")(hidden)
