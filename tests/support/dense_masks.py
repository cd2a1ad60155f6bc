"""Masks and positions as whole arrays, which the package never makes: what its attention is
compared with.
"""

import jax
import jax.numpy as jnp

from mdmspeech.diffusion.layout import block_index, duplicate_streams, mask_mod, two_stream


def _with_padding(mask_LL: jax.Array, valid_BL: jax.Array | None) -> jax.Array:
    if valid_BL is None:
        return mask_LL[None]
    return mask_LL[None] & valid_BL[:, :, None] & valid_BL[:, None, :]


def block_causal_mask(length: int, block: int, valid_BL: jax.Array | None = None) -> jax.Array:
    """bool [B or 1, L, L]: full inside a block, causal across blocks; B when `valid_BL` (bool
    [B, L]) is given, else 1.
    """
    block_L = block_index(jnp.arange(length), block)
    return _with_padding(block_L[None, :] <= block_L[:, None], valid_BL)


def causal_mask(length: int, valid_BL: jax.Array | None = None) -> jax.Array:
    """bool [B or 1, L, L]: each token sees itself and what is before it (the next-token Talker)."""
    return block_causal_mask(length, 1, valid_BL)


def two_stream_mask(length: int, block: int, valid_BL: jax.Array | None = None) -> jax.Array:
    """bool [B or 1, 2L, 2L] for the layout [noisy ; clean] of the same L positions (see
    `mask_mod`); `valid_BL` holds for both halves.
    """
    streams, blocks = (jnp.asarray(vector) for vector in two_stream(length, block))
    mask = mask_mod(streams[:, None], blocks[:, None], streams[None, :], blocks[None, :])
    return _with_padding(mask, None if valid_BL is None else duplicate_streams(valid_BL))


def two_stream_positions(length: int) -> jax.Array:
    """int32 [2L]: positions of the layout [noisy ; clean]; both copies of a token stand at the same
    position.
    """
    return jnp.tile(jnp.arange(length, dtype=jnp.int32), 2)
