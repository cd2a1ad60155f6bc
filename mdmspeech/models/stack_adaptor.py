"""The adaptor between speech encoder and Thinker (VocalNet's): stack neighbouring states, two
linear layers.

Source: docs/method.md, "Speech input".

With Whisper's 50 states a second and a stack of 5, the Thinker reads 10 vectors a second.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


class StackAdaptor(nn.Module):
    """Concatenates `stack` neighbouring states, then Linear -> ReLU -> Linear into the Thinker's
    width.
    """

    out_dim: int
    stack: int = 5
    hidden_dim: int = 2048

    @nn.compact
    def __call__(self, states_BTD: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, ceil(T/stack), out_dim]; the last group is completed with zeros, so no
        speech is cut off.
        """
        batch, length, dim = states_BTD.shape
        groups = -(-length // self.stack)
        padded_BTD = jnp.pad(states_BTD, ((0, 0), (0, groups * self.stack - length), (0, 0)))
        stacked_BGE = padded_BTD.reshape(batch, groups, self.stack * dim)
        hidden_BGH = nn.relu(nn.Dense(self.hidden_dim, name="fc1")(stacked_BGE))
        return nn.Dense(self.out_dim, name="fc2")(hidden_BGH)

    def num_vectors(self, num_states: int | jax.Array) -> int | jax.Array:
        """How many vectors `num_states` encoder states become: ceil(num_states / stack)."""
        return -(-num_states // self.stack)
