"""The value of a token: greedy or sampled, from the ids that may be produced. How sure the model is, is diffusion/unmasking.py's matter.

B batch, T positions, V vocabulary. Every row has its own key and its own temperature, so a row draws the same tokens alone and in
any batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def allowed_ids(vocabulary: int, codes: int, eos: int, banned: tuple[int, ...], may_end_BT: jax.Array) -> jax.Array:
    """bool [B, T, V]: ids that may be produced. Speech codes 0..codes-1 without `banned`; `eos` only where `may_end_BT`.

    All other ids (bos, sos, pad, mask, rows that only fill the table up) are never produced.
    """
    ids_V = jnp.arange(vocabulary)
    code_V = ids_V < codes
    for banned_id in banned:
        code_V &= ids_V != banned_id
    return code_V[None, None, :] | ((ids_V == eos)[None, None, :] & may_end_BT[:, :, None])


def step_keys(key_B: jax.Array, block_B: jax.Array, step: jax.Array) -> jax.Array:
    """Typed keys [B]: fold_in(fold_in(request key, block), step). The order of calls and the other rows have no part in it."""
    return jax.vmap(lambda key, block: jax.random.fold_in(jax.random.fold_in(key, block), step))(key_B, block_B)


def sample(
    key_B: jax.Array, logits_BTV: jax.Array, temperature_B: jax.Array, allowed_BTV: jax.Array, top_k: int = 0, top_p: float = 1.0
) -> jax.Array:
    """int32 [B, T]: one id a position. Rows of temperature 0 take the best id; the others sample softmax(logits / temperature)
    among the `top_k` best (0 = all; ties with the last are kept), then the smallest set of probability `top_p`."""
    logits_BTV = jnp.where(allowed_BTV, logits_BTV.astype(jnp.float32), -jnp.inf)
    greedy_BT = jnp.argmax(logits_BTV, axis=-1).astype(jnp.int32)

    def draw() -> jax.Array:
        scaled = logits_BTV / jnp.where(temperature_B > 0, temperature_B, 1.0)[:, None, None]
        scaled = _top_p(_top_k(scaled, top_k), top_p)
        noise_BTV = jax.vmap(lambda key: jax.random.gumbel(key, scaled.shape[1:]))(key_B)
        drawn_BT = jnp.argmax(scaled + noise_BTV, axis=-1).astype(jnp.int32)
        return jnp.where(temperature_B[:, None] > 0, drawn_BT, greedy_BT)

    # The noise costs more than the argmax: a batch of greedy rows does not pay for it.
    return jax.lax.cond(jnp.any(temperature_B > 0), draw, lambda: greedy_BT)


def _top_k(logits: jax.Array, k: int) -> jax.Array:
    if k <= 0 or k >= logits.shape[-1]:
        return logits
    least = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits >= least, logits, -jnp.inf)


def _top_p(logits: jax.Array, p: float) -> jax.Array:
    if p >= 1.0:
        return logits
    falling = -jnp.sort(-logits, axis=-1)
    probability = jax.nn.softmax(falling, axis=-1)
    kept = jnp.cumsum(probability, axis=-1) - probability < p  # the mass before an id is still short of p: the best id always stays
    least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
