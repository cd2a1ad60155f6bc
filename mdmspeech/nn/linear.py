"""The linear layer of all Transformers here: `flax.linen.Dense` with an optional low-rank update
(LoRA, Hu et al. 2021, arXiv 2106.09685).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.nn.params import param
from mdmspeech.nn.partition import on_one_device
from mdmspeech.nn.tracing import platform

_TPU_ROWS = 8  # that a TPU's registers hold


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., T, D] @ [D, N]; a single row as `widened` has it."""
    if x.ndim < 2 or x.size != x.shape[-1] or platform() != "tpu":
        return matmul(x, kernel)
    return (widened(x, x.ndim - 2) @ kernel)[..., :1, :]


def widened(x: jax.Array, axis: int) -> jax.Array:
    """One row (or column) that is to be multiplied by a matrix, on a TPU with zeros beside it: its
    vector unit would do the product, four times as slowly as memory is read; so the matrix unit
    does.
    """
    if x.shape[axis] != 1 or platform() != "tpu":
        return x
    return jnp.pad(x, [(0, _TPU_ROWS - 1 if i == axis else 0) for i in range(x.ndim)])


class Linear(nn.Module):
    """y = x W + b, plus (alpha / rank) (x A) B if `rank` > 0. Parameters: kernel, bias; lora_a [in,
    rank], lora_b [rank, out].

    B starts at zero, so that a fresh update changes nothing. See `models.lora` for parting and
    merging the two sets of parameters.
    """

    features: int
    use_bias: bool = True
    rank: int = 0
    alpha: float = 16.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = param(self, "kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        dtype = jnp.promote_types(x.dtype, kernel.dtype)
        lead, x = x.shape[:-1], x.astype(dtype)
        if on_one_device():
            # XLA's CPU compiler is 1.8 times slower on the gradient of a gated MLP whose products
            # contract over two axes (batch, length) than over one. Over several devices the axes
            # stay apart, because the batch is what is split.
            x = x.reshape(-1, x.shape[-1])
        y = product(x, kernel.astype(dtype))
        if self.use_bias:
            bias = param(self, "bias", nn.initializers.zeros_init(), (self.features,))
            y = y + bias.astype(dtype).reshape((1,) * (x.ndim - 1) + bias.shape)
        if self.rank:
            down = param(self, "lora_a", nn.initializers.lecun_normal(), (x.shape[-1], self.rank))
            up = param(self, "lora_b", nn.initializers.zeros_init(), (self.rank, self.features))
            y = y + (x @ down.astype(dtype)) @ (up * (self.alpha / self.rank)).astype(dtype)
        return y.reshape(*lead, self.features)
