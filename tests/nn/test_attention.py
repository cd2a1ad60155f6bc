"""`attend` against a plain softmax, its masks at their limits, both backends' formulations, and the cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.nn.attention import Attention, KVCache, attend, attention_backend
from mdmspeech.nn.rope import rope_frequencies, rope_table

B, T, S, H, K, D = 2, 5, 7, 4, 2, 8


def _inputs(length=T):
    keys = jax.random.split(jax.random.key(1), 4)
    q = jax.random.normal(keys[0], (B, length, H, D))
    k, v = (jax.random.normal(key, (B, S, K, D)) for key in keys[1:3])
    return q, k, v, jax.random.bernoulli(keys[3], 0.6, (B, length, S))


def _reference(q, k, v, mask):
    """Float64 softmax, one head at a time; rows without a visible key give zeros."""
    q, k, v, mask = (np.asarray(x, np.float64) for x in (q, k, v, mask))
    out = np.zeros(q.shape)
    for b, t, h in np.ndindex(q.shape[:3]):
        seen = np.flatnonzero(mask[b, t])
        if len(seen):
            scores = k[b, seen, h // (H // K)] @ q[b, t, h] / np.sqrt(D)
            weights = np.exp(scores - scores.max())
            out[b, t, h] = weights / weights.sum() @ v[b, seen, h // (H // K)]
    return out


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("length", [1, T])
def test_equals_plain_softmax(backend, length):
    q, k, v, mask = _inputs(length)
    mask = mask.at[0, 0].set(False)
    with attention_backend(backend):
        np.testing.assert_allclose(attend(q, k, v, mask), _reference(q, k, v, mask), atol=1e-5)


def test_fully_masked_row_has_zero_output_and_finite_gradient():
    q, k, v, mask = _inputs()
    grads = jax.jit(jax.grad(lambda *qkv: attend(*qkv, mask & False).sum(), (0, 1, 2)))(q, k, v)
    assert all(bool((g == 0).all()) for g in grads)


def test_mask_of_one_row_serves_the_batch():
    q, k, v, mask = _inputs()
    np.testing.assert_allclose(attend(q, k, v, mask[:1]), attend(q, k, v, jnp.repeat(mask[:1], B, 0)), atol=1e-6)


def test_huge_masked_scores_do_not_leak():
    q, k, v, mask = _inputs()
    mask = mask.at[:, :, 0].set(True).at[:, :, 3].set(False)
    np.testing.assert_allclose(attend(q, k.at[:, 3].set(1e6), v.at[:, 3].set(1e6), mask), attend(q, k, v, mask), atol=1e-5)


def test_cache_at_ragged_offsets_equals_one_pass():
    """Rows that continue at different columns give what a pass over the whole row gives."""
    layer = Attention(H, K, D, qkv_bias=True, k_bias=False, out_bias=True, qk_norm=True)
    x = jax.random.normal(jax.random.key(2), (B, S, 16))
    frequencies = rope_frequencies(D, 100.0)
    causal = jnp.tril(jnp.ones((1, S, S), bool))
    params = layer.init(jax.random.key(3), x, causal)
    assert set(params["params"]["q"]) == {"kernel", "bias"} and set(params["params"]["k"]) == {"kernel"}
    full, none = jax.jit(layer.apply)(params, x, causal, rope_table(jnp.arange(S)[None], frequencies))
    assert none is None

    def extend(cache, start_B, length):
        positions = start_B[:, None] + jnp.arange(length)[None]
        piece = jnp.take_along_axis(x, positions[..., None], axis=1)
        mask = jnp.arange(S)[None, None] <= positions[..., None]
        return layer.apply(params, piece, mask, rope_table(positions, frequencies), cache, start_B)

    _, cache = extend(KVCache.zeros(B, S, K, D), jnp.zeros(B, jnp.int32), 4)
    start = jnp.array([4, 2])
    y, _ = extend(cache, start, 3)
    for row in range(B):
        np.testing.assert_allclose(y[row], full[row, int(start[row]) : int(start[row]) + 3], atol=1e-5)


def test_cache_drops_what_does_not_fit():
    cache = KVCache.zeros(1, 3, 1, 2).write(jnp.ones((1, 2, 1, 2)), jnp.ones((1, 2, 1, 2)), jnp.array([2]))
    np.testing.assert_array_equal(cache.k_BSKD[0, :, 0, 0], [0, 0, 1])
