"""Which masked positions to reveal next: score rules (how sure is the model?) x count rules (how
many now?).

Scores come from the model's own distribution, un-tempered and un-filtered: computed after
temperature or top-p they saturate and the order degenerates to left-to-right (docs/method.md,
"Unmasking rules"). For the same reason they are kept as logarithms and built with log1p: two
positions of probability 1 - 1e-9 and 1 - 1e-12 still differ. What the value of a revealed token is,
is another matter (sampling.py). Higher is surer, everywhere.

Shapes: `logits` [..., V] (logits or log-probabilities, any additive constant), scores and `masked`
  bool [..., K], counts [...].
`allowed` bool, broadcastable to the logits: ids that may be produced. Probability the model puts on
other ids counts as doubt: a position whose mass sits on a forbidden EOS is not one to reveal first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError


def candidate(logits: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """int32 [...]: the most probable allowed id; the lowest id wins a tie."""
    return jnp.argmax(_only(logits, allowed), axis=-1).astype(jnp.int32)


def max_probability(logits: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """f32 [...]: log-probability of the best allowed id (MaskGIT, arXiv 2202.04200; LLaDA's
    low-confidence rule).
    """
    logits = logits.astype(jnp.float32)
    best = candidate(logits, allowed)
    is_best = _iota(logits) == best[..., None]
    top = jnp.max(_only(logits, allowed), axis=-1, keepdims=True)
    others = jnp.sum(jnp.where(is_best, 0.0, jnp.exp(logits - top)), axis=-1)
    return -jnp.log1p(others)


def margin(logits: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """f32 [...]: log(p1 - p2) of the two best allowed ids; the order of the margin p1 - p2
    (LLaDA-TTS, arXiv 2603.26364).
    """
    ours = _only(logits.astype(jnp.float32), allowed)
    is_best = _iota(ours) == jnp.argmax(ours, axis=-1)[..., None]
    first = jnp.max(ours, axis=-1)
    second = jnp.max(jnp.where(is_best, -jnp.inf, ours), axis=-1)
    return max_probability(logits, allowed) + jnp.log1p(-jnp.exp(second - first))


def entropy(logits: jax.Array, allowed: jax.Array | None = None) -> jax.Array:
    """f32 [...], nats, <= 0: minus the entropy over the allowed ids, plus the log of the
    probability they hold together.
    """
    logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    if allowed is None:
        return jnp.sum(jnp.where(logp > -jnp.inf, jnp.exp(logp) * logp, 0.0), axis=-1)
    mass = jax.nn.logsumexp(_only(logp, allowed), axis=-1)
    inner = _only(logp - mass[..., None], allowed)
    return jnp.sum(jnp.where(inner > -jnp.inf, jnp.exp(inner) * inner, 0.0), axis=-1) + mass


SCORES = {"max_probability": max_probability, "margin": margin, "entropy": entropy}


def score_rule(name: str):
    """The score rule of that name; UserError lists the names."""
    if name not in SCORES:
        raise UserError(f"score rule {name!r} is unknown; choose one of {', '.join(SCORES)}")
    return SCORES[name]


def num_to_unmask(remaining: jax.Array, steps_left: jax.Array) -> jax.Array:
    """int [...]: ceil(remaining / steps_left), the even share of the masks left; all of them when
    no more than one step is left.
    """
    steps_left = jnp.maximum(steps_left, 1)
    return (remaining + steps_left - 1) // steps_left


def threshold(scores: jax.Array, masked: jax.Array, tau: float) -> jax.Array:
    """int32 [...]: how many masked positions score at least `tau` (same unit: log p); at least one
    if any is masked (Fast-dLLM).
    """
    sure = jnp.sum(masked & (scores >= tau), axis=-1)
    return jnp.maximum(sure, jnp.any(masked, axis=-1)).astype(jnp.int32)


def entropy_bound(
    entropies: jax.Array, scores: jax.Array, masked: jax.Array, bound: float
) -> jax.Array:
    """int32 [...]: the longest prefix, best score first, whose joint-error bound (sum minus largest
    entropy) is within `bound`.

    Entropy-bounded unmasking (arXiv 2505.24857): revealing a set at once as if independent costs at
    most that many nats. `entropies` >= 0, nats, [..., K]. At least one if any is masked.
    """
    place = rank(scores, masked)
    # [..., i, j]: j is revealed with or before i
    before = (place[..., None, :] <= place[..., :, None]) & masked[..., None, :]
    spread = jnp.where(before, entropies[..., None, :], 0.0)
    cost = jnp.sum(spread, axis=-1) - jnp.max(spread, axis=-1)
    fits = jnp.sum(masked & (cost <= bound), axis=-1)
    return jnp.maximum(fits, jnp.any(masked, axis=-1)).astype(jnp.int32)


def rank(scores: jax.Array, among: jax.Array) -> jax.Array:
    """int32 [..., K]: place of each member of `among` (bool) by falling score, 0 = best; ties go to
    the left, NaN comes last.

    Non-members get place K. Pairwise, K x K: blocks are short, and unlike a sort it is exact,
    stable and cheap everywhere.
    """
    length = scores.shape[-1]
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    ours, theirs = scores[..., :, None], scores[..., None, :]
    left = jnp.arange(length)[None, :] < jnp.arange(length)[:, None]  # j stands left of i
    left = jnp.broadcast_to(left, (*scores.shape, length))
    beaten = ((theirs > ours) | ((theirs == ours) & left)) & among[..., None, :]
    return jnp.where(among, jnp.sum(beaten, axis=-1), length).astype(jnp.int32)


def select(scores: jax.Array, masked: jax.Array, count: jax.Array) -> jax.Array:
    """bool [..., K]: exactly min(count, number masked) masked positions, those of highest score
    (ties: leftmost).
    """
    return masked & (rank(scores, masked) < count[..., None])


def _iota(logits: jax.Array) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def _only(logits: jax.Array, allowed: jax.Array | None) -> jax.Array:
    return logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
