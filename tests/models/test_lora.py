"""LoRA: nothing at the start, merged = unmerged, parting and joining, what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.models import lora
from mdmspeech.models.thinker import Thinker, ThinkerConfig

PLAIN = ThinkerConfig(
    vocab_size=40,
    dim=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    ffn_dim=64,
    qkv_bias=True,
)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, 7)))


@pytest.fixture(params=[False, True], ids=["unrolled", "scanned"])
def model(request):
    config = dataclasses.replace(PLAIN, scan_layers=request.param, lora_rank=3, lora_alpha=6.0)
    params = jax.jit(Thinker(config).init)(jax.random.key(0), IDS)["params"]
    return config, params


def run(config, params):
    return jax.jit(Thinker(config).apply)({"params": params}, IDS)


@pytest.mark.slow
def test_a_fresh_update_changes_nothing_and_a_merged_one_computes_the_same(model):
    config, params = model
    plain = dataclasses.replace(config, lora_rank=0)
    base, update = lora.split(params)
    np.testing.assert_array_equal(run(config, params), run(plain, base))
    update = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), update
    )
    tuned = run(config, lora.combine(base, update))
    assert np.abs(tuned - run(plain, base)).max() > 0.1
    np.testing.assert_allclose(
        run(plain, lora.fuse(base, update, config.lora_alpha)), tuned, atol=2e-5
    )


def test_parting_loses_nothing(model):
    _, params = model
    base, update = lora.split(params)
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(update)}
    assert names == {"lora_a", "lora_b"}
    joined = lora.combine(base, update)
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, joined, params))
    with pytest.raises(ValueError, match="both trees"):
        lora.combine(params, update)


@pytest.mark.slow
def test_an_update_of_another_model_is_refused(model):
    config, params = model
    base, update = lora.split(params)
    wide = dataclasses.replace(config, ffn_dim=96)
    _, other = lora.split(jax.jit(Thinker(wide).init)(jax.random.key(0), IDS)["params"])
    with pytest.raises(UserError, match="does not fit"):
        lora.fuse(base, other, 6.0)
    with pytest.raises(UserError, match="which the base model lacks"):
        lora.fuse({"norm": base["norm"]}, update, 6.0)
