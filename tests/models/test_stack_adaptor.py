"""VocalNet's adaptor: shapes, the last group, and its formula."""

import jax
import jax.numpy as jnp
import numpy as np
from random_params import random_params

from mdmspeech.models.stack_adaptor import StackAdaptor


def test_formula_and_last_group():
    adaptor = StackAdaptor(out_dim=4, stack=5, hidden_dim=8)
    states = jax.random.normal(jax.random.key(0), (2, 12, 3))
    params = random_params(adaptor.init, jax.random.key(1), states)
    apply = jax.jit(adaptor.apply)
    out = apply(params, states)
    assert out.shape == (2, 3, 4) and adaptor.num_vectors(12) == 3 and adaptor.num_vectors(10) == 2
    one, two = params["params"]["fc1"], params["params"]["fc2"]
    first = (
        np.maximum(np.asarray(states[1, :5]).reshape(-1) @ one["kernel"] + one["bias"], 0)
        @ two["kernel"]
        + two["bias"]
    )
    np.testing.assert_allclose(out[1, 0], first, atol=1e-5)
    padded = jnp.pad(states, ((0, 0), (0, 3), (0, 0)))
    np.testing.assert_allclose(apply(params, padded), out, atol=1e-6)
    changed = apply(params, states.at[:, 11].add(1.0))
    assert bool((changed[:, 2] != out[:, 2]).any()) and bool((changed[:, :2] == out[:, :2]).all())


def test_paper_size():
    """Five states of Whisper-large-v3 into 2048, then into the 4096 of an 8 B Thinker."""
    shapes = jax.eval_shape(StackAdaptor(4096).init, jax.random.key(0), jnp.zeros((1, 10, 1280)))[
        "params"
    ]
    assert shapes["fc1"]["kernel"].shape == (6400, 2048) and shapes["fc2"]["kernel"].shape == (
        2048,
        4096,
    )
