"""Who may attend to whom: block-causal, causal, two-stream and cached masks, all from two integers
a token (stream, block).

Block-causal attention is full inside a block of `block` tokens and causal across blocks, the same
in training and in decoding (docs/method.md, "Attention layouts"). The two-stream layout [noisy ;
clean] conditions a noisy block on the *clean* copies of the earlier blocks, which is exactly what
decoding sees (BD3-LM, arXiv 2503.09573).

Every mask is bool and True means "may attend". Padding attends to nothing and is attended by
nothing: a fully masked row must give zeros, not NaN, in the attention that uses it. B batch, L
length, P blocks, K block size, T queries, S cache slots.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.errors import UserError

CLEAN = 0
NOISY = 1
NO_END = 2**30  # "this row has no known end": larger than any position


class MaskCoords(NamedTuple):
    """What `mask_mod` compares, a vector a field: int32 [T] each, numpy, so that kernels can read
    off their tiles before anything runs.
    """

    stream_T: np.ndarray
    block_T: np.ndarray


def block_index(positions, block: int):
    """Block that each position belongs to: `positions // block`, any shape, numpy or jax. The block
    size must be positive.
    """
    if block < 1:
        raise UserError(f"block size {block}: a block holds at least one token")
    return positions // block


def mask_mod(stream_q, block_q, stream_k, block_k):
    """The two-stream rule, elementwise over broadcastable integer arrays (numpy or jax; also usable
    inside an attention kernel).

    q may see k when: same stream and same block | q noisy, k clean, block_k < block_q | both clean,
    block_k <= block_q. With every token clean this is plain block-causality, so one rule serves all
    backends.
    """
    same = (stream_q == stream_k) & (block_q == block_k)
    noisy_to_past = (stream_q == NOISY) & (stream_k == CLEAN) & (block_k < block_q)
    clean_to_past = (stream_q == CLEAN) & (stream_k == CLEAN) & (block_k <= block_q)
    return same | noisy_to_past | clean_to_past


def two_stream(length: int, block: int) -> MaskCoords:
    """Places of the layout [noisy ; clean] of the same L positions, T = 2L.

    In packed rows these are the row's own blocks: exact where every segment starts at a multiple of
    the block, because then the blocks of one segment keep their order and no two segments share
    one.
    """
    block_L = block_index(np.arange(length, dtype=np.int32), block)
    return MaskCoords(
        np.repeat(np.array([NOISY, CLEAN], np.int32), length), np.concatenate([block_L, block_L])
    )


def one_stream(length: int, block: int) -> MaskCoords:
    """Places of L clean positions: with `mask_mod`, plain block-causality."""
    return MaskCoords(
        np.full(length, CLEAN, np.int32),
        np.asarray(block_index(np.arange(length, dtype=np.int32), block)),
    )


def with_text_prefix(places: MaskCoords, length: int) -> MaskCoords:
    """The same positions behind `length` others, a text: causal among themselves, as the language
    models that read it are, and seen by all behind them.
    """
    text = MaskCoords(np.full(length, CLEAN, np.int32), np.arange(-length, 0, dtype=np.int32))
    return MaskCoords(*(np.concatenate(pair) for pair in zip(text, places, strict=True)))


def duplicate_streams(x_BL: jax.Array) -> jax.Array:
    """[B, L, ...] -> [B, 2L, ...]: what both copies of a token share (segment ids, positions,
    validity, conditions).
    """
    return jnp.concatenate([x_BL, x_BL], axis=1)


def shift_right(
    ids_BL: jax.Array, clean_BL: jax.Array, position_BL: jax.Array, block: int, bos: int
) -> jax.Array:
    """int32 [B, L]: what stands at each place under the label shift, where the state at a place
    predicts the token *of* that place from the one before it.

    An autoregressive model reads so already; a masked one that reads so, too, can go on from its
    weights (LLaDA-TTS, arXiv 2603.26364; docs/method.md, "Label shift"). The place that predicts
    token i holds token i-1, and with it the condition and the position of i: text, rotation and
    cache slots stay where they are without the shift. The first place of a block holds the last
    token of the block before, which decoding has finished by then: so it is taken from `clean_BL`,
    whatever `ids_BL` hides of it (no place that predicts it can see it there). `bos` stands before
    the first token. The last token of a block is first seen in the next one. With blocks of one
    token nothing hidden is ever seen: that *is* next-token prediction.

    `ids_BL`: tokens, some hidden. `clean_BL`: none hidden. `position_BL` [B or 1, L]: index in the
    utterance, which starts at a multiple of `block`.
    """
    before_BL, clean_before_BL = (jnp.pad(x[:, :-1], ((0, 0), (1, 0))) for x in (ids_BL, clean_BL))
    before_BL = jnp.where(position_BL % block == 0, clean_before_BL, before_BL)
    return jnp.where(position_BL == 0, bos, before_BL).astype(jnp.int32)


def to_blocks(x_BL: jax.Array, block: int, fill) -> jax.Array:
    """[B, L] -> [B, P, K] with P = ceil(L / K); the missing tail of the last block is `fill`."""
    batch, length = x_BL.shape
    blocks = -(-length // block)
    padded = jnp.pad(x_BL, ((0, 0), (0, blocks * block - length)), constant_values=fill)
    return padded.reshape(batch, blocks, block)


def from_blocks(x_BPK: jax.Array, length: int) -> jax.Array:
    """[B, P, K] -> [B, L]: the inverse of `to_blocks`."""
    return x_BPK.reshape(x_BPK.shape[0], -1)[:, :length]


# ---- The cache of the block decoder -------------------------------------------------------------
# Slot s holds the K/V of position s - K. The first K slots are scratch: while a row decodes its
# block 0 there is no earlier block to commit, yet the fused forward always carries one; its K/V
# lands there and no real token ever sees it.


def cache_slots(max_len: int, block: int) -> int:
    """Slots a cache needs for utterances of up to `max_len` tokens: whole blocks, and one scratch
    block in front.
    """
    return (-(-max_len // block) + 1) * block


def cached_block_mask(
    last_block_B: jax.Array, query_blocks: int, block: int, slots: int
) -> jax.Array:
    """bool [B, T, S], T = query_blocks * K: the mask of one forward over the cache whose last query
    block is `last_block_B`.

    Queries see every committed block, the blocks before theirs in this forward, and their own
    block. Scratch queries (block -1) see only scratch, so that no softmax is empty; real queries
    never see scratch. Slots after the queries hold old or no content and are never seen.
    """
    query_T = jnp.arange(query_blocks * block) // block - (query_blocks - 1)
    query_BT = last_block_B[:, None] + query_T[None, :]
    key_S = jnp.arange(slots) // block - 1
    mask = key_S[None, None, :] <= query_BT[:, :, None]
    real = (key_S[None, None, :] >= 0) | (query_BT[:, :, None] < 0)
    return mask & real
