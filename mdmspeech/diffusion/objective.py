"""The training objective: cross-entropy on the hidden tokens only (absorbing state), that is
`nn.losses.weighted_cross_entropy` with the weights of `masking.Masking`.

Source: docs/method.md, "Training objective".

`gather_masked` lists the hidden positions in a static number of places, so that the output
projection, the widest product of a small Talker, runs on them alone. B batch, L length, N gathered
of each of G groups of rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

# are gathered together: enough that their rate of hidden tokens is nearly that of all
GROUP_ROWS = 16


def groups_of(rows: int) -> int:
    """Into how many groups a batch's rows are cut for `gather_masked`: as many as divide it and
    have GROUP_ROWS rows or more.
    """
    return next(g for g in range(max(rows // GROUP_ROWS, 1), 0, -1) if rows % g == 0)


def gather_masked(mask_BL: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array]:
    """(index_GN int32, keep_GN bool), N = capacity // G: places of the hidden tokens within their
    group of B / G rows, in order, then padding.

    The rows are gathered in groups (see `groups_of`), each by itself: of a batch split over devices
    no position leaves its device. Padding has index 0 and keep False. Hidden tokens of a group
    beyond its share of the capacity are left out (its last rows first): choose it above the largest
    expected rate, and watch `overflow`. For 16 rows of global Bernoulli 0.75 * B * L is five
    standard deviations away.
    """
    groups = groups_of(mask_BL.shape[0])
    mask_GM = mask_BL.reshape(groups, -1)
    size = capacity // groups
    index_GN = jax.vmap(lambda mask_M: jnp.nonzero(mask_M, size=size, fill_value=0)[0])(mask_GM)
    return index_GN.astype(jnp.int32), jnp.arange(size)[None] < jnp.sum(
        mask_GM, axis=1, keepdims=True
    )


def overflow(mask_BL: jax.Array, index_GN: jax.Array) -> jax.Array:
    """int32 scalar: hidden tokens that `gather_masked` left out; not 0 means that the capacity is
    too small.
    """
    groups, size = index_GN.shape
    return jnp.sum(jnp.maximum(jnp.sum(mask_BL.reshape(groups, -1), axis=1) - size, 0)).astype(
        jnp.int32
    )


def gather(x_BLX: jax.Array, index_GN: jax.Array) -> jax.Array:
    """[B, L, ...] -> [G, N, ...]: the gathered positions' values (weights of padding must be zeroed
    with keep_GN).
    """
    x_GMX = x_BLX.reshape(index_GN.shape[0], -1, *x_BLX.shape[2:])
    return jax.vmap(lambda x_MX, index_N: x_MX[index_N])(x_GMX, index_GN)


def scatter(
    values_GN: jax.Array, index_GN: jax.Array, keep_GN: jax.Array, shape: tuple[int, int], fill: Any
) -> jax.Array:
    """[G, N] -> [B, L] = shape: the inverse of `gather`, `fill` where nothing was gathered."""
    groups = index_GN.shape[0]
    positions = shape[0] * shape[1] // groups
    place_GN = jnp.where(keep_GN, index_GN, positions)  # padding falls out of range and is dropped
    empty = jnp.full((positions,), fill, values_GN.dtype)
    return jax.vmap(lambda place_N, values_N: empty.at[place_N].set(values_N, mode="drop"))(
        place_GN, values_GN
    ).reshape(shape)
