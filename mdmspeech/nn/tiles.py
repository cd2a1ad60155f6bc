"""Attention for described masks as plain XLA operations, a tile of the matrix at a time: for
machines without a fused kernel (the CPU).

Flash attention (arXiv 2205.14135) as a scan over the tiles that are not empty: the running maximum
and sum make the softmax exact, the backward pass computes the scores again from the saved
log-sum-exp. Memory is linear in the length, work is that of the non-empty tiles, and the program is
as short for 8192 positions as for 512. N batch x K/V heads, G query heads a K/V head, T positions,
t tile.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.nn.masks import AttentionMask, Pattern

_TILE = 256
_MASKED = -1e30


class _Given(NamedTuple):
    """What a tile's mask needs, padded to whole tiles: the pattern's vectors and the segments, 0 =
    padding.
    """

    vectors: tuple[jax.Array, ...]  # int32 [1, 1, T] each
    segment_B1T: jax.Array  # int32, B or 1


def tiled_attention(
    q_BTHD: jax.Array, k_BTKD: jax.Array, v_BTKD: jax.Array, mask: AttentionMask
) -> jax.Array:
    """softmax(q k' / sqrt(D)) v -> [B, T, H, D] in q's dtype, softmax and sums in float32; padding
    (segment 0) gives zeros.
    """
    batch, length, heads, dim = q_BTHD.shape
    kv_heads = k_BTKD.shape[2]
    more = -length % _TILE

    def rows(x_BTHD):  # [B, T, K G, D] -> [N, G, T, D]
        x = jnp.pad(x_BTHD, ((0, 0), (0, more), (0, 0), (0, 0))).swapaxes(1, 2)
        return x.reshape(batch * kv_heads, -1, length + more, dim)

    segment_BT = jnp.ones((1, length), jnp.int32) if mask.segment_BT is None else mask.segment_BT
    given = _Given(
        tuple(
            jnp.asarray(np.pad(vector, (0, more), mode="edge"))[None, None]
            for vector in mask.pattern.vectors
        ),
        jnp.pad(segment_BT, ((0, 0), (0, more)))[:, None],
    )
    out = _attend(mask.pattern, rows(q_BTHD * dim**-0.5), rows(k_BTKD), rows(v_BTKD), given)
    return (
        out.reshape(batch, heads, length + more, dim)
        .swapaxes(1, 2)[:, :length]
        .astype(q_BTHD.dtype)
    )


@functools.lru_cache(maxsize=64)
def _pairs(pattern: Pattern) -> np.ndarray:
    """int32 [pairs, 2]: first query and first key of every tile that is not empty."""
    starts = range(0, pattern.length, _TILE)
    pairs = [
        (i, j)
        for i in starts
        for j in starts
        if pattern.allowed(slice(i, i + _TILE), slice(j, j + _TILE)).any()
    ]
    return np.array(pairs, np.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(pattern: Pattern, q_NGTD, k_N1TD, v_N1TD, given: _Given):
    """float32 [N, G, T, D]; T in whole tiles."""
    return _forward(pattern, q_NGTD, k_N1TD, v_N1TD, given)[0]


def _forward(pattern, q, k, v, given):
    def step(carry, pair):
        out, peak, total = carry
        i, j = pair
        scores = _scores(pattern, q, k, given, i, j)
        peak_i, total_i, out_i = (_cut(x, i) for x in (peak, total, out))
        peak_new = jnp.maximum(peak_i, scores.max(axis=-1))
        weights = jnp.exp(scores - peak_new[..., None])
        kept = jnp.exp(peak_i - peak_new)
        total_new = total_i * kept + weights.sum(axis=-1)
        out_new = out_i * kept[..., None] + _product(weights.astype(v.dtype), _cut(v, j))
        return (_put(out, out_new, i), _put(peak, peak_new, i), _put(total, total_new, i)), None

    start = (
        jnp.zeros(q.shape, jnp.float32),
        jnp.full(q.shape[:3], _MASKED, jnp.float32),
        jnp.zeros(q.shape[:3], jnp.float32),
    )
    (out, peak, total), _ = jax.lax.scan(step, start, jnp.asarray(_pairs(pattern)))
    # Every position sees itself, so a row is empty just where it is padding; with a sum of infinity
    # it never weighs anything.
    out = _where(given.segment_B1T[..., None] != 0, out / total[..., None], 0)
    log_sum = _where(given.segment_B1T != 0, peak + jnp.log(total), jnp.inf)
    return out, (q, k, v, given, out, log_sum)


def _backward(pattern, saved, d_out):
    q, k, v, given, out, log_sum = saved
    inner = (out * d_out).sum(axis=-1)
    d_out = d_out.astype(q.dtype)

    def step(carry, pair):
        dq, dk, dv = carry
        i, j = pair
        d_out_i = _cut(d_out, i)
        weights = jnp.exp(_scores(pattern, q, k, given, i, j) - _cut(log_sum, i)[..., None])
        d_scores = (
            weights * (_product(d_out_i, _cut(v, j).swapaxes(2, 3)) - _cut(inner, i)[..., None])
        ).astype(q.dtype)
        dq = _put(dq, _cut(dq, i) + _product(d_scores, _cut(k, j)), i)
        dk = _put(dk, _cut(dk, j) + _product_over_rows(d_scores, _cut(q, i)), j)
        dv = _put(dv, _cut(dv, j) + _product_over_rows(weights.astype(q.dtype), d_out_i), j)
        return (dq, dk, dv), None

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    (dq, dk, dv), _ = jax.lax.scan(step, start, jnp.asarray(_pairs(pattern)))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_attend.defvjp(_forward, _backward)


def _scores(pattern, q, k, given: _Given, i, j):
    """float32 [N, G, t, t]: the scores of a tile, masked."""
    queries, keys = ([_cut(vector, at) for vector in given.vectors] for at in (i, j))
    query, key = _cut(given.segment_B1T, i)[..., None], _cut(given.segment_B1T, j)[:, :, None]
    allowed = (
        pattern.mask_mod(*(x[..., None] for x in queries), *(x[:, :, None] for x in keys))
        & (query == key)
        & (key != 0)
    )
    return _where(allowed, _product(_cut(q, i), _cut(k, j).swapaxes(2, 3)), _MASKED)


def _product(x_NGTS, y_N1SD):
    """float32 [N, G, T, D]: one product a K/V head, whose query heads are just more rows."""
    n, group, rows, inner = x_NGTS.shape
    out = jnp.matmul(
        x_NGTS.reshape(n, group * rows, inner), y_N1SD[:, 0], preferred_element_type=jnp.float32
    )
    return out.reshape(n, group, rows, -1)


def _product_over_rows(x_NGTS, y_NGTD):
    """float32 [N, 1, S, D]: x' y, summed over query heads and rows."""
    n, group, rows, columns = x_NGTS.shape
    x, y = x_NGTS.reshape(n, group * rows, columns), y_NGTD.reshape(n, group * rows, -1)
    return jnp.matmul(x.swapaxes(1, 2), y, preferred_element_type=jnp.float32)[:, None]


def _where(allowed_B1, x_NG, other):
    """`jnp.where` of a condition [B or 1, 1, ...] over the heads of [N, G, ...]."""
    batch = allowed_B1.shape[0]
    return jnp.where(allowed_B1, x_NG.reshape(batch, -1, *x_NG.shape[2:]), other).reshape(
        x_NG.shape
    )


def _cut(x, start):
    return jax.lax.dynamic_slice_in_dim(x, start, _TILE, axis=2)


def _put(x, piece, start):
    return jax.lax.dynamic_update_slice_in_dim(x, piece, start, axis=2)
