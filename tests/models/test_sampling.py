"""Filters at their limits, on distributions small enough to count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.models.sampling import Sampling, sample, step_keys

PROBABILITY = np.array([0.5, 0.3, 0.15, 0.05], np.float32)
LOGITS = jnp.log(jnp.asarray(PROBABILITY))


def _counts(sampling, rows=4000):
    keys = jax.random.split(jax.random.key(0), rows)
    tokens = jax.jit(sample, static_argnums=2)(jnp.repeat(LOGITS[None], rows, 0), keys, sampling)
    return np.bincount(np.asarray(tokens), minlength=4) / rows


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1.0), [0, 1, 2, 3]),
        (Sampling(1.0, top_k=2), [0, 1]),
        (Sampling(1.0, top_k=99), [0, 1, 2, 3]),
        (Sampling(1.0, top_p=0.81), [0, 1, 2]),
        (Sampling(1.0, top_p=0.79), [0, 1]),
        (Sampling(1.0, top_p=0.01), [0]),
        (Sampling(1.0, top_k=3, top_p=0.6), [0, 1]),
    ],
)
def test_kept_tokens_keep_their_proportions(sampling, kept):
    expected = np.zeros(4)
    expected[kept] = PROBABILITY[kept] / PROBABILITY[kept].sum()
    np.testing.assert_allclose(_counts(sampling), expected, atol=0.03)
    assert _counts(sampling)[[i for i in range(4) if i not in kept]].sum() == 0


def test_temperature():
    assert _counts(Sampling(0.0))[0] == 1
    sharp = PROBABILITY**2 / (PROBABILITY**2).sum()
    np.testing.assert_allclose(_counts(Sampling(0.5)), sharp, atol=0.03)


def test_keys_follow_request_and_position():
    keys = jax.random.split(jax.random.key(3), 2)
    data = [jax.random.key_data(step_keys(keys, jnp.array(at))).tolist() for at in ([4, 9], [4, 8])]
    assert data[0][0] == data[1][0] and data[0][1] != data[1][1]
    assert data[0][0] == jax.random.key_data(jax.random.fold_in(keys[0], 4)).tolist()


def test_bad_values_are_named():
    for bad in (dict(temperature=-1.0), dict(top_k=-1), dict(top_p=0.0), dict(top_p=1.1)):
        with pytest.raises(UserError, match="out of range"):
            Sampling(**bad)
