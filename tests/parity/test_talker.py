"""The Talker in PyTorch that ours is measured beside (experiments/bench_pytorch.py): it says what
ours says, token by token.
"""

import functools

import jax
import numpy as np
import pytest
import torch
from measured import same

from experiments import bench_pytorch
from mdmspeech.evaluation.speed.talkers import Way, text_of_blocks
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig

pytestmark = [pytest.mark.parity, pytest.mark.torch]
CONFIG = TalkerConfig(
    dim=64,
    num_layers=2,
    num_heads=2,
    ffn_dim=48,
    symbol_lookahead=(2, 1),
    base_dim=32,
    base_head_dim=16,
)
BLOCKS = 3


@functools.cache
def params():
    """Random, so that nothing can hide: no norm is one, and no two logits are nearly equal."""
    rng = np.random.default_rng(0)
    made = jax.jit(talker.init, static_argnums=0)(CONFIG, jax.random.key(0))
    made["outputs"]["table"] = made["outputs"]["table"] * 100
    other = lambda x: x * rng.uniform(0.5, 2.0, x.shape).astype(np.float32)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: other(x) if path[-1].key == "scale" else x, made
    )


@functools.cache
def engine(mode):
    return TalkerEngine(CONFIG, params(), mode)


@pytest.mark.parametrize("way", [Way("ntp"), Way("mdm", 1), Way("mdm", 4)], ids=lambda w: w.name)
def test_it_says_what_ours_says(way):
    one = engine(way.mode)
    text, length = text_of_blocks(one, BLOCKS), BLOCKS * CONFIG.block
    cond_LD = bench_pytorch.conditions(one, text, length)
    decoding = bench_pytorch.Decoding(
        bench_pytorch.TorchTalker(one.config, one.params, length), cond_LD
    )
    expected = bench_pytorch.ours(one, text, way, BLOCKS)
    assert len(np.unique(expected)) > length // 3  # not one token again and again
    same(f"a Talker in PyTorch, {way.name}: tokens", decoding.say(way), expected)
    # what an utterance leaves in the cache changes nothing of the next
    np.testing.assert_array_equal(decoding.say(way), expected)


def test_another_talker_says_something_else():
    """Equal tokens mean something: with the rows of one layer's norm turned round they differ."""
    one, way = engine("mdm"), Way("mdm", 4)
    text, length = text_of_blocks(one, BLOCKS), BLOCKS * CONFIG.block
    model = bench_pytorch.TorchTalker(one.config, one.params, length)
    model.layers[1].qk_norm_JE.copy_(torch.flip(model.layers[1].qk_norm_JE, (1,)))
    decoding = bench_pytorch.Decoding(model, bench_pytorch.conditions(one, text, length))
    assert np.mean(decoding.say(way) == bench_pytorch.ours(one, text, way, BLOCKS)) < 0.9


@pytest.mark.parametrize(("steps", "counts"), [(1, [16]), (3, [6, 5, 5]), (16, [1] * 16)])
def test_each_step_fills_its_share(steps, counts):
    assert bench_pytorch.unmasked_counts(16, steps) == counts
