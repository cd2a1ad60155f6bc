"""Multi-token decoding: a few tokens a forward, of a Talker with modules of multi-token prediction.

Source: docs/method.md, "Autoregressive baselines".

`decode_block` and `decode` have the block decoder's interface, stop rules and result. A forward
reads the last T = `mtp_emit` tokens; of the state at the last of them head 0 tells the next token
and modules 1 .. T - 1 one more each, so a block of K takes ceil(K / T) forwards. No token of a later
block is written: in streaming its condition is not known yet.

With `mtp_verify` what the modules tell is a draft. The next forward reads it, head 0 tells what it
would have written at each of these places, and as many tokens stand as agree, with one more: the
first that does not, or the next. A token's random key is that of its place, the same for module and
head 0, so what is written is what next-token decoding writes, at every temperature (Daliri et al.,
arXiv 2408.07978: a coupling by shared Gumbel noise needs no rejection step).

Slots are those of the block decoder: position + K, behind a scratch block. Tokens in front of the
utterance are fed in its first forward and land there, and so do those of a row that rests while
others of its batch go on. A forward reads again tokens that an earlier one has read, in the first of
a block: their modules lacked the conditions of this block.

B batch (rows), K block size, T tokens of a forward and heads, N tokens at hand, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mdmspeech.decoding.block_diffusion import run_blocks
from mdmspeech.decoding.sampling import allowed_ids, sample, step_keys, without_filling
from mdmspeech.decoding.state import (
    DecodedTokens,
    DecodingConfig,
    DecodingResult,
    DecodingState,
    MultiTokenFn,
    most_tokens,
)
from mdmspeech.decoding.stopping import close_block, may_end
from mdmspeech.errors import UserError


class _Written(NamedTuple):
    """The block being written. Offsets count from its start; `ids_BL` has the block before in front
    (L = 2 K), and behind `count_B` drafts or anything.
    """

    cache: Any
    ids_BL: jax.Array
    step_BK: jax.Array
    confidence_BK: jax.Array
    count_B: jax.Array  # tokens that stand
    running_B: jax.Array  # rows that need another one
    forwards: jax.Array


class _Drawn(NamedTuple):
    """Tokens of N places in a row, from logits."""

    ids_BN: jax.Array
    confidence_BN: jax.Array


def decode_block(
    step: MultiTokenFn, state: DecodingState, cond_BKD: jax.Array, options: DecodingConfig
) -> tuple[DecodingState, DecodedTokens]:
    """Decodes the next K tokens of every running row; stops early when no row can need another
    forward.

    `step_BL` of the result is the forward of the block that wrote the token. The random key of a
    token is fold_in(fold_in(request key, block), offset), as in next-token decoding.

    Raises:
      UserError: `mtp_emit` is more than a block holds.
    """
    block, width = options.block, options.mtp_emit
    if width > block:
        raise UserError(
            f"mtp_emit={width}: a forward writes at most a block, here {block} tokens; give "
            f"1 to {block}"
        )
    # a row that is done stays inside the cache
    block_B = jnp.minimum(state.block_B, state.max_blocks - 1)
    start_B = block_B * block
    room_B = jnp.clip(most_tokens(state) - start_B, 0, block)
    cond_BKD = cond_BKD.astype(state.pending_cond_BKD.dtype)
    cond_BCD = jnp.concatenate([state.pending_cond_BKD, cond_BKD], axis=1)
    cond_BCD = jnp.pad(cond_BCD, ((0, 0), (0, width - 1), (0, 0)))
    slot_S = jnp.arange(state.slots(block))[None, None, :]

    def forward(written: _Written, first_B: jax.Array):
        """Reads the tokens of offsets `first_B` - 1 and on, at the places behind them."""
        at_BT = _from(start_B + first_B, width)
        seen_BTS = slot_S <= (at_BT + block)[:, :, None]
        mask_BTS = seen_BTS & ((slot_S >= block) | (at_BT < 0)[:, :, None])
        return step(
            written.cache,
            _window(written.ids_BL, block + first_B - 1, width),
            _window(cond_BCD, block + first_B, 2 * width - 1),
            jnp.maximum(at_BT, 0),
            mask_BTS,
            jnp.where(written.running_B, start_B + first_B + block, 0),
            width,
        )

    def draw(states_BND: jax.Array, place_BN: jax.Array) -> _Drawn:
        """What is written at these offsets."""
        logits_BNV = without_filling(
            step.logits(states_BND).astype(jnp.float32), options.vocab_size
        )
        batch, count, vocabulary = logits_BNV.shape
        allowed_BNV = allowed_ids(
            vocabulary, options.codes, options.eos, may_end(state, start_B[:, None] + place_BN)
        )
        # each token a row of its own, with the key that next-token decoding gives it
        each = lambda x_BN: x_BN.reshape(batch * count, *x_BN.shape[2:])
        of_row = lambda x_B: jnp.repeat(x_B, count, axis=0)
        ids_BN = sample(
            each(logits_BNV)[:, None],
            step_keys(of_row(state.request.key_B), of_row(block_B), each(place_BN)),
            of_row(state.request.temperature_B),
            options.top_k,
            options.top_p,
            each(allowed_BNV)[:, None],
            options.vocab_size,
        ).reshape(batch, count)
        probability_BNV = jax.nn.softmax(logits_BNV, axis=-1)
        return _Drawn(ids_BN, _pick(probability_BNV, ids_BN))

    def several(written: _Written) -> _Written:
        """Every head's token stands."""
        first_B = jnp.minimum(written.count_B, block - 1) - width + 1
        states, cache = forward(written, first_B)
        drawn = draw(jnp.stack([x[:, -1] for x in states], axis=1), _from(written.count_B, width))
        return _stand(written._replace(cache=cache), drawn, width, room_B, options)

    def verified(written: _Written) -> _Written:
        """Head 0's tokens stand as far as the drafts before them were right."""
        # the first forward has no draft to read, and modules of the block before to complete
        first_B = jnp.where(
            written.forwards == 0, 1 - width, jnp.minimum(written.count_B, block - width)
        )
        states, cache = forward(written, first_B)
        told = draw(states[0], _from(first_B, width))
        ahead_BN = _from(written.count_B - first_B, width)  # places of the forward
        told = _Drawn(*(_take(x, jnp.minimum(ahead_BN, width - 1)) for x in told))
        drafts_BN = _take(
            written.ids_BL, jnp.minimum(_from(block + written.count_B, width), 2 * block - 1)
        )
        right_BN = (drafts_BN == told.ids_BN) & (ahead_BN < width - 1)
        agreed_B = jnp.sum(jnp.cumprod(right_BN, axis=1), axis=1)
        written = _stand(written._replace(cache=cache), told, 1 + agreed_B, room_B, options)
        if width == 1:
            return written
        last_B = jnp.minimum(written.count_B - 1 - first_B, width - 1)
        drafts = draw(
            jnp.stack([_take(x, last_B[:, None])[:, 0] for x in states[1:]], axis=1),
            _from(written.count_B, width - 1),
        )
        return written._replace(
            ids_BL=_put(written.ids_BL, drafts.ids_BN, block + written.count_B, width - 1)
        )

    blank_BK = jnp.full(cond_BKD.shape[:2], options.pad, jnp.int32)
    written = _Written(
        cache=state.cache,
        ids_BL=jnp.concatenate([state.pending_ids_BK, blank_BK], axis=1),
        step_BK=jnp.full(blank_BK.shape, -1, jnp.int32),
        confidence_BK=jnp.zeros(blank_BK.shape, jnp.float32),
        count_B=jnp.zeros_like(block_B),
        running_B=~state.done_B & (room_B > 0),
        forwards=jnp.int32(0),
    )
    written = jax.lax.while_loop(
        lambda written: jnp.any(written.running_B),
        verified if options.mtp_verify else several,
        written,
    )
    ids_BK, done_B1 = written.ids_BL[:, block:], state.done_B[:, None]
    state = dataclasses.replace(
        state,
        cache=written.cache,
        forwards=state.forwards + written.forwards,
        pending_ids_BK=jnp.where(done_B1, state.pending_ids_BK, ids_BK),
        pending_cond_BKD=jnp.where(done_B1[:, :, None], state.pending_cond_BKD, cond_BKD),
    )
    return close_block(state, ids_BK, written.step_BK, written.confidence_BK, options)


def decode(
    step: MultiTokenFn, state: DecodingState, cond_BLD: jax.Array, options: DecodingConfig
) -> DecodingResult:
    """Decodes whole utterances, as `block_diffusion.decode` does: L a multiple of the block size,
    all rows until they are done.
    """
    return run_blocks(functools.partial(decode_block, step), state, cond_BLD, options)


def _stand(
    written: _Written,
    drawn: _Drawn,
    most: int | jax.Array,
    room_B: jax.Array,
    options: DecodingConfig,
) -> _Written:
    """The first `most` tokens drawn (an int, or [B]) stand behind `count_B`, as far as there is room.
    (What stands behind an end, `close_block` cuts off.)
    """
    count = drawn.ids_BN.shape[1]
    index_1N = jnp.arange(count)[None, :]
    most_B1 = jnp.minimum(jnp.broadcast_to(most, room_B.shape), room_B - written.count_B)[:, None]
    new_BN = (index_1N < most_B1) & written.running_B[:, None]
    new_B = jnp.sum(new_BN, axis=1)
    ended_B = jnp.any(new_BN & (drawn.ids_BN == options.eos), axis=1)
    put = lambda x_BN, old_BK, shift=0: _put(old_BK, x_BN, shift + written.count_B, new_B)
    count_B = written.count_B + new_B
    return written._replace(
        ids_BL=put(drawn.ids_BN, written.ids_BL, options.block),
        step_BK=put(jnp.full_like(drawn.ids_BN, written.forwards), written.step_BK),
        confidence_BK=put(drawn.confidence_BN, written.confidence_BK),
        count_B=count_B,
        running_B=written.running_B & ~ended_B & (count_B < room_B),
        forwards=written.forwards + 1,
    )


def _from(first_B: jax.Array, count: int) -> jax.Array:
    """int32 [B, N]: `first_B` and the numbers behind it."""
    return first_B[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]


def _window(x_BL: jax.Array, at_B: jax.Array, count: int) -> jax.Array:
    """[B, N, ...]: `count` columns of each row from its `at_B` on."""
    return jax.vmap(lambda row, at: jax.lax.dynamic_slice_in_dim(row, at, count))(x_BL, at_B)


def _take(x_BT: jax.Array, index_BN: jax.Array) -> jax.Array:
    """[B, N, ...]: columns of each row."""
    return jax.vmap(lambda row, index: row[index])(x_BT, index_BN)


def _pick(x_BNV: jax.Array, ids_BN: jax.Array) -> jax.Array:
    """[B, N]: of each place the value of its id."""
    return jnp.take_along_axis(x_BNV, ids_BN[:, :, None], axis=-1)[:, :, 0]


def _put(
    old_BL: jax.Array, new_BN: jax.Array, at_B: jax.Array, count: int | jax.Array
) -> jax.Array:
    """`old_BL` with the first `count` (an int, or [B]) of `new_BN` from `at_B` on; beyond the end
    they are dropped.
    """
    place_BL = jnp.arange(old_BL.shape[1])[None, :] - at_B[:, None]
    inside_BL = (place_BL >= 0) & (place_BL < jnp.broadcast_to(count, at_B.shape)[:, None])
    moved_BL = _take(new_BN, jnp.clip(place_BL, 0, new_BN.shape[1] - 1))
    return jnp.where(inside_BL, moved_BL, old_BL)
