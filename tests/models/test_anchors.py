"""Anchors: bounded look-ahead, placement by durations, and the paper's schedule position by
position.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.models.anchors import FixedAnchors, PacedAnchors, anchor_index


@pytest.fixture(scope="module")
def paced():
    model = PacedAnchors(dim=64, symbols=20, lookahead=(3, 1), head_dim=32)
    symbols = jnp.asarray(np.random.default_rng(0).integers(0, 20, (2, 24)))
    valid = jnp.ones((2, 24), bool)
    params = random_params(model.init, jax.random.key(0), symbols, valid, jnp.ones((2, 24)), 32)
    apply = jax.jit(model.apply, static_argnames=("length", "method"))
    return apply, params, symbols, valid


def test_paced_features_see_only_the_lookahead(paced):
    apply, params, symbols, valid = paced
    before = apply(params, symbols, valid, method="encode")
    changed = apply(
        params, symbols.at[:, 12].set((symbols[:, 12] + 1) % 20), valid, method="encode"
    )
    moved = np.abs(np.asarray(before - changed)).max(axis=(0, 2)) > 1e-6
    assert not moved[: 12 - 4].any(), "a symbol beyond the look-ahead of 3 + 1 changed a feature"
    assert moved[12 - 4] and moved[12], "the look-ahead is not used"


def test_paced_condition_never_shows_later_text(paced):
    apply, params, symbols, valid = paced
    durations = jnp.full((2, 24), 2.0)

    def cond(symbols):
        return apply(params, symbols, valid, durations, length=48)[0]

    moved = (
        np.abs(
            np.asarray(cond(symbols) - cond(symbols.at[:, 12].set((symbols[:, 12] + 1) % 20)))
        ).max(axis=(0, 2))
        > 1e-6
    )
    assert np.flatnonzero(moved)[0] == 2 * (12 - 4), (
        "symbol 12 (at positions 24, 25) may reach back by 4 symbols of 2 tokens, no further"
    )


def test_place_reads_the_symbol_spoken_at_each_position(paced):
    apply, params, _symbols, valid = paced
    features = jnp.zeros((2, 24, 64)).at[:, 5].set(1.0)
    durations = jnp.ones((2, 24)).at[:, 5].set(3.0)
    cond = apply(params, features, valid, durations, jnp.arange(30)[None], method="place")
    rest = apply(
        params, jnp.zeros((2, 24, 64)), valid, durations, jnp.arange(30)[None], method="place"
    )
    touched = np.abs(np.asarray(cond - rest)).max(axis=(0, 2)) > 1e-6
    assert np.flatnonzero(touched).tolist() == [5, 6, 7]


def test_padding_does_not_change_the_condition(paced):
    apply, params, symbols, valid = paced
    durations = jnp.full((2, 24), 1.5)
    short = apply(params, symbols[:, :16], valid[:, :16], durations[:, :16], length=24)[0]
    masked = valid.at[:, 16:].set(False)
    padded = apply(params, symbols, masked, durations, length=24)[0]
    np.testing.assert_allclose(short, padded, atol=1e-5)


def test_fixed_anchors_stand_on_the_first_positions_of_each_block():
    model = FixedAnchors(dim=8)
    text = jnp.asarray(np.random.default_rng(1).normal(size=(1, 6, 5)), jnp.float32)
    index = anchor_index(jnp.array([6]), jnp.arange(48)[None], block=16, anchors=4)
    params = random_params(model.init, jax.random.key(0), text, index)
    apply = jax.jit(model.apply)
    base = apply(params, text, index)
    assert np.flatnonzero(np.abs(np.asarray(base)).sum((0, 2))).tolist()[:4] == [0, 1, 2, 3]
    assert not np.asarray(base)[0, 4:16].any(), "positions after the anchors carry no text"
    for n in range(6):
        other = apply(params, text.at[:, n].add(1.0), index)
        (moved,) = np.nonzero(np.abs(np.asarray(other - base)).max(axis=(0, 2)) > 1e-6)
        assert moved.tolist() == [(n // 4) * 16 + n % 4], (
            "block b must see text up to 4(b+1) and no later text"
        )


def test_fixed_anchors_after_the_text_are_null():
    model = FixedAnchors(dim=8)
    text = jnp.ones((1, 6, 5))
    index = anchor_index(jnp.array([5]), jnp.arange(48)[None], block=16, anchors=4)
    params = random_params(model.init, jax.random.key(0), text, index)
    cond = np.asarray(jax.jit(model.apply)(params, text, index))[0]
    null = np.asarray(params["params"]["null"])
    for position in (17, 18, 19, 32, 35):
        np.testing.assert_array_equal(cond[position], null)
