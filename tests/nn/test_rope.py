"""Rotary embedding: relative positions, layout, and the scaling rules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.nn.rope import apply_rope, rope_attention_factor, rope_frequencies, rope_table


def test_scores_depend_on_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    frequencies = rope_frequencies(16, 100.0)

    def score(at_q, at_k):
        rotated = [
            apply_rope(x, *rope_table(jnp.array([[at]]), frequencies))
            for x, at in ((q, at_q), (k, at_k))
        ]
        return float(jnp.sum(rotated[0] * rotated[1]))

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_halves_are_rotated_together():
    """Dimension i pairs with i + D/2 (half-split), not with i + 1 (interleaved)."""
    x = jnp.zeros((1, 1, 1, 8)).at[..., 1].set(1.0)
    turned = np.asarray(apply_rope(x, *rope_table(jnp.array([[3]]), rope_frequencies(8, 10.0))))[
        0, 0, 0
    ]
    angle = 3 * 10.0 ** (-2 / 8)
    expected = np.zeros(8)
    expected[1], expected[5] = np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_linear_scaling_divides():
    plain, scaled = (
        rope_frequencies(8, 1e4),
        rope_frequencies(8, 1e4, {"rope_type": "linear", "factor": 4.0}),
    )
    np.testing.assert_allclose(plain / scaled, 4.0, rtol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(UserError, match="even head_dim"):
        rope_frequencies(7, 1e4)
    with pytest.raises(UserError, match="'longrope' is not known"):
        rope_frequencies(8, 1e4, {"rope_type": "longrope"})


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_yarn_by_hand():
    """Qwen3's long-context setting (head_dim 128, theta 1e6): the paper's gamma(r) with r turns,
    its bounds rounded outwards to whole dimensions.
    """
    dim, theta, factor, context = 128, 1e6, 4.0, 32768
    # turns that dimension pair i makes within the original context
    turned = lambda i: context * theta ** (-2 * i / dim) / (2 * math.pi)
    # the last that turns 32 times or more, and the first that turns once or less
    low = max(i for i in range(64) if turned(i) >= 32)
    high = min(i for i in range(64) if turned(i) <= 1)
    assert (low, high) == (23, 40)
    wanted = [
        theta ** (-2 * i / dim)
        * (
            1
            if i <= low
            else 1 / factor
            if i >= high
            else 1 - (i - low) / (high - low) * (1 - 1 / factor)
        )
        for i in range(64)
    ]
    np.testing.assert_allclose(rope_frequencies(dim, theta, YARN), wanted, rtol=1e-6)


def test_yarn_between_whole_dimensions():
    """Without rounding the ramp begins and ends exactly where a dimension turns `beta_fast` and
    `beta_slow` times.
    """
    scaling = {**YARN, "truncate": False, "beta_fast": 16.0, "beta_slow": 2.0}
    at = lambda turns: 64 * math.log(32768 / (turns * 2 * math.pi)) / math.log(1e6)
    ratio = rope_frequencies(128, 1e6) / rope_frequencies(128, 1e6, scaling)
    ramp = np.clip((np.arange(64) - at(16)) / (at(2) - at(16)), 0, 1)
    np.testing.assert_allclose(1 / ratio, 1 - ramp * 0.75, rtol=1e-5)


@pytest.mark.parametrize(
    ("scaling", "wanted"),
    [
        (None, 1.0),
        ({"rope_type": "linear", "factor": 4.0}, 1.0),
        (YARN, 0.1 * math.log(4) + 1),
        ({"type": "yarn", "factor": 40.0}, 0.1 * math.log(40) + 1),
        ({**YARN, "factor": 1.0}, 1.0),
        ({**YARN, "attention_factor": 0.75}, 0.75),
        ({**YARN, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),  # DeepSeek-V3
        (
            {**YARN, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.5},
            (0.0707 * math.log(40) + 1) / (0.05 * math.log(40) + 1),
        ),
    ],
)
def test_attention_factor(scaling, wanted):
    assert rope_attention_factor(scaling) == pytest.approx(wanted, rel=1e-9)


def test_attention_factor_scales_the_table():
    plain, scaled = (
        np.stack(rope_table(jnp.array([[0, 5]]), rope_frequencies(8, 10.0), factor))
        for factor in (1.0, 1.5)
    )
    np.testing.assert_allclose(scaled, 1.5 * plain, rtol=1e-6)
