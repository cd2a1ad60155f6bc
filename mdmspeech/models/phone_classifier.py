"""Which symbol of the pronouncer is heard when: a small classifier over the speech encoder's
states, for aligning a known text (`data.recordings.align`).

Whisper's states know sounds in any voice, so that what one synthesiser's invented voices teach
holds for people.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdmspeech.config_names import renamed_fields


@renamed_fields
@dataclasses.dataclass(frozen=True)
class PhoneClassifierConfig:
    """`encoder_dim` is the encoder's width, `near` the states seen on either side, `symbols` the
    classes (boundary and punctuation included).
    """

    encoder_dim: int = 512
    near: int = 1
    dim: int = 128
    symbols: int = 180


class PhoneClassifier(nn.Module):
    """States [B, T, D] (50 a second) -> logits [B, T, V]."""

    config: PhoneClassifierConfig

    @nn.compact
    def __call__(self, states_BTD: jax.Array, deterministic: bool = True) -> jax.Array:
        near, length = self.config.near, states_BTD.shape[1]
        padded = jnp.pad(states_BTD, ((0, 0), (near, near), (0, 0)))
        stacked = jnp.concatenate([padded[:, k : k + length] for k in range(2 * near + 1)], axis=-1)
        stacked = nn.Dropout(0.2)(stacked, deterministic=deterministic)
        hidden = nn.silu(nn.Dense(self.config.dim, name="in")(stacked))
        hidden = nn.Dropout(0.2)(hidden, deterministic=deterministic)
        return nn.Dense(self.config.symbols, name="out")(hidden)
