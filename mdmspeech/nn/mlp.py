"""Feed-forward layers: gated (Llama, Qwen) and plain (Whisper)."""

import jax
from flax import linen as nn

from mdmspeech.nn.linear import Linear
from mdmspeech.nn.partition import constrain


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), no biases (Shazeer, 2020, arXiv 2002.05202). [B, T, D] -> [B, T,
    D].
    """

    ffn_dim: int
    lora_rank: int = 0
    lora_alpha: float = 16.0

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        gate_BTF = Linear(self.ffn_dim, False, self.lora_rank, self.lora_alpha, name="gate")(x_BTD)
        up_BTF = Linear(self.ffn_dim, False, self.lora_rank, self.lora_alpha, name="up")(x_BTD)
        hidden_BTF = constrain(nn.silu(gate_BTF) * up_BTF, "batch", "length", "mlp")
        return Linear(x_BTD.shape[-1], False, self.lora_rank, self.lora_alpha, name="down")(
            hidden_BTF
        )


class GeluMLP(nn.Module):
    """fc2(gelu(fc1(x))) with biases and the exact (erf) GELU, which Whisper was trained with.
    [B, T, D] -> [B, T, D].
    """

    ffn_dim: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        hidden_BTF = nn.gelu(
            constrain(Linear(self.ffn_dim, name="fc1")(x_BTD), "batch", "length", "mlp"),
            approximate=False,
        )
        return Linear(x_BTD.shape[-1], name="fc2")(hidden_BTF)
