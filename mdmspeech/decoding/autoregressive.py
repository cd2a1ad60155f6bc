"""Autoregressive decoding: the loop that writes one token after another, and the next-token Talker
on top of it.

Source of the latter: docs/method.md, "Autoregressive baselines".

`generate` is the loop of everything here that writes token by token: a Thinker's answer
(models/generation.py), a transcription (models/seq2seq_adaptor.py), speech of the NTP baseline
(`decode_block`). Each brings a function that draws the next token. (VocalNet's talker has a loop of
its own, models/vocalnet_decoding.py: it draws several tokens a cycle, each by another stage, from
rows that stand at different places.)

`decode_block` and `decode` have the block decoder's interface, stop rules and result, so that a
streaming session drives either decoder alike. The token at position p comes from a forward of one
token, the one before it (bos at position 0), with the condition of p and a causal mask; slot =
position here, no scratch block is needed. `steps_B` and the rules of unmasking play no part.

B batch (rows), N tokens at most, K block size, L length.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mdmspeech.decoding.block_diffusion import run_blocks
from mdmspeech.decoding.sampling import (
    allowed_ids,
    repetition_aware_sample,
    sample,
    step_keys,
    without_filling,
)
from mdmspeech.decoding.state import (
    DecodedTokens,
    DecodingConfig,
    DecodingResult,
    DecodingState,
    ModelFn,
    most_tokens,
)
from mdmspeech.decoding.stopping import close_block, may_end


class NextTokenFn(Protocol):
    """A model, as the autoregressive loop sees it: it draws one token of every row, params closed
    over. A pure function.
    """

    def __call__(
        self, model_state: Any, index: jax.Array, running_B: jax.Array, /
    ) -> tuple[jax.Array, Any, Any]:
        """Draws token number `index` (int32 scalar, from 0) of every row.

        Rows where `running_B` is False have ended: what comes back for them is dropped, and they
        may not disturb the others.

        Returns:
          (ids int32 [B]; what is to be kept beside them, a pytree of [B, ...]; the new model
          state).
        """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generated:
    """What `generate` brought."""

    ids_BN: jax.Array  # int32: tokens, the stop token included, then `fill`
    kept: Any  # of each token, [B, N, ...]; as it was given where a row has ended
    count_B: jax.Array  # int32: tokens, the stop token included
    stopped_B: jax.Array  # bool: by a stop token, not by a limit
    model_state: Any
    forwards: jax.Array  # int32 scalar: how often the next token was drawn


def generate(
    next_token: NextTokenFn,
    model_state: Any,
    *,
    max_new: int,
    stop_ids: Sequence[int],
    limit_B: jax.Array,
    done_B: jax.Array | bool = False,
    fill: int = 0,
    keep: Any = (),
) -> Generated:
    """Draws tokens until every row has drawn one of `stop_ids` or has its limit.

    Args:
      max_new: N, static. limit_B: int32, the most tokens of each row; 0 or less draws none.
      done_B: rows that draw none. fill: id behind a row's end.
      keep: zeros [B, N, ...], a pytree like what `next_token` gives to be kept.
    """
    stop_S = jnp.asarray(list(stop_ids), jnp.int32)
    nothing_B = jnp.zeros(limit_B.shape, bool)

    def unfinished(carry):
        return (carry[1].forwards < max_new) & ~jnp.all(carry[0])

    def one_token(carry):
        done_B, out = carry
        index, running_B = out.forwards, ~done_B
        id_B, kept, model_state = next_token(out.model_state, index, running_B)
        stop_B = running_B & jnp.any(id_B[:, None] == stop_S[None, :], axis=1)
        put = functools.partial(_put, index=index, where_B=running_B)
        out = Generated(
            ids_BN=put(out.ids_BN, id_B),
            kept=jax.tree.map(put, out.kept, kept),
            count_B=out.count_B + running_B,
            stopped_B=out.stopped_B | stop_B,
            model_state=model_state,
            forwards=index + 1,
        )
        return done_B | stop_B | (out.count_B >= limit_B), out

    out = Generated(
        ids_BN=jnp.full((*limit_B.shape, max_new), fill, jnp.int32),
        kept=keep,
        count_B=jnp.zeros(limit_B.shape, jnp.int32),
        stopped_B=nothing_B,
        model_state=model_state,
        forwards=jnp.int32(0),
    )
    if max_new == 0:
        return out
    return jax.lax.while_loop(unfinished, one_token, (nothing_B | done_B | (limit_B <= 0), out))[1]


def decode_block(
    step: ModelFn, state: DecodingState, cond_BKD: jax.Array, options: DecodingConfig
) -> tuple[DecodingState, DecodedTokens]:
    """Decodes the next K tokens of every running row, one forward a token; stops early when no row
    can need another one.

    `step_BL` of the result is the offset in the block: one token a step. The random key of a token
    is fold_in(fold_in(request key, block), offset).
    """
    block = options.block
    block_B = jnp.minimum(state.block_B, state.max_blocks - 1)
    start_B = block_B * block
    slot_S = jnp.arange(state.slots(block))

    def draw(logits_B1V, key_B, allowed_B1V, previous_BK):
        filters: dict[str, Any] = dict(
            top_k=options.top_k, top_p=options.top_p, width=options.vocab_size
        )
        temperature_B = state.request.temperature_B
        if not options.repetition_window:
            return sample(logits_B1V, key_B, temperature_B, allowed=allowed_B1V, **filters)
        return repetition_aware_sample(
            logits_B1V,
            key_B,
            temperature_B,
            previous_BK[:, -options.repetition_window :],
            share=options.repetition_share,
            allowed_B1V=allowed_B1V,
            **filters,
        )

    def next_code(model_state, offset, _):
        cache, previous_BK = model_state
        position_B1 = (start_B + offset)[:, None]
        cond_B1D = jax.lax.dynamic_slice_in_dim(cond_BKD, offset, 1, axis=1)
        mask_B1S = slot_S[None, None, :] <= position_B1[:, :, None]
        logits_B1V, cache = step(
            cache, previous_BK[:, -1:], cond_B1D, position_B1, mask_B1S, position_B1[:, 0], 1
        )
        logits_B1V = without_filling(logits_B1V.astype(jnp.float32), options.vocab_size)
        allowed_B1V = allowed_ids(
            logits_B1V.shape[-1], options.codes, options.eos, may_end(state, position_B1)
        )
        key_B = step_keys(state.request.key_B, block_B, offset)
        id_B1 = draw(logits_B1V, key_B, allowed_B1V, previous_BK)
        probability_B1V = jax.nn.softmax(logits_B1V, axis=-1)
        return (
            id_B1[:, 0],
            jnp.take_along_axis(probability_B1V, id_B1[:, :, None], axis=-1)[:, 0, 0],
            (cache, jnp.concatenate([previous_BK[:, 1:], id_B1], axis=1)),
        )

    out = generate(
        next_code,
        (state.cache, state.pending_ids_BK),
        max_new=block,
        stop_ids=(options.eos,),
        limit_B=most_tokens(state) - start_B,
        done_B=state.done_B,
        fill=options.pad,
        keep=jnp.zeros(cond_BKD.shape[:2], jnp.float32),
    )
    state = dataclasses.replace(
        state,
        cache=out.model_state[0],
        forwards=state.forwards + out.forwards,
        pending_ids_BK=jnp.where(state.done_B[:, None], state.pending_ids_BK, out.ids_BN),
    )
    offset_BK = jnp.broadcast_to(jnp.arange(block, dtype=jnp.int32)[None, :], out.ids_BN.shape)
    return close_block(state, out.ids_BN, offset_BK, out.kept, options)


def decode(
    step: ModelFn, state: DecodingState, cond_BLD: jax.Array, options: DecodingConfig
) -> DecodingResult:
    """Decodes whole utterances, as `block_diffusion.decode` does: L a multiple of the block size,
    all rows until they are done.
    """
    return run_blocks(functools.partial(decode_block, step), state, cond_BLD, options)


def _put(
    whole_BN: jax.Array, value_B: jax.Array, index: jax.Array, where_B: jax.Array
) -> jax.Array:
    """Writes column `index` of the rows `where_B`; the others keep theirs."""
    old_B = jax.lax.dynamic_index_in_dim(whole_BN, index, axis=1, keepdims=False)
    where = where_B.reshape(-1, *[1] * (old_B.ndim - 1))
    return jax.lax.dynamic_update_index_in_dim(
        whole_BN, jnp.where(where, value_B, old_B).astype(whole_BN.dtype), index, axis=1
    )
