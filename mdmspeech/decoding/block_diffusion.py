"""Block diffusion decoding: append a block of masks, unmask it in S forwards, commit it, next
block.

Source: docs/method.md, "Block diffusion decoding" and "Fused commit".

The K/V of a finished block must come from a clean pass, one that saw all its tokens. That pass
rides in the first forward of the next block, [clean block b-1 ; masked block b] under the
block-causal mask, so S steps cost S forwards. Block-causality makes the K/V so written exact: they
are those of one forward over the whole clean sequence.

Rows are independent: own steps, temperature, seed, lengths, even own block number. Nothing a row
computes depends on its neighbours. Works inside jit (close over the params, make `options` static);
no loop over rows or tokens outside XLA.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mdmspeech.decoding.sampling import allowed_ids, sample, step_keys, without_filling
from mdmspeech.decoding.state import (
    DecodedTokens,
    DecodingConfig,
    DecodingResult,
    DecodingState,
    ModelFn,
    known_end,
)
from mdmspeech.decoding.stopping import close_block, may_end
from mdmspeech.diffusion import unmasking
from mdmspeech.diffusion.layout import cached_block_mask
from mdmspeech.errors import UserError


class _Canvas(NamedTuple):
    """The block being unmasked."""

    ids_BK: jax.Array
    masked_BK: jax.Array
    step_BK: jax.Array
    confidence_BK: jax.Array


def decode_block(
    step: ModelFn, state: DecodingState, cond_BKD: jax.Array, options: DecodingConfig
) -> tuple[DecodingState, DecodedTokens]:
    """Decodes one block of every running row: block `state.block_B[b]` of row b, whose conditions
    are `cond_BKD`.

    Rows that are done cost their share of the forward and change nothing. Returns the state before
    the next block, and this block's tokens.
    """
    block = options.block
    # a row that is done stays inside the cache
    block_B = jnp.minimum(state.block_B, state.max_blocks - 1)
    start_B = block_B * block
    position_BK = start_B[:, None] + jnp.arange(block, dtype=jnp.int32)[None, :]
    inside_BK = position_BK < known_end(state.request)[:, None]
    may_end_BK = may_end(state, position_BK)
    last_B = state.pending_ids_BK[:, -1]  # the token before this block
    slots = state.slots(block)

    def forward(cache, before_B, ids_BT, cond_BTD, positions_BT, last_block_B, num_logits):
        blocks = ids_BT.shape[1] // block
        if options.label_shift:
            ids_BT = jnp.concatenate([before_B[:, None], ids_BT[:, :-1]], axis=1)
        mask_BTS = cached_block_mask(last_block_B, blocks, block, slots)
        # slot = position + block: the scratch block comes first
        write_at_B = (last_block_B - blocks + 2) * block
        return step(cache, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits)

    def update(canvas: _Canvas, logits_BKV: jax.Array, index: jax.Array) -> _Canvas:
        logits_BKV = without_filling(logits_BKV.astype(jnp.float32), options.vocab_size)
        allowed_BKV = allowed_ids(logits_BKV.shape[-1], options.codes, options.eos, may_end_BK)
        key_B = step_keys(state.request.key_B, block_B, index)
        value_BK = sample(
            logits_BKV,
            key_B,
            state.request.temperature_B,
            options.top_k,
            options.top_p,
            allowed_BKV,
            options.vocab_size,
        )
        chosen_BK = _choose(
            canvas.masked_BK, logits_BKV, allowed_BKV, state.request.steps_B - index, options
        )
        best_BK = jnp.exp(unmasking.max_probability(logits_BKV, allowed_BKV))
        return _Canvas(
            ids_BK=jnp.where(chosen_BK, value_BK, canvas.ids_BK),
            masked_BK=canvas.masked_BK & ~chosen_BK,
            step_BK=jnp.where(chosen_BK, index, canvas.step_BK),
            confidence_BK=jnp.where(chosen_BK, best_BK, canvas.confidence_BK),
        )

    def first_forward(canvas: _Canvas):
        if not options.fused:
            return forward(
                state.cache, last_B, canvas.ids_BK, cond_BKD, position_BK, block_B, block
            )
        return forward(
            state.cache,
            state.before_B,
            jnp.concatenate([state.pending_ids_BK, canvas.ids_BK], axis=1),
            jnp.concatenate(
                [state.pending_cond_BKD, cond_BKD.astype(state.pending_cond_BKD.dtype)], axis=1
            ),
            jnp.concatenate([jnp.maximum(position_BK - block, 0), position_BK], axis=1),
            block_B,
            block,
        )

    def next_forward(carry):
        canvas, cache, index = carry
        logits_BKV, cache = forward(
            cache, last_B, canvas.ids_BK, cond_BKD, position_BK, block_B, block
        )
        return update(canvas, logits_BKV, index), cache, index + 1

    masked_BK = inside_BK & ~state.done_B[:, None]
    canvas = _Canvas(
        ids_BK=jnp.where(inside_BK, options.mask, options.eos).astype(jnp.int32),
        masked_BK=masked_BK,
        step_BK=jnp.full(masked_BK.shape, -1, jnp.int32),
        confidence_BK=jnp.zeros(masked_BK.shape, jnp.float32),
    )
    logits_BKV, cache = first_forward(canvas)
    carry = (update(canvas, logits_BKV, jnp.int32(0)), cache, jnp.int32(1))
    # Each step unmasks at least one token of every unfinished row,
    # so this ends after at most max(S) forwards.
    canvas, cache, forwards = jax.lax.while_loop(
        lambda carry: jnp.any(carry[0].masked_BK), next_forward, carry
    )
    if not options.fused:
        _, cache = forward(cache, last_B, canvas.ids_BK, cond_BKD, position_BK, block_B, 0)
        forwards = forwards + 1

    running_B = ~state.done_B
    state = dataclasses.replace(
        state,
        cache=cache,
        forwards=state.forwards + forwards,
        before_B=jnp.where(running_B, last_B, state.before_B),
        pending_ids_BK=jnp.where(running_B[:, None], canvas.ids_BK, state.pending_ids_BK),
        pending_cond_BKD=jnp.where(
            running_B[:, None, None],
            cond_BKD.astype(state.pending_cond_BKD.dtype),
            state.pending_cond_BKD,
        ),
    )
    return close_block(state, canvas.ids_BK, canvas.step_BK, canvas.confidence_BK, options)


def decode(
    step: ModelFn, state: DecodingState, cond_BLD: jax.Array, options: DecodingConfig
) -> DecodingResult:
    """Decodes whole utterances: blocks until every row is done. L must be a multiple of the block
    size; it limits the length.

    `cond_BLD[b, l]` is the condition of position l of row b, counted from the start of the
    utterance.
    """
    return run_blocks(functools.partial(decode_block, step), state, cond_BLD, options)


def run_blocks(
    block_fn: Callable[..., tuple[DecodingState, DecodedTokens]],
    state: DecodingState,
    cond_BLD: jax.Array,
    options: DecodingConfig,
) -> DecodingResult:
    """The loop over blocks that both decoders share; `block_fn(state, cond_BKD, options=options)`
    decodes one block of each row.
    """
    batch, length, _ = cond_BLD.shape
    if length % options.block:
        raise UserError(
            f"conditions for {length} tokens: pad them to a multiple of the block "
            f"size {options.block}"
        )
    state = dataclasses.replace(state, budget_B=jnp.minimum(state.budget_B, length))
    tokens = DecodedTokens(
        ids_BL=jnp.full((batch, length), options.pad, jnp.int32),
        count_B=jnp.zeros((batch,), jnp.int32),
        step_BL=jnp.full((batch, length), -1, jnp.int32),
        confidence_BL=jnp.zeros((batch, length), jnp.float32),
    )

    def one_block(carry):
        state, tokens = carry
        start_B = state.block_B * options.block
        running_B = ~state.done_B
        cond_BKD = jax.vmap(lambda row, at: jax.lax.dynamic_slice_in_dim(row, at, options.block))(
            cond_BLD, start_B
        )
        state, new = block_fn(state, cond_BKD, options=options)
        tokens = DecodedTokens(
            ids_BL=put(tokens.ids_BL, new.ids_BL, start_B, running_B),
            count_B=tokens.count_B + new.count_B,
            step_BL=put(tokens.step_BL, new.step_BL, start_B, running_B),
            confidence_BL=put(tokens.confidence_BL, new.confidence_BL, start_B, running_B),
        )
        return state, tokens

    state, tokens = jax.lax.while_loop(
        lambda carry: ~jnp.all(carry[0].done_B), one_block, (state, tokens)
    )
    return DecodingResult(
        ids_BL=tokens.ids_BL,
        count_B=tokens.count_B,
        step_BL=tokens.step_BL,
        confidence_BL=tokens.confidence_BL,
        reason_B=state.reason_B,
        forwards=state.forwards,
    )


def _choose(masked_BK, logits_BKV, allowed_BKV, steps_left_B, options: DecodingConfig) -> jax.Array:
    """bool [B, K]: the masked positions to unmask now, by the score and count rules of the options."""
    score_BK = unmasking.score_rule(options.score)(logits_BKV, allowed_BKV)
    count_B = unmasking.num_to_unmask(jnp.sum(masked_BK, axis=-1), steps_left_B)
    if options.count == "threshold":
        count_B = jnp.maximum(
            count_B, unmasking.threshold(score_BK, masked_BK, math.log(options.threshold))
        )
    elif options.count == "entropy_bound":
        entropy_BK = -unmasking.entropy(logits_BKV, allowed_BKV)
        count_B = jnp.maximum(
            count_B, unmasking.entropy_bound(entropy_BK, score_BK, masked_BK, options.entropy_bound)
        )
    return unmasking.select(score_BK, masked_BK, count_B)


def put(whole_BL: jax.Array, part_BK: jax.Array, at_B: jax.Array, where_B: jax.Array) -> jax.Array:
    """`whole_BL` with `part_BK` at offset `at_B` of each row where `where_B`."""

    def row(whole, part, at, put):
        old = jax.lax.dynamic_slice_in_dim(whole, at, part.shape[0])
        return jax.lax.dynamic_update_slice_in_dim(whole, jnp.where(put, part, old), at, axis=0)

    return jax.vmap(row)(whole_BL, part_BK, at_B, where_B)
