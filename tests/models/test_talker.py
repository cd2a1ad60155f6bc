"""Talker: causality of its masks, cache = no cache, code table, fixed anchors behind the same
trunk.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.codec import fsq
from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.models.talker import Talker, TalkerConfig
from mdmspeech.speech_format import CODES
from tests.support.dense_masks import block_causal_mask

TINY = TalkerConfig(
    dim=64, num_layers=2, num_heads=2, ffn_dim=128, symbols=12, symbol_lookahead=(2,)
)


def _inputs(length=48):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, 6561, (2, length))), jnp.asarray(
        rng.normal(size=(2, length, 64)), jnp.float32
    )


def test_code_features_agree_with_the_codec():
    digits = np.asarray(fsq.ids_to_codes(jnp.arange(CODES)))
    np.testing.assert_array_equal(talker.code_features()[:, :8], digits)


def shapes_of(config):
    return jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))


@functools.cache
def params_of(config):
    """Random ones, which need no compiler: scales around 1."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(float(x.ndim == 1), 0.1, x.shape), x.dtype),
        shapes_of(config),
    )


def test_no_leak_from_later_blocks():
    params = params_of(TINY)
    ids, cond = _inputs()
    mask = block_causal_mask(48, 16)
    positions = jnp.arange(48)[None]

    @jax.jit
    def hidden(cond):
        return Talker(TINY).apply({"params": params}, ids, cond, mask, positions)[0]

    moved = (
        np.abs(np.asarray(hidden(cond) - hidden(cond.at[:, 20].add(1.0)))).max(axis=(0, 2)) > 1e-6
    )
    assert np.flatnonzero(moved).tolist() == list(range(16, 48))


def test_cached_equals_uncached():
    params = params_of(TINY)
    ids, cond = _inputs()
    apply = jax.jit(Talker(TINY).apply)
    whole, _ = apply({"params": params}, ids, cond, block_causal_mask(48, 16), jnp.arange(48)[None])
    caches = talker.empty_caches(TINY, 2, 48)
    for block in range(3):
        part = slice(16 * block, 16 * block + 16)
        mask = jnp.broadcast_to(jnp.arange(48)[None, None] < 16 * (block + 1), (2, 16, 48))
        positions = jnp.arange(16 * block, 16 * block + 16)[None]
        out, caches = apply(
            {"params": params},
            ids[:, part],
            cond[:, part],
            mask,
            positions,
            caches,
            jnp.full(2, 16 * block),
        )
        np.testing.assert_allclose(out, whole[:, part], atol=2e-5)


HEADS = dataclasses.replace(TINY, mtp_modules=2)


@pytest.fixture(scope="module")
def heads():
    """(parameters, heads(ids, cond, mask, positions, ...) of a Talker with two modules)."""

    @functools.partial(jax.jit, static_argnames="count")
    def apply(params, *args, count=None):
        return Talker(HEADS).apply({"params": params}, *args, count=count, method="heads")

    return params_of(HEADS), functools.partial(apply, params_of(HEADS))


def test_modules_are_beside_what_was_there(heads):
    """A Talker without them has exactly the parameters, caches and states it had."""
    params, apply = heads
    plain = {name: params[name] for name in shapes_of(TINY)}
    assert set(params) - set(plain) == {
        "mtp_layers_0", "mtp_layers_1", "mtp_norms_0", "mtp_norms_1"
    }  # fmt: skip
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(lambda x: x.shape, shapes_of(TINY))
    assert len(talker.empty_caches(TINY, 1, 4)) == 2 and len(talker.empty_caches(HEADS, 1, 4)) == 4
    ids, cond = _inputs(6)
    arguments = ids, cond, block_causal_mask(6, 1), jnp.arange(6)[None]
    hidden, _ = jax.jit(Talker(TINY).apply)({"params": plain}, *arguments)
    np.testing.assert_array_equal(apply(*arguments, count=1)[0][0], hidden)
    caches = tuple(jax.tree.map(lambda x: x + 7.0, talker.empty_caches(HEADS, 2, 6)))
    first_B = jnp.zeros(2, int)
    after = jax.jit(Talker(HEADS).apply)({"params": params}, *arguments, caches, first_B)[1]
    assert len(after) == 4 and not np.array_equal(after[0].k_BSKD, caches[0].k_BSKD)
    jax.tree.map(np.testing.assert_array_equal, after[2:], caches[2:])


def test_a_module_hears_the_condition_of_the_place_it_predicts(heads):
    _, apply = heads
    ids, cond = _inputs(12)
    arguments = block_causal_mask(12, 1), jnp.arange(12)[None]
    before, _ = apply(ids, cond, *arguments)
    after, _ = apply(ids, cond.at[:, 7].add(1.0), *arguments)
    for k in range(3):
        moved = np.abs(np.asarray(after[k] - before[k])).max(axis=(0, 2)) > 1e-6
        assert np.flatnonzero(moved).tolist() == list(range(7 - k, 12))


def test_heads_over_a_cache_are_those_of_the_whole(heads):
    """Three tokens at a time, with the conditions of the two places behind them."""
    _, apply = heads
    ids, cond = _inputs(12)
    whole, _ = apply(ids, cond, block_causal_mask(12, 1), jnp.arange(12)[None])
    caches, behind = talker.empty_caches(HEADS, 2, 12), jnp.pad(cond, ((0, 0), (0, 2), (0, 0)))
    for at in range(0, 12, 3):
        places = jnp.arange(at, at + 3)
        states, caches = apply(
            ids[:, at : at + 3],
            behind[:, at : at + 5],
            jnp.broadcast_to(jnp.arange(12)[None, None] <= places[None, :, None], (2, 3, 12)),
            places[None],
            caches,
            jnp.full(2, at),
        )
        for k in range(3):
            np.testing.assert_allclose(states[k], whole[k][:, at : at + 3], atol=2e-5)


def test_structured_table_shares_digits():
    params = params_of(TINY)
    moved = jax.tree.map(jnp.copy, params)
    moved["outputs"]["digits"] = moved["outputs"]["digits"].at[0].add(1.0)  # digit 0
    hidden = jnp.ones((1, 64))
    before, after = (
        Talker(TINY).apply({"params": p}, hidden, method="logits") for p in (params, moved)
    )
    change = np.asarray(after - before)[0]
    np.testing.assert_allclose(
        change[:6561], 64.0 * talker.code_features()[:, 0], rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(change[6561:], 0.0, atol=1e-3)


def test_fixed_anchor_talker_has_every_parameter():
    config = TalkerConfig(
        dim=64, num_layers=1, num_heads=2, ffn_dim=128, anchors="fixed", text_dim=24
    )
    params = jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))
    assert params["anchors"]["fuse_in"]["kernel"].shape == (24, 128)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dim": 63}, "64 wide or more"),
        ({"dim": 1}, "64 wide or more"),
        ({"anchors": "pased"}, "choose 'paced'"),
        (
            {"anchors": "prefix", "text_vocab_size": 9, "mtp_modules": 1},
            "mtp_modules=1 with anchors 'prefix'.*use 'paced' or 'fixed'",
        ),
    ],
)
def test_sizes_of_no_talker_are_told(settings, told):
    with pytest.raises(UserError, match=told):
        jax.eval_shape(
            lambda key: talker.init(talker.TalkerConfig(**settings), key), jax.random.key(0)
        )
