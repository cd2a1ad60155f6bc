"""What the two halves of CosyVoice2's flow share: chunk masks, and layers that can be told what
came before their input.

Streaming needs every layer to give, for a new block, what it would have given inside the whole
sequence. For that a causal convolution keeps the last inputs (`with_past`) and an attention keeps
keys and values (`with_history`); without them both start from nothing.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError
from mdmspeech.nn.attention import KVCache


@dataclasses.dataclass(frozen=True)
class Chunks:
    """A block-causal mask: a query sees all of its own chunk, none after it, and `left` chunks
    before it.

    Attributes:
      size: tokens of a chunk (two frames each); at least the look-ahead of the encoder, 3.
        CosyVoice2 is published with 25.
      left: chunks before its own that a query sees; None: all of them, as in the reference. A bound
        makes the state of a stream bounded.
      follow_speech: where chunks end. False: every `size` tokens counted from the first token of
        the prompt, as in the reference. True: so that the chunks end 3 tokens (the look-ahead)
        before blocks of `size` speech tokens do: a stream that gets a block is late by 3 tokens
        only.
    """

    size: int = 25
    left: int | None = None
    follow_speech: bool = False

    def __post_init__(self):
        if self.size < 1 or (self.left is not None and self.left < 0):
            raise UserError(
                f"chunks of {self.size} tokens with {self.left} to the left cannot "
                "be; use a size from 1 and a left from 0"
            )

    def shift(self, prompt_B: jax.Array, lookahead: int) -> jax.Array:
        """By how many tokens the first chunk of each row is cut at its start, int32 [B]; prompt_B:
        tokens of the prompts.
        """
        return (
            (lookahead - prompt_B) % self.size if self.follow_speech else jnp.zeros_like(prompt_B)
        )


def chunk_mask(
    valid_BT: jax.Array,
    chunks: Chunks | None = None,
    shift_B: jax.Array | None = None,
    rate: int = 1,
) -> jax.Array:
    """Who attends to whom, bool [B, T, T]: valid keys only, and only those that `chunks` (None: no
    limit) lets a query see.

    Args:
      shift_B: from `Chunks.shift`; None: zeros.
      rate: positions a token (1, or 2 for frames).
    """
    batch, length = valid_BT.shape
    mask_BTS = jnp.broadcast_to(valid_BT[:, None, :], (batch, length, length))
    if chunks is None:
        return mask_BTS
    shift_B = jnp.zeros(batch, jnp.int32) if shift_B is None else shift_B
    chunk_BT = (jnp.arange(length)[None, :] + rate * shift_B[:, None]) // (rate * chunks.size)
    back_BTS = chunk_BT[:, :, None] - chunk_BT[:, None, :]
    seen_BTS = back_BTS >= 0
    if chunks.left is not None:
        seen_BTS &= back_BTS <= chunks.left
    return mask_BTS & seen_BTS


def with_past(
    x_BTC: jax.Array, past_BKC: jax.Array | None, count: int
) -> tuple[jax.Array, jax.Array]:
    """The input of a causal convolution of width count + 1: x behind its `count` predecessors
    (None: zeros) [B, K+T, C]; and the next past.
    """
    if past_BKC is None:
        past_BKC = jnp.zeros((x_BTC.shape[0], count, x_BTC.shape[2]), x_BTC.dtype)
    joined = jnp.concatenate([past_BKC, x_BTC], axis=1)
    return joined, joined[:, x_BTC.shape[1] :]


def with_history(
    k_BTHD: jax.Array, v_BTHD: jax.Array, cache: KVCache | None
) -> tuple[jax.Array, jax.Array, KVCache | None]:
    """Keys and values behind those of the last S positions [B, S+T, H, D], and the next cache,
    again of S positions. No cache: as they are.
    """
    if cache is None:
        return k_BTHD, v_BTHD, None
    k_BSHD = jnp.concatenate([cache.k_BSKD, k_BTHD], axis=1)
    v_BSHD = jnp.concatenate([cache.v_BSKD, v_BTHD], axis=1)
    length = k_BTHD.shape[1]
    return k_BSHD, v_BSHD, KVCache(k_BSHD[:, length:], v_BSHD[:, length:])
