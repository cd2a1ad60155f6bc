"""The phone classifier by hand: each state is read with its neighbours, in order, and with nothing
beyond the ends.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.models.phone_classifier import PhoneClassifier, PhoneClassifierConfig


@pytest.mark.parametrize("near", [0, 1, 2])
def test_logits_by_hand(near):
    config = PhoneClassifierConfig(encoder_dim=3, near=near, dim=4, symbols=6)
    rng = np.random.default_rng(near)
    shapes = jax.eval_shape(PhoneClassifier(config).init, jax.random.key(0), jnp.zeros((1, 5, 3)))[
        "params"
    ]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    states = rng.normal(size=(2, 5, 3)).astype(np.float32)
    logits = PhoneClassifier(config).apply({"params": params}, states)
    for row, at in np.ndindex(2, 5):
        seen = [
            states[row, n] if 0 <= n < 5 else np.zeros(3) for n in range(at - near, at + near + 1)
        ]
        hidden = np.concatenate(seen) @ params["in"]["kernel"] + params["in"]["bias"]
        hidden = hidden / (1 + np.exp(-hidden))
        np.testing.assert_allclose(
            logits[row, at],
            hidden @ params["out"]["kernel"] + params["out"]["bias"],
            rtol=1e-4,
            atol=1e-5,
        )
