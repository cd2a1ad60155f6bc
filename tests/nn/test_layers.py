"""Norm, feed-forward layers, and the two layouts of a stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import FrozenDict
from flax.errors import ScopeParamShapeError
from scipy.special import erf
from stacked_layers import stack_layers

from mdmspeech.nn.attention import KVCache
from mdmspeech.nn.mlp import GeluMLP, SwiGLU
from mdmspeech.nn.norms import RMSNorm
from mdmspeech.nn.params import param
from mdmspeech.nn.stack import LayerStack
from mdmspeech.nn.transformer import LlamaBlock


def test_rms_norm_takes_statistics_in_float32():
    x = jnp.array([[300.0, -400.0]], jnp.float16)  # the squares overflow float16
    out = RMSNorm(eps=0.0).apply({"params": {"scale": jnp.array([1.0, 2.0])}}, x)
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(
        out[0], np.array([300, -800]) / np.sqrt((300**2 + 400**2) / 2), rtol=1e-3
    )


def test_a_stored_parameter_is_compared_with_its_shape_and_nothing_is_traced_for_it():
    traced = []

    class Layer(nn.Module):
        size: int

        @nn.compact
        def __call__(self):
            init = lambda key, shape: traced.append(shape) or jnp.ones(shape)
            return param(self, "scale", init, (self.size,))

    stored = Layer(2).init(jax.random.key(0))
    traced.clear()
    np.testing.assert_array_equal(Layer(2).apply(stored), [1, 1])
    assert not traced
    with pytest.raises(ScopeParamShapeError):
        Layer(3).apply(stored)


def test_mlps_against_their_formulas():
    x = np.array([[0.5, -2.0]], np.float32)
    eye = {"kernel": jnp.eye(2)}
    gated = SwiGLU(2).apply({"params": {"gate": eye, "up": eye, "down": eye}}, x)
    np.testing.assert_allclose(gated, x * x / (1 + np.exp(-x)), rtol=1e-5)
    with_bias = {"kernel": jnp.eye(2), "bias": jnp.ones(2)}
    plain = GeluMLP(2).apply({"params": {"fc1": with_bias, "fc2": with_bias}}, x)
    np.testing.assert_allclose(
        plain, (x + 1) * 0.5 * (1 + erf((x + 1) / np.sqrt(2))) + 1, rtol=1e-5
    )


def test_scanned_stack_equals_unrolled():
    kwargs = FrozenDict(num_heads=2, num_kv_heads=1, head_dim=4, ffn_dim=8)
    x, mask = jax.random.normal(jax.random.key(0), (2, 3, 8)), jnp.tril(jnp.ones((1, 3, 3), bool))
    unrolled, scanned = (LayerStack(LlamaBlock, kwargs, 3, scan) for scan in (False, True))
    params = unrolled.init(jax.random.key(1), x, mask)["params"]
    stacked = stack_layers(params)
    caches = (KVCache.zeros(2, 3, 1, 4),) * 3
    at, wide = jnp.zeros(2, jnp.int32), jnp.repeat(mask, 2, 0)
    y, new = jax.jit(unrolled.apply)({"params": params}, x, wide, None, caches, at)
    y_scan, new_scan = jax.jit(scanned.apply)(
        {"params": stacked}, x, wide, None, jax.tree.map(lambda *c: jnp.stack(c), *caches), at
    )
    np.testing.assert_allclose(y_scan, y, atol=1e-5)
    np.testing.assert_allclose(new_scan.k_BSKD[2], new[2].k_BSKD, atol=1e-5)
    y_plain, none = jax.jit(scanned.apply)({"params": stacked}, x, mask)
    assert none is None
    np.testing.assert_allclose(y_plain, y, atol=1e-5)
    assert jax.tree.map(
        jnp.shape, jax.eval_shape(scanned.init, jax.random.key(0), x, mask)["params"]
    ) == jax.tree.map(jnp.shape, stacked)
