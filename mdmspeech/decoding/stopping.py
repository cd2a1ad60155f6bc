"""When a row ends: one set of rules for both decoders, applied to each finished block.

Source: docs/method.md, "Stop rules".

A rule cuts inside the current block or not at all, never in an earlier one: what a streaming
session has played stays true. EOS and the silence guard may only end a row whose text is used up
(`min_len_B`); with a known length neither may.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mdmspeech.decoding.state import (
    DecodedTokens,
    DecodingConfig,
    DecodingState,
    FinishReason,
    known_end,
)

_NOT_HERE = 2**30


def may_end(state: DecodingState, positions_BT: jax.Array) -> jax.Array:
    """bool [B, T]: positions where EOS may stand and the silence guard may act."""
    open_B = state.request.target_len_B < 0
    return (positions_BT >= state.request.min_len_B[:, None]) & open_B[:, None]


def close_block(
    state: DecodingState,
    ids_BK: jax.Array,
    step_BK: jax.Array,
    confidence_BK: jax.Array,
    options: DecodingConfig,
) -> tuple[DecodingState, DecodedTokens]:
    """Applies the stop rules to one decoded block; advances the rows that were running. Rows that
    were done stay as they are.

    `ids_BK`: the block's tokens, none masked. The rules and where each cuts (offset in the block,
    tokens kept before it): LENGTH at the known length; EOS before the first end token; SILENCE
    after the token that completes the run; TEXT at the text's allowance; BUDGET at the hard limit.
    The earliest cut wins, then the order of `FinishReason`.
    """
    block = options.block
    offset_K = jnp.arange(block, dtype=jnp.int32)
    start_B = state.block_B * block
    may_end_BK = may_end(state, start_B[:, None] + offset_K[None, :])
    silent_BK = _is_silence(ids_BK, options)
    run_BK = _runs(silent_BK, state.silence_B)
    cuts = {
        FinishReason.LENGTH: _limit(known_end(state.request) - start_B, block),
        FinishReason.EOS: _first((ids_BK == options.eos) & may_end_BK),
        FinishReason.SILENCE: _silence_cut(run_BK, may_end_BK, options),
        FinishReason.TEXT: _limit(
            jnp.where(state.request.max_len_B >= 0, state.request.max_len_B - start_B, _NOT_HERE),
            block,
        ),
        FinishReason.BUDGET: _limit(state.budget_B - start_B, block),
    }
    cut_RB = jnp.stack(
        [cuts[reason] for reason in FinishReason if reason is not FinishReason.RUNNING]
    )
    cut_B = jnp.min(cut_RB, axis=0)
    ends_B = cut_B < _NOT_HERE
    reason_B = jnp.where(
        ends_B, jnp.argmin(cut_RB, axis=0).astype(jnp.int32) + 1, FinishReason.RUNNING
    )

    running_B = ~state.done_B
    count_B = jnp.where(running_B, jnp.minimum(cut_B, block), 0)
    kept_BK = offset_K[None, :] < count_B[:, None]
    tokens = DecodedTokens(
        ids_BL=jnp.where(kept_BK, ids_BK, options.pad),
        count_B=count_B,
        step_BL=jnp.where(kept_BK, step_BK, -1),
        confidence_BL=jnp.where(kept_BK, confidence_BK, 0.0),
    )
    state = dataclasses.replace(
        state,
        done_B=state.done_B | ends_B,
        reason_B=jnp.where(running_B, reason_B, state.reason_B),
        length_B=state.length_B + count_B,
        silence_B=jnp.where(running_B, run_BK[:, -1], state.silence_B),
        block_B=state.block_B + (running_B & ~ends_B),
    )
    return state, tokens


def _is_silence(ids_BK: jax.Array, options: DecodingConfig) -> jax.Array:
    if not options.silence_ids:
        return jnp.zeros(ids_BK.shape, bool)
    return jnp.any(ids_BK[:, :, None] == jnp.array(options.silence_ids)[None, None, :], axis=-1)


def _runs(silent_BK: jax.Array, carried_B: jax.Array) -> jax.Array:
    """int32 [B, K]: length of the run of silence that ends at each token, with `carried_B` silent
    tokens before the block.
    """
    offset_1K = jnp.arange(silent_BK.shape[1], dtype=jnp.int32)[None, :]
    last_sound_BK = jax.lax.cummax(jnp.where(silent_BK, -1, offset_1K), axis=1)
    return offset_1K - last_sound_BK + jnp.where(last_sound_BK < 0, carried_B[:, None], 0)


def _silence_cut(run_BK: jax.Array, may_end_BK: jax.Array, options: DecodingConfig) -> jax.Array:
    if not options.max_silence:
        return jnp.full(run_BK.shape[:1], _NOT_HERE, jnp.int32)
    return 1 + _first((run_BK >= options.max_silence) & may_end_BK)


def _first(hit_BK: jax.Array) -> jax.Array:
    """int32 [B]: offset of the first hit, _NOT_HERE without one."""
    return jnp.where(jnp.any(hit_BK, axis=1), jnp.argmax(hit_BK, axis=1), _NOT_HERE).astype(
        jnp.int32
    )


def _limit(left_B: jax.Array, block: int) -> jax.Array:
    """int32 [B]: cut of a limit with `left_B` tokens left: inside this block or at its very end,
    else _NOT_HERE.
    """
    return jnp.where(left_B <= block, jnp.maximum(left_B, 0), _NOT_HERE).astype(jnp.int32)
