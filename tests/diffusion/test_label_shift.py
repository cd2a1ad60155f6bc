"""The label shift: the state that reads token i-1 predicts token i; with blocks of one token that
is next-token decoding, key for key.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import autoregressive, block_diffusion
from mdmspeech.decoding.state import FinishReason, SamplingParams
from mdmspeech.diffusion.layout import shift_right
from tests.support import dense_masks

BOS, MASK, LENGTH = 20, 24, 12


@pytest.fixture(scope="module")
def cond(tiny):
    return jax.random.normal(jax.random.key(11), (3, LENGTH, tiny.dim))


def test_each_place_holds_the_token_before_and_a_block_starts_from_a_clean_one():
    clean = jnp.array([[1, 2, 3, 4, 5, 6, 7, 8]])
    noisy = jnp.array([[1, MASK, 3, MASK, MASK, 6, 7, MASK]])
    whole, packed = jnp.arange(8)[None], jnp.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    assert shift_right(noisy, clean, whole, 4, BOS).tolist() == [[BOS, 1, MASK, 3, 4, MASK, 6, 7]]
    assert shift_right(noisy, clean, packed, 4, BOS).tolist() == [
        [BOS, 1, MASK, 3, BOS, MASK, 6, 7]
    ]
    assert shift_right(noisy, clean, whole, 8, BOS).tolist() == [
        [BOS, 1, MASK, 3, MASK, MASK, 6, 7]
    ]
    # nothing hidden is seen
    assert shift_right(noisy, clean, whole, 1, BOS).tolist() == [[BOS, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_blocks_of_one_token_are_next_token_decoding(run_tiny, cond, options, temperature):
    """The same tokens, draws, confidences, ends and forwards, from the other decoder with its other
    cache.
    """
    options = dataclasses.replace(options, block=1, label_shift=True)
    request = SamplingParams.create(
        3,
        seed=[5, 6, 7],
        steps=1,
        temperature=temperature,
        target_len=[12, 7, -1],
        min_len=[0, 0, 3],
    )
    ours, theirs = (
        run_tiny(request, cond, options, decoder)
        for decoder in (block_diffusion.decode, autoregressive.decode)
    )
    for field in ("ids_BL", "count_B", "reason_B", "forwards"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
    # a drawn token's own probability is what next-token decoding reports,
    # the best one's what masked diffusion does
    if temperature == 0.0:
        np.testing.assert_allclose(ours.confidence_BL, theirs.confidence_BL, rtol=1e-4)


def test_one_block_of_the_whole_length_is_bidirectional(tiny, run_tiny, cond, options):
    options = dataclasses.replace(options, block=LENGTH, label_shift=True)
    result = run_tiny(SamplingParams.create(3, steps=2, target_len=LENGTH), cond, options)
    everything, positions = jnp.ones((1, LENGTH, LENGTH), bool), jnp.arange(LENGTH)[None]
    forward = jax.jit(
        lambda ids, cond_LD: tiny.forward(ids, cond_LD[None], positions, everything)[0][0]
    )
    for row in range(3):
        ids, half = result.ids_BL[row], result.step_BL[row] == 0
        assert half.sum() == LENGTH // 2 and result.reason_B[row] == FinishReason.LENGTH
        for seen, told in ((np.full(LENGTH, MASK), half), (np.where(half, ids, MASK), ~half)):
            shown = jnp.asarray(np.concatenate([[BOS], seen[:-1]])[None])
            np.testing.assert_array_equal(
                np.asarray(forward(shown, cond[row]))[told, :BOS].argmax(axis=-1), ids[told]
            )


def test_no_logits_depend_on_later_blocks_or_on_what_is_hidden(tiny, cond):
    block, mask = 4, dense_masks.block_causal_mask(LENGTH, 4)
    rng = np.random.default_rng(0)
    clean = jnp.asarray(rng.integers(0, BOS, (1, LENGTH)))
    hidden = jnp.asarray(rng.random((1, LENGTH)) < 0.5).at[0, 3].set(True).at[0, 7].set(True)

    @jax.jit
    def logits(clean):
        shown = shift_right(
            jnp.where(hidden, MASK, clean), clean, jnp.arange(LENGTH)[None], block, BOS
        )
        return tiny.forward(shown, cond[:1], jnp.arange(LENGTH)[None], mask)[0][0]

    before = logits(clean)
    for at in range(LENGTH):
        moved = np.abs(np.asarray(logits(clean.at[0, at].add(1)) - before)).max(axis=-1) > 1e-6
        first = block * (
            at // block
            # a token that is shown is seen from its own block on, a hidden one, or the last of its
            # block, from the next
        )
        if hidden[0, at] or (at + 1) % block == 0:
            first += block
        expected = range(first, LENGTH) if not hidden[0, at] or (at + 1) % block == 0 else ()
        assert np.flatnonzero(moved).tolist() == list(expected), at
