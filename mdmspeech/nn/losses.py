"""Losses over a vocabulary, of whatever is trained on tokens: texts, letters, phones, speech.

Sums and weights are returned apart, so that the caller adds them over micro-batches and devices
*before* dividing: an average of averages weighs a short batch like a long one. B batch, L length, D
width, C positions of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.nn.partition import on_one_device


def cross_entropy(
    logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> jax.Array:
    """f32 [...]: nats per position for `logits` [..., V] and integer `targets` [...].

    `label_smoothing` e: target distribution (1 - e) one-hot + e uniform. `z_loss` z: adds z *
    logsumexp(logits)^2 (PaLM), which keeps the logits from drifting.
    """
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = (
        jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        if on_one_device()
        else _picked(logits, targets)
    )
    return _smoothed(log_z, picked, logits, label_smoothing, z_loss)


def _picked(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The target's logit [...], by comparison: a vocabulary split over devices needs no gathering."""
    ids = jnp.arange(logits.shape[-1]).reshape((1,) * targets.ndim + (-1,))
    return jnp.sum(jnp.where(ids == targets[..., None], logits, 0.0), axis=-1)


def _smoothed(
    log_z: jax.Array, picked: jax.Array, logits: jax.Array, label_smoothing: float, z_loss: float
) -> jax.Array:
    """`cross_entropy` from its pieces: log_z, and the target's logit."""
    loss = log_z - picked
    if label_smoothing:
        loss = (1.0 - label_smoothing) * loss + label_smoothing * (
            log_z - jnp.mean(logits, axis=-1)
        )
    if z_loss:
        loss = loss + z_loss * jnp.square(log_z)
    return loss


def weighted_sum(values: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum of weight * value, sum of weights), f32 scalars; a position of weight 0 adds exactly 0,
    even if its value is not finite.
    """
    weight = weight.astype(jnp.float32)
    return jnp.sum(jnp.where(weight > 0, weight * values, 0.0)), jnp.sum(weight)


def weighted_cross_entropy(
    logits_BLV: jax.Array,
    targets_BL: jax.Array,
    weight_BL: jax.Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """(weighted loss sum in nats, weight sum), f32 scalars; as well for [N, V], [N], [N]. A target
    under weight 0 may be any number.
    """
    return weighted_sum(
        cross_entropy(logits_BLV, _in_range(targets_BL, weight_BL), label_smoothing, z_loss),
        weight_BL,
    )


def divergence(expected: jax.Array, logits: jax.Array) -> jax.Array:
    """f32 [...]: nats by which the distribution of `logits` [..., V] is far from that of the
    `expected` ones: the Kullback-Leibler divergence of the first from the second.
    """
    log_p, log_q = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (expected, logits))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def accuracy(
    logits_BLV: jax.Array, targets_BL: jax.Array, weight_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(number of positions with weight > 0 whose best id is the target, number of positions with
    weight > 0), f32 scalars.
    """
    hit = (jnp.argmax(logits_BLV, axis=-1) == targets_BL).astype(jnp.float32)
    return weighted_sum(hit, (weight_BL > 0).astype(jnp.float32))


def projected_cross_entropy(
    hidden_BLD: jax.Array,
    project: Callable[[jax.Array], jax.Array],
    targets_BL: jax.Array,
    weight_BL: jax.Array,
    chunk: int = 128,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Cross-entropy of `project(hidden)` without ever holding [B, L, V] logits: `chunk` positions
    at a time, computed again for the gradient.

    `project` maps [B, C, D] to logits [B, C, V]. Chunks are cut from the length, so that rows stay
    on their devices, and the target's logit is picked by comparison, so that a vocabulary split
    over devices needs no gathering. Returns {"loss": (sum in nats, weight sum), "accuracy": (hits,
    count)}.
    """
    length = hidden_BLD.shape[1]
    chunk = min(chunk, length)
    pad = -length % chunk

    def chunks(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def part(
        hidden_BCD: jax.Array, targets_BC: jax.Array, weight_BC: jax.Array
    ) -> tuple[jax.Array, ...]:
        logits_BCV = project(hidden_BCD).astype(jnp.float32)
        log_z = jax.nn.logsumexp(logits_BCV, axis=-1)
        picked = _picked(logits_BCV, targets_BC)
        loss = _smoothed(log_z, picked, logits_BCV, label_smoothing, z_loss)
        hit = (picked >= jax.lax.stop_gradient(logits_BCV.max(axis=-1))).astype(jnp.float32)
        return (
            *weighted_sum(loss, weight_BC),
            *weighted_sum(hit, (weight_BC > 0).astype(jnp.float32)),
        )

    def add(carry: Any, item: Any) -> tuple[Any, None]:
        return tuple(a + b for a, b in zip(carry, part(*item), strict=True)), None

    items = (chunks(hidden_BLD), chunks(_in_range(targets_BL, weight_BL)), chunks(weight_BL))
    (loss, weight, hits, count), _ = jax.lax.scan(add, (jnp.zeros(()),) * 4, items)
    return {"loss": (loss, weight), "accuracy": (hits, count)}


def _in_range(targets: jax.Array, weight: jax.Array) -> jax.Array:
    # A target under weight 0 may be any filler (-1, or an id beyond the vocabulary), which
    # take_along_axis would turn into NaN.
    return jnp.where(weight > 0, targets, 0)
