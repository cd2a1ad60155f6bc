"""A Thinker that writes: one `extend` for prompts, cached prefixes and single tokens, `verify` for
drafts, and what `decoding.autoregressive` needs of it.

A Thinker is the module (`models.thinker`) or, to run on one device, `models.prepared_thinker`; each
with its own parameters and caches.

Convention (docs/method.md, "The Thinker"): the state h_i handed on with token y_i is the post-norm
state of the position that has *consumed* y_i, the end token included. All functions are pure; a row
gives the same result alone and in any batch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mdmspeech.decoding import autoregressive
from mdmspeech.decoding.sampling import GREEDY, SamplingConfig, sample, step_keys
from mdmspeech.errors import UserError
from mdmspeech.models.prepared_thinker import PreparedThinker
from mdmspeech.models.thinker import Thinker as Module
from mdmspeech.nn.attention import KVCache
from mdmspeech.nn.feature_major import ColumnCache

Thinker = Module | PreparedThinker
_Cache = KVCache | ColumnCache


@struct.dataclass
class ThinkerState:
    """What has been read so far: cache of S columns, how many columns of each row are filled,
    logits of the next token.
    """

    cache: Any
    lengths_B: jax.Array
    logits_BV: jax.Array


@struct.dataclass
class Generation:
    """tokens_BN (0 after a row's end), hidden_BND (zeros after it), lengths_B (the stop token
    counts), stopped_B, final state.
    """

    tokens_BN: jax.Array
    hidden_BND: jax.Array
    lengths_B: jax.Array
    stopped_B: jax.Array
    state: ThinkerState


def empty_state(
    thinker: Thinker, batch: int, cache_length: int, dtype: Any = jnp.float32
) -> ThinkerState:
    """A state that has read nothing and has room for `cache_length` positions."""
    logits_BV = jnp.zeros((batch, thinker.config.vocab_size), jnp.float32)
    cache = thinker.init_cache(batch, cache_length, dtype)
    return ThinkerState(cache, jnp.zeros(batch, jnp.int32), logits_BV)


def fit_state(state: ThinkerState, batch: int, cache_length: int) -> ThinkerState:
    """A one-row prefix state (a system prompt, read once) repeated for `batch` rows, with room for
    `cache_length` positions.

    Raises:
      UserError: the state has more rows than one, or the new room is smaller.
    """
    rows, have = state.lengths_B.shape[0], columns(state)
    if rows != 1 or cache_length < have:
        raise UserError(
            f"cannot fit a state of {rows} rows and {have} positions to {batch} "
            f"rows and {cache_length} positions"
        )
    repeat = partial(jnp.repeat, repeats=batch, axis=0)
    cache = jax.tree.map(
        lambda layer: layer.fitted(batch, cache_length), state.cache, is_leaf=_is_cache
    )
    return ThinkerState(cache, repeat(state.lengths_B), repeat(state.logits_BV))


def extend(
    thinker: Thinker, params: Any, state: ThinkerState, x_BTD: jax.Array, new_B: jax.Array
) -> tuple[jax.Array, ThinkerState]:
    """Reads the first `new_B` of the T input embeddings of each row after what the state has read.

    Args:
      x_BTD: input embeddings, right-padded. new_B: int32, real positions a row (0 leaves the row's
        state as it was).

    Returns:
      (post-norm hidden states [B, T, D], meaningless at padded positions; the new state).
    """
    hidden_BTD, cache = _states(thinker, params, state, x_BTD)
    logits_BV = next_logits(thinker, params, hidden_BTD, new_B, state.logits_BV)
    return hidden_BTD, ThinkerState(cache, state.lengths_B + new_B, logits_BV)


def _states(thinker: Thinker, params: Any, state: ThinkerState, x_BTD: jax.Array):
    """Post-norm states of inputs [B, T, D] behind what a state has read, and the new cache."""
    start_B = state.lengths_B
    positions_BT, mask_BTS = places(start_B, x_BTD.shape[1], columns(state))
    inputs = (x_BTD, positions_BT, mask_BTS, state.cache, start_B)
    return thinker.apply({"params": params}, *inputs, method=Module.states)


def places(start_B: jax.Array, length: int, room: int) -> tuple[jax.Array, jax.Array]:
    """Of `length` inputs behind what has been read: (positions [B, T], mask [B, T, S] over a cache
    of `room` columns).
    """
    positions_BT = start_B[:, None] + jnp.arange(length)[None, :]
    # padded queries come last, so nobody real sees their keys
    return positions_BT, jnp.arange(room)[None, None, :] <= positions_BT[:, :, None]


def next_logits(
    thinker: Thinker, params: Any, hidden_BTD: jax.Array, new_B: jax.Array, before_BV: jax.Array
) -> jax.Array:
    """Logits of the token after the first `new_B` states of each row [B, V], float32; those of
    before where there are none.
    """
    last_B1D = jnp.take_along_axis(hidden_BTD, jnp.maximum(new_B - 1, 0)[:, None, None], axis=1)
    logits_BV = thinker.apply({"params": params}, last_B1D, method=Module.logits)[:, 0]
    return jnp.where((new_B > 0)[:, None], logits_BV, before_BV)


def draw(
    state: ThinkerState, request_keys_B: jax.Array, sampling: SamplingConfig = GREEDY
) -> jax.Array:
    """The next token of every row, int32 [B], from the logits of the state. The keys play no part
    in greedy drawing.
    """
    key_B = step_keys(request_keys_B, state.lengths_B)
    return sample(state.logits_BV, key_B, sampling.temperature, sampling.top_k, sampling.top_p)


def read_token(
    thinker: Thinker,
    params: Any,
    state: ThinkerState,
    token_B: jax.Array,
    running_B: jax.Array | bool = True,
) -> tuple[jax.Array, jax.Array, ThinkerState]:
    """Reads one token of every row where `running_B`: (its embedding [B, D], its post-norm state
    [B, D], the new state).
    """
    x_B1D = thinker.apply({"params": params}, token_B[:, None], method=Module.embed)
    hidden_B1D, state = extend(
        thinker, params, state, x_B1D, jnp.broadcast_to(running_B, token_B.shape).astype(jnp.int32)
    )
    return x_B1D[:, 0], hidden_B1D[:, 0], state


def verify(
    thinker: Thinker, params: Any, state: ThinkerState, ids_T: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, ThinkerState]:
    """Reads a token of a one-row state and, of the drafts behind it, as many as are what the Thinker
    writes greedily (speculative decoding, Leviathan et al. 2023, at temperature 0: the tokens are
    those of one after the other).

    Args:
      ids_T: int32, the token and T - 1 drafts of those that follow; -1 is no draft.

    Returns:
      (how many were read, 1 to T, int32; the embeddings [T, D] and post-norm states [T, D] of all,
      meaningless where not read; the new state, which has read those only).
    """
    x_BTD = thinker.apply({"params": params}, ids_T[None], method=Module.embed)
    hidden_BTD, cache = _states(thinker, params, state, x_BTD)
    logits_BTV = thinker.apply({"params": params}, hidden_BTD, method=Module.logits)
    right_T = jnp.argmax(logits_BTV[0, :-1], axis=-1) == ids_T[1:]
    count = 1 + jnp.sum(jnp.cumprod(right_T.astype(jnp.int32)))
    new = ThinkerState(cache, state.lengths_B + count, logits_BTV[:, count - 1])
    return count, x_BTD[0], hidden_BTD[0], new


def generate(
    thinker: Thinker,
    params: Any,
    state: ThinkerState,
    request_keys_B: jax.Array,
    *,
    stop_ids: Sequence[int],
    max_new: int,
    sampling: SamplingConfig = GREEDY,
) -> Generation:
    """Decodes until every row has drawn one of `stop_ids`, has `max_new` tokens or has filled its
    cache.
    """

    def next_token(
        state: ThinkerState, _: jax.Array, running_B: jax.Array
    ) -> tuple[jax.Array, jax.Array, ThinkerState]:
        token_B = draw(state, request_keys_B, sampling)
        _, hidden_BD, state = read_token(thinker, params, state, token_B, running_B)
        return token_B, hidden_BD, state

    out = autoregressive.generate(
        next_token,
        state,
        max_new=max_new,
        stop_ids=stop_ids,
        limit_B=columns(state) - state.lengths_B,
        keep=jnp.zeros(
            (len(state.lengths_B), max_new, thinker.config.dim), jax.tree.leaves(params)[0].dtype
        ),
    )
    return Generation(out.ids_BN, out.kept, out.count_B, out.stopped_B, out.model_state)


def columns(state: ThinkerState) -> int:
    """Positions that the cache has room for."""
    return jax.tree.leaves(state.cache, is_leaf=_is_cache)[0].columns


def _is_cache(node: Any) -> bool:
    return isinstance(node, _Cache)


jit_extend = jax.jit(extend, static_argnums=0)
jit_generate = jax.jit(generate, static_argnames=("thinker", "stop_ids", "max_new", "sampling"))
