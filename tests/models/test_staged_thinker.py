"""Groups of layers, one after the other, are the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.models import generation, staged_thinker
from mdmspeech.models.prepared_thinker import PreparedThinker
from mdmspeech.models.staged_thinker import staged_extend
from mdmspeech.models.thinker import Thinker, ThinkerConfig

SMALL = ThinkerConfig(
    vocab_size=11,
    dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    ffn_dim=16,
    qk_norm=True,
)
CONFIGS = {
    "one group": SMALL,
    "two groups, an output layer": dataclasses.replace(SMALL, num_layers=4, tie_embeddings=False),
    "a prime number of layers": dataclasses.replace(SMALL, num_layers=3, qkv_bias=True),
    "scanned": dataclasses.replace(SMALL, scan_layers=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", CONFIGS)
def test_a_chain_of_groups_is_the_whole(which, monkeypatch):
    """And prepared weights are the module's."""
    monkeypatch.setattr(staged_thinker, "TOGETHER", 2)
    module = Thinker(CONFIGS[which])
    trained = random_params(module.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    trained = jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, trained)
    thinker, params = PreparedThinker.of(module.config, trained)
    whole, staged = jax.jit(generation.extend, static_argnums=0), staged_extend(thinker)
    rng = np.random.default_rng(0)
    states = [
        jax.tree.map(np.array, generation.empty_state(model, 3, 16)) for model in (module, thinker)
    ]  # arrays of their own: they are used up
    for new_B in ([4, 2, 3], [1, 0, 4], [0, 0, 0]):
        x_BTD, new_B = rng.normal(size=(3, 4, 16)).astype(np.float32), np.array(new_B, np.int32)
        hidden, states[0] = whole(module, trained, states[0], x_BTD, new_B)
        ours, states[1] = staged(params=params, state=states[1], x_BTD=x_BTD, new_B=new_B)
        for b, count in enumerate(new_B):
            np.testing.assert_allclose(ours[b, :count], hidden[b, :count], atol=2e-5, rtol=1e-4)
        np.testing.assert_array_equal(states[1].lengths_B, states[0].lengths_B)
        np.testing.assert_allclose(states[1].logits_BV, states[0].logits_BV, atol=2e-5, rtol=1e-4)
        empty = generation.empty_state(thinker, 3, 16)
        assert jax.tree.structure(states[1]) == jax.tree.structure(empty)
