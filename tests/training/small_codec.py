"""A codec of a few thousand parameters, and a batch for it."""

import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.compact.config import CompactCodecConfig

SMALL = CompactCodecConfig(
    encoder_dim=16,
    encoder_num_layers=1,
    decoder_dim=16,
    decoder_num_layers=1,
    decoder_lookahead=(1,),
    frame_dim=16,
    head_dim=16,
    phones=8,
)
TOKENS = 6


def two_crops(rng: np.random.Generator, ends: int) -> dict:
    """A batch of `CodecTask`: noise, TOKENS long, of which the second row ends after `ends`."""
    return {
        "audio": jnp.asarray(rng.integers(-3000, 3000, (2, TOKENS * 960)), jnp.int16),
        "valid": jnp.ones((2, TOKENS), bool).at[1, ends:].set(False),
        "phone": jnp.asarray(rng.integers(-1, 8, (2, 2 * TOKENS))),
        "f0": jnp.full((2, 4 * TOKENS), 180.0),
        "voiced": jnp.asarray(rng.random((2, 4 * TOKENS)) > 0.4),
    }
