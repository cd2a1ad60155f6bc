"""The training objective: cross-entropy on the hidden tokens only (absorbing state).

Source: docs/method.md, "Training objective".

Sums and weights are returned apart, so that the caller adds them over micro-batches and devices *before* dividing: an average of
averages weighs a short batch like a long one. `gather_masked` lists the hidden positions in a static number of places, so that
the output projection, the widest product of a small Talker, runs on them alone. B batch, L length, N gathered of each of G groups of rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

GROUP_ROWS = 16  # are gathered together: enough that their rate of hidden tokens is nearly that of all


def cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0) -> jax.Array:
    """f32 [...]: nats per position for `logits` [..., V] and integer `targets` [...].

    `label_smoothing` e: target distribution (1 - e) one-hot + e uniform. `z_loss` z: adds z * logsumexp(logits)^2 (PaLM), which
    keeps the logits from drifting.
    """
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return _smoothed(log_z, picked, logits, label_smoothing, z_loss)


def _smoothed(log_z: jax.Array, picked: jax.Array, logits: jax.Array, label_smoothing: float, z_loss: float) -> jax.Array:
    """`cross_entropy` from its pieces: log_z, and the target's logit."""
    loss = log_z - picked
    if label_smoothing:
        loss = (1.0 - label_smoothing) * loss + label_smoothing * (log_z - jnp.mean(logits, axis=-1))
    if z_loss:
        loss = loss + z_loss * jnp.square(log_z)
    return loss


def weighted_sum(values: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum of weight * value, sum of weights), f32 scalars; a position of weight 0 adds exactly 0, even if its value is not finite."""
    weight = weight.astype(jnp.float32)
    return jnp.sum(jnp.where(weight > 0, weight * values, 0.0)), jnp.sum(weight)


def masked_cross_entropy(
    logits_BLV: jax.Array, targets_BL: jax.Array, weight_BL: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """(weighted loss sum in nats, weight sum). `weight_BL` is `Masking.weight_BL`: 0 on shown tokens and padding.

    Works as well on gathered positions, [N, V], [N], [N]. For the LLaDA bound divide by the number of valid tokens; weights of
    1/t sum to that on average.
    """
    return weighted_sum(cross_entropy(logits_BLV, _in_range(targets_BL, weight_BL), label_smoothing, z_loss), weight_BL)


def accuracy(logits_BLV: jax.Array, targets_BL: jax.Array, weight_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(number of positions with weight > 0 whose best id is the target, number of positions with weight > 0), f32 scalars."""
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
    """Cross-entropy of `project(hidden)` without ever holding [B, L, V] logits: `chunk` positions at a time, computed again for the gradient.

    `project` maps [B, C, D] to logits [B, C, V]. Chunks are cut from the length, so that rows stay on their devices, and the target's logit is picked by
    comparison, so that a vocabulary split over devices needs no gathering. Returns {"loss": (sum in nats, weight sum), "accuracy": (hits, count)}.
    """
    length = hidden_BLD.shape[1]
    chunk = min(chunk, length)
    pad = -length % chunk

    def chunks(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def part(hidden_BCD: jax.Array, targets_BC: jax.Array, weight_BC: jax.Array) -> tuple[jax.Array, ...]:
        logits_BCV = project(hidden_BCD).astype(jnp.float32)
        log_z = jax.nn.logsumexp(logits_BCV, axis=-1)
        is_target = jnp.arange(logits_BCV.shape[-1])[None, None, :] == targets_BC[..., None]
        picked = jnp.sum(jnp.where(is_target, logits_BCV, 0.0), axis=-1)
        loss = _smoothed(log_z, picked, logits_BCV, label_smoothing, z_loss)
        hit = (picked >= jax.lax.stop_gradient(logits_BCV.max(axis=-1))).astype(jnp.float32)
        return (*weighted_sum(loss, weight_BC), *weighted_sum(hit, (weight_BC > 0).astype(jnp.float32)))

    def add(carry: Any, item: Any) -> tuple[Any, None]:
        return tuple(a + b for a, b in zip(carry, part(*item), strict=True)), None

    items = (chunks(hidden_BLD), chunks(_in_range(targets_BL, weight_BL)), chunks(weight_BL))
    (loss, weight, hits, count), _ = jax.lax.scan(add, (jnp.zeros(()),) * 4, items)
    return {"loss": (loss, weight), "accuracy": (hits, count)}


def groups_of(rows: int) -> int:
    """Into how many groups a batch's rows are cut for `gather_masked`: as many as divide it and have GROUP_ROWS rows or more."""
    return next(g for g in range(max(rows // GROUP_ROWS, 1), 0, -1) if rows % g == 0)


def gather_masked(mask_BL: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array]:
    """(index_GN int32, keep_GN bool), N = capacity // G: places of the hidden tokens within their group of B / G rows, in order, then padding.

    The rows are gathered in groups (see `groups_of`), each by itself: of a batch split over devices no position leaves its device. Padding has index
    0 and keep False. Hidden tokens of a group beyond its share of the capacity are left out (its last rows first): choose it above the largest
    expected rate, and watch `overflow`. For 16 rows of global Bernoulli 0.75 * B * L is five standard deviations away.
    """
    groups = groups_of(mask_BL.shape[0])
    mask_GM = mask_BL.reshape(groups, -1)
    size = capacity // groups
    index_GN = jax.vmap(lambda mask_M: jnp.nonzero(mask_M, size=size, fill_value=0)[0])(mask_GM)
    return index_GN.astype(jnp.int32), jnp.arange(size)[None] < jnp.sum(mask_GM, axis=1, keepdims=True)


def overflow(mask_BL: jax.Array, index_GN: jax.Array) -> jax.Array:
    """int32 scalar: hidden tokens that `gather_masked` left out; not 0 means that the capacity is too small."""
    groups, size = index_GN.shape
    return jnp.sum(jnp.maximum(jnp.sum(mask_BL.reshape(groups, -1), axis=1) - size, 0)).astype(jnp.int32)


def gather(x_BLX: jax.Array, index_GN: jax.Array) -> jax.Array:
    """[B, L, ...] -> [G, N, ...]: the gathered positions' values (weights of padding must be zeroed with keep_GN)."""
    x_GMX = x_BLX.reshape(index_GN.shape[0], -1, *x_BLX.shape[2:])
    return jax.vmap(lambda x_MX, index_N: x_MX[index_N])(x_GMX, index_GN)


def scatter(values_GN: jax.Array, index_GN: jax.Array, keep_GN: jax.Array, shape: tuple[int, int], fill: Any) -> jax.Array:
    """[G, N] -> [B, L] = shape: the inverse of `gather`, `fill` where nothing was gathered."""
    groups = index_GN.shape[0]
    positions = shape[0] * shape[1] // groups
    place_GN = jnp.where(keep_GN, index_GN, positions)  # padding falls out of range and is dropped
    empty = jnp.full((positions,), fill, values_GN.dtype)
    return jax.vmap(lambda place_N, values_N: empty.at[place_N].set(values_N, mode="drop"))(place_GN, values_GN).reshape(shape)


def _in_range(targets: jax.Array, weight: jax.Array) -> jax.Array:
    # A target under weight 0 may be any filler (-1, or an id beyond the vocabulary), which take_along_axis would turn into NaN.
    return jnp.where(weight > 0, targets, 0)
