"""The one place where a token is drawn: greedy or sampled, from the ids that may be produced.

How sure the model is of a token is another matter (diffusion/unmasking.py). B batch, T positions, V
vocabulary. Every row has its own key, so that a row draws the same tokens alone and in any batch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError


def check_filters(top_k: int, top_p: float) -> None:
    """UserError unless top_k >= 0 and 0 < top_p <= 1."""
    if top_k < 0 or not 0.0 < top_p <= 1.0:
        raise UserError(
            f"top_k={top_k}, top_p={top_p} is out of range: give top_k >= 0 (0 = "
            "all ids) and 0 < top_p <= 1 (1 = all ids)"
        )


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How to draw the tokens of a text or of speech where all rows of a batch draw alike. Static:
    it shapes the compiled program.

    Attributes:
      temperature: 0 = greedy.
      top_k, top_p: see `sample`.

    Raises:
      UserError: a value out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(
                f"temperature={self.temperature} is out of range: give 0 (greedy) or more"
            )
        check_filters(self.top_k, self.top_p)


GREEDY = SamplingConfig()


def allowed_ids(vocabulary: int, codes: int, eos: int, may_end_BT: jax.Array) -> jax.Array:
    """bool [B, T, V]: ids that may be produced. Speech codes 0..codes-1; `eos` only where
    `may_end_BT`.

    All other ids (bos, sos, pad, mask, rows that only fill the table up) are never produced.
    """
    ids_V = jnp.arange(vocabulary)
    return (ids_V < codes)[None, None, :] | ((ids_V == eos)[None, None, :] & may_end_BT[:, :, None])


def without_filling(logits: jax.Array, vocab_size: int) -> jax.Array:
    """Logits [..., V], those from `vocab_size` on -inf: rows that only fill the output table up have
    no part in probabilities either.
    """
    if logits.shape[-1] <= vocab_size:
        return logits
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.where(ids < vocab_size, logits, -jnp.inf)


def step_keys(key_B: jax.Array, *counters: jax.Array | int) -> jax.Array:
    """Typed keys [B]: each request's key with one counter after the other folded in, each [B] or
    one for all rows.

    The order of calls and the other rows have no part in it. A text token folds in its position, a
    speech token its block and its step in there.
    """
    for counter in counters:
        key_B = jax.vmap(jax.random.fold_in)(key_B, jnp.broadcast_to(counter, key_B.shape))
    return key_B


def sample(
    logits: jax.Array,
    key_B: jax.Array | None = None,
    temperature: float | jax.Array = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    allowed: jax.Array | None = None,
    width: int | None = None,
    nucleus_first: bool = False,
) -> jax.Array:
    """Draws one id for each position.

    Args:
      logits: float [B, V] or [B, T, V]. Noise is drawn in their type.
      key_B: typed keys, one a row; not needed where `temperature` is the number 0.
      temperature: a number (static), or one for each row, [B]. 0 takes the best id, the lowest of
        equals; above it softmax(logits / temperature) is sampled.
      top_k: of that only the k best ids (0 = all; ids as good as the last of them stay).
      top_p: of these only the smallest set of the best whose probability reaches top_p (1 = all;
        the best always stays).
      allowed: bool, as the logits: ids that may be drawn at all.
      width: ids from here on only fill up the table and are never allowed. Noise is drawn for those
        before, so that the same seed draws the same tokens from a table that is not filled up.
      nucleus_first: top_p is of all ids, and of those the k best are left (as CosyVoice2 does); else
        top_p is of the k best (as Hugging Face's transformers do).

    Returns:
      int32 [B] or [B, T].
    """
    logits = logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def draw(temperature: float | jax.Array) -> jax.Array:
        scaled = logits[..., :width] / temperature
        if nucleus_first:
            scaled = _top_k(_top_p(scaled, top_p), top_k)
        else:
            scaled = _top_p(_top_k(scaled, top_k), top_p)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, scaled.shape[1:], scaled.dtype))(key_B)
        return jnp.argmax(scaled + noise, axis=-1).astype(jnp.int32)

    if isinstance(temperature, (int, float)):
        return draw(temperature) if temperature > 0 else greedy
    temperature = temperature.reshape(-1, *[1] * (logits.ndim - 1))
    sampled = temperature > 0
    # The noise costs more than the argmax: a batch of greedy rows does not pay for it.
    return jax.lax.cond(
        jnp.any(sampled),
        lambda: jnp.where(sampled[..., 0], draw(jnp.where(sampled, temperature, 1.0)), greedy),
        lambda: greedy,
    )


def repetition_aware_sample(
    logits_B1V: jax.Array,
    key_B: jax.Array,
    temperature_B: jax.Array,
    recent_BW: jax.Array,
    *,
    share: float,
    top_k: int = 0,
    top_p: float = 1.0,
    allowed_B1V: jax.Array | None = None,
    width: int | None = None,
) -> jax.Array:
    """Repetition-aware sampling (VALL-E 2, Chen et al. 2024, arXiv 2406.05370, section 3.3; also of
    CosyVoice2): an id that `sample` draws, but that has at least `share` of the last W places, is
    drawn anew from all that are allowed. So a row cannot be caught in a loop by its own filters, and
    is filtered everywhere else, with `nucleus_first`. Greedy rows stay greedy.

    Args:
      recent_BW: int32, the last W ids of each row; where there was none, any that is not allowed.
      others: see `sample`.

    Returns:
      int32 [B, 1].
    """
    of = functools.partial(sample, logits_B1V, temperature=temperature_B, width=width)
    filters: dict[str, Any] = dict(top_k=top_k, top_p=top_p, nucleus_first=True)
    id_B1 = of(key_B=key_B, allowed=allowed_B1V, **filters)
    anew_B1 = of(key_B=step_keys(key_B, 1), allowed=allowed_B1V)
    seen_B = jnp.sum(recent_BW == id_B1, axis=1)
    return jnp.where((seen_B >= share * recent_BW.shape[1])[:, None], anew_B1, id_B1)


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
    # the mass before an id is still short of p: the best id always stays
    kept = jnp.cumsum(probability, axis=-1) - probability < p
    least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
