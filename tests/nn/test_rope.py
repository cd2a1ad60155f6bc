"""Rotary embedding: relative positions, layout, and the scaling rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.nn.rope import apply_rope, rope_frequencies, rope_table


def test_scores_depend_on_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    frequencies = rope_frequencies(16, 100.0)

    def score(at_q, at_k):
        rotated = [apply_rope(x, *rope_table(jnp.array([[at]]), frequencies)) for x, at in ((q, at_q), (k, at_k))]
        return float(jnp.sum(rotated[0] * rotated[1]))

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_halves_are_rotated_together():
    """Dimension i pairs with i + D/2 (half-split), not with i + 1 (interleaved)."""
    x = jnp.zeros((1, 1, 1, 8)).at[..., 1].set(1.0)
    turned = np.asarray(apply_rope(x, *rope_table(jnp.array([[3]]), rope_frequencies(8, 10.0))))[0, 0, 0]
    angle = 3 * 10.0 ** (-2 / 8)
    expected = np.zeros(8)
    expected[1], expected[5] = np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_linear_scaling_divides():
    plain, scaled = rope_frequencies(8, 1e4), rope_frequencies(8, 1e4, {"rope_type": "linear", "factor": 4.0})
    np.testing.assert_allclose(plain / scaled, 4.0, rtol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(UserError, match="even head_dim"):
        rope_frequencies(7, 1e4)
    with pytest.raises(UserError, match="'yarn' is not known"):
        rope_frequencies(8, 1e4, {"rope_type": "yarn"})
