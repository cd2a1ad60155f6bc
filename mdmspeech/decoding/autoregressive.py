"""Next-token decoding (the NTP baseline) with the block decoder's interface, stop rules and result.

Source: docs/method.md, "Autoregressive baselines".

Same `ModelFn`, `DecodingConfig`, `SamplingParams`, `DecodingState`, `DecodedTokens`: the token at position p comes from a forward of one token, the one before it
(bos at position 0), with the condition of p and a causal mask; slot = position here, no scratch block is needed. A call of
`decode_block` brings K tokens, so a streaming session drives either decoder alike. `steps_B` and the reveal rules play no part.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mdmspeech.decoding.block_diffusion import run_blocks
from mdmspeech.decoding.sampling import allowed_ids, sample, step_keys
from mdmspeech.decoding.state import DecodedTokens, DecodingConfig, DecodingResult, DecodingState, ModelFn, known_end
from mdmspeech.decoding.stopping import close_block, may_end


def decode_block(step: ModelFn, state: DecodingState, cond_BKD: jax.Array, options: DecodingConfig) -> tuple[DecodingState, DecodedTokens]:
    """Decodes the next K tokens of every running row, one forward a token; stops early when no row can need another one.

    `step_BL` of the result is the offset in the block: one token a step. The random key of a token is
    fold_in(fold_in(request key, block), offset).
    """
    block = options.block
    block_B = jnp.minimum(state.block_B, state.max_blocks - 1)
    start_B = block_B * block
    limit_B = jnp.minimum(known_end(state.request), state.budget_B)
    limit_B = jnp.where(state.request.max_len_B >= 0, jnp.minimum(limit_B, state.request.max_len_B), limit_B)
    slot_S = jnp.arange(state.slots(block))

    def one_token(carry):
        cache, ids_BK, confidence_BK, previous_B, _, offset = carry
        position_B1 = (start_B + offset)[:, None]
        may_end_B1 = may_end(state, position_B1)
        logits_B1V, cache = step(
            cache,
            previous_B[:, None],
            jax.lax.dynamic_slice_in_dim(cond_BKD, offset, 1, axis=1),
            position_B1,
            slot_S[None, None, :] <= position_B1[:, :, None],
            position_B1[:, 0],
            1,
        )
        logits_B1V = logits_B1V.astype(jnp.float32)
        allowed_B1V = allowed_ids(logits_B1V.shape[-1], options.codes, options.eos, options.banned, may_end_B1)
        key_B = step_keys(state.request.key_B, block_B, offset)
        id_B1 = sample(key_B, logits_B1V, state.request.temperature_B, allowed_B1V, options.top_k, options.top_p)
        probability_B1V = jax.nn.softmax(logits_B1V, axis=-1)
        best_B1 = jnp.take_along_axis(probability_B1V, id_B1[:, :, None], axis=-1)[:, :, 0]
        ids_BK = jax.lax.dynamic_update_slice_in_dim(ids_BK, id_B1, offset, axis=1)
        confidence_BK = jax.lax.dynamic_update_slice_in_dim(confidence_BK, best_B1, offset, axis=1)
        ended_B = carry[4] | (id_B1[:, 0] == options.eos) | (position_B1[:, 0] + 1 >= limit_B)
        return cache, ids_BK, confidence_BK, id_B1[:, 0], ended_B, offset + 1

    batch = state.done_B.shape[0]
    carry = (
        state.cache,
        jnp.full((batch, block), options.pad, jnp.int32),
        jnp.zeros((batch, block), jnp.float32),
        state.pending_ids_BK[:, -1],
        state.done_B,
        jnp.int32(0),
    )
    cache, ids_BK, confidence_BK, _, _, forwards = jax.lax.while_loop(
        lambda carry: (carry[5] < block) & ~jnp.all(carry[4]), one_token, carry
    )
    state = dataclasses.replace(
        state,
        cache=cache,
        forwards=state.forwards + forwards,
        pending_ids_BK=jnp.where(state.done_B[:, None], state.pending_ids_BK, ids_BK),
    )
    offset_BK = jnp.broadcast_to(jnp.arange(block, dtype=jnp.int32)[None, :], ids_BK.shape)
    return close_block(state, ids_BK, offset_BK, confidence_BK, options)


def decode(step: ModelFn, state: DecodingState, cond_BLD: jax.Array, options: DecodingConfig) -> DecodingResult:
    """Decodes whole utterances, as `block_diffusion.decode` does: L a multiple of the block size, all rows until they are done."""
    return run_blocks(functools.partial(decode_block, step), state, cond_BLD, options)
