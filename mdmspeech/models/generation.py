"""Autoregressive decoding of a Thinker: one `extend` for prompts, cached prefixes and single tokens, and a jitted loop.

Convention (docs/method.md, "The Thinker"): the state h_i handed on with token y_i is the post-norm state of the position that has
*consumed* y_i, the end token included. All functions are pure; a row gives the same result alone and in any batch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mdmspeech.errors import UserError
from mdmspeech.models.sampling import GREEDY, Sampling, sample, step_keys
from mdmspeech.models.thinker import Thinker, init_cache


@struct.dataclass
class ThinkerState:
    """What has been read so far: cache of S columns, how many columns of each row are filled, logits of the next token."""

    cache: Any
    lengths_B: jax.Array
    logits_BV: jax.Array


@struct.dataclass
class Generation:
    """tokens_BN (0 after a row's end), hidden_BND (zeros after it), lengths_B (the stop token counts), stopped_B, final state."""

    tokens_BN: jax.Array
    hidden_BND: jax.Array
    lengths_B: jax.Array
    stopped_B: jax.Array
    state: ThinkerState


def empty_state(thinker: Thinker, batch: int, cache_length: int, dtype: Any = jnp.float32) -> ThinkerState:
    """A state that has read nothing and has room for `cache_length` positions."""
    config = thinker.config
    cache = init_cache(config, batch, cache_length, dtype)
    return ThinkerState(cache, jnp.zeros(batch, jnp.int32), jnp.zeros((batch, config.vocab_size), jnp.float32))


def fit_state(thinker: Thinker, state: ThinkerState, batch: int, cache_length: int) -> ThinkerState:
    """A one-row prefix state (a system prompt, read once) repeated for `batch` rows, with room for `cache_length` positions.

    Raises:
      UserError: the state has more rows than one, or the new room is smaller.
    """
    rows, have = state.lengths_B.shape[0], columns(state)
    if rows != 1 or cache_length < have:
        raise UserError(f"cannot fit a state of {rows} rows and {have} positions to {batch} rows and {cache_length} positions")
    axis = 1 if thinker.config.scan_layers else 0  # the batch axis of a cache leaf; its columns follow

    def fit(leaf: jax.Array) -> jax.Array:
        widths = [(0, 0)] * leaf.ndim
        widths[axis + 1] = (0, cache_length - have)
        return jnp.repeat(jnp.pad(leaf, widths), batch, axis=axis)

    repeat = partial(jnp.repeat, repeats=batch, axis=0)
    return ThinkerState(jax.tree.map(fit, state.cache), repeat(state.lengths_B), repeat(state.logits_BV))


def extend(thinker: Thinker, params: Any, state: ThinkerState, x_BTD: jax.Array, new_B: jax.Array) -> tuple[jax.Array, ThinkerState]:
    """Reads the first `new_B` of the T input embeddings of each row after what the state has read.

    Args:
      x_BTD: input embeddings, right-padded. new_B: int32, real positions a row (0 leaves the row's state as it was).

    Returns:
      (post-norm hidden states [B, T, D], meaningless at padded positions; the new state).
    """
    length, room = x_BTD.shape[1], columns(state)
    start_B = state.lengths_B
    positions_BT = start_B[:, None] + jnp.arange(length)[None, :]
    columns_S = jnp.arange(room)
    mask_BTS = columns_S[None, None, :] <= positions_BT[:, :, None]  # padded queries come last, so nobody real sees their keys
    hidden_BTD, cache = thinker.apply({"params": params}, x_BTD, positions_BT, mask_BTS, state.cache, start_B, method=Thinker.states)
    last_B1D = jnp.take_along_axis(hidden_BTD, jnp.maximum(new_B - 1, 0)[:, None, None], axis=1)
    logits_BV = thinker.apply({"params": params}, last_B1D, method=Thinker.logits)[:, 0]
    logits_BV = jnp.where((new_B > 0)[:, None], logits_BV, state.logits_BV)
    return hidden_BTD, ThinkerState(cache, start_B + new_B, logits_BV)


def step(
    thinker: Thinker, params: Any, state: ThinkerState, request_keys_B: jax.Array, sampling: Sampling = GREEDY
) -> tuple[jax.Array, jax.Array, ThinkerState]:
    """Draws the next token of every row and reads it: (tokens [B], their states [B, D], new state). For streaming."""
    active_B = jnp.ones(state.lengths_B.shape, bool)
    return _step(thinker, params, state, request_keys_B, sampling, active_B)


def generate(
    thinker: Thinker,
    params: Any,
    state: ThinkerState,
    request_keys_B: jax.Array,
    *,
    stop_ids: Sequence[int],
    max_new: int,
    sampling: Sampling = GREEDY,
) -> Generation:
    """Decodes until every row has drawn one of `stop_ids`, has `max_new` tokens or has filled its cache."""
    batch, room = state.lengths_B.shape[0], columns(state)
    stops = jnp.asarray(list(stop_ids), jnp.int32)

    def unfinished(carry):
        index, done_B = carry[0], carry[1]
        return (index < max_new) & ~done_B.all()

    def body(carry):
        index, done_B, out = carry
        active_B = ~done_B & (out.state.lengths_B < room)
        token_B, hidden_BD, new_state = _step(thinker, params, out.state, request_keys_B, sampling, active_B)
        stop_B = active_B & (token_B[:, None] == stops[None, :]).any(axis=1)
        out = Generation(
            out.tokens_BN.at[:, index].set(jnp.where(active_B, token_B, 0)),
            out.hidden_BND.at[:, index].set(jnp.where(active_B[:, None], hidden_BD, 0)),
            out.lengths_B + active_B,
            out.stopped_B | stop_B,
            new_state,
        )
        return index + 1, ~active_B | stop_B, out

    out = Generation(
        jnp.zeros((batch, max_new), jnp.int32),
        jnp.zeros((batch, max_new, thinker.config.dim), _dtype(params)),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, bool),
        state,
    )
    return jax.lax.while_loop(unfinished, body, (jnp.int32(0), jnp.zeros(batch, bool), out))[2]


def _step(thinker, params, state, request_keys_B, sampling, active_B):
    token_B = sample(state.logits_BV, step_keys(request_keys_B, state.lengths_B), sampling)
    x_B1D = thinker.apply({"params": params}, token_B[:, None], method=Thinker.embed)
    hidden_B1D, state = extend(thinker, params, state, x_B1D, active_B.astype(jnp.int32))
    return token_B, hidden_B1D[:, 0], state


def columns(state: ThinkerState) -> int:
    """Positions that the cache has room for; its leaves end in [S, K, D]."""
    return jax.tree.leaves(state.cache)[0].shape[-3]


def _dtype(params: Any) -> Any:
    return jax.tree.leaves(params)[0].dtype


jit_extend = jax.jit(extend, static_argnums=0)
jit_step = jax.jit(step, static_argnames=("thinker", "sampling"))
jit_generate = jax.jit(generate, static_argnames=("thinker", "stop_ids", "max_new", "sampling"))
