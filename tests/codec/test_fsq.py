"""Finite scalar quantisation: ids and codes are one to one, the gradient passes, the penalty knows
even use from collapse.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.codec import fsq
from mdmspeech.speech_format import CODES


def test_all_ids_round_trip():
    ids = jnp.arange(CODES)
    codes = fsq.ids_to_codes(ids)
    assert codes.shape == (6561, 8)
    np.testing.assert_array_equal(fsq.codes_to_ids(codes), ids)
    assert len(np.unique(np.asarray(codes), axis=0)) == 6561


def test_digit_0_is_the_least_significant():
    np.testing.assert_array_equal(
        fsq.ids_to_codes(jnp.array([1])), [[0, -1, -1, -1, -1, -1, -1, -1]]
    )
    np.testing.assert_array_equal(
        fsq.ids_to_codes(jnp.array([2 * 3**7])), [[-1, -1, -1, -1, -1, -1, -1, 1]]
    )


def test_ids_outside_the_table_are_clipped():
    np.testing.assert_array_equal(
        fsq.ids_to_codes(jnp.array([-5, 9000])), fsq.ids_to_codes(jnp.array([0, 6560]))
    )


def test_quantised_latents_are_levels_and_the_gradient_is_straight_through():
    latent = jnp.linspace(-4.0, 4.0, 9)[None]
    codes = fsq.quantise(latent)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-6)
    assert set(np.unique(np.round(codes))) == {-1.0, 0.0, 1.0}
    gradient = jax.grad(lambda x: fsq.quantise(x).sum())(latent)
    np.testing.assert_allclose(gradient, 0.999 * (1 - jnp.tanh(latent) ** 2), atol=1e-6)


def test_penalty_is_small_for_even_use_and_large_for_collapse():
    even = fsq.ids_to_codes(jnp.arange(CODES))[None]
    weight = jnp.ones(even.shape[:-1])
    low, total = fsq.usage_penalty(even, weight)
    high, _ = fsq.usage_penalty(jnp.ones_like(even), weight)
    assert float(low / total) < 1e-4
    assert float(high / total) > 1.0


def test_penalty_ignores_padding():
    codes = fsq.ids_to_codes(jnp.arange(100))[None]
    padded = jnp.concatenate([codes, jnp.ones((1, 50, 8))], axis=1)
    weight = jnp.concatenate([jnp.ones((1, 100)), jnp.zeros((1, 50))], axis=1)
    np.testing.assert_allclose(
        fsq.usage_penalty(codes, jnp.ones((1, 100))), fsq.usage_penalty(padded, weight), rtol=1e-4
    )
