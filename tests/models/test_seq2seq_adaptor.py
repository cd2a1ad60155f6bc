"""Attention adaptor: cached = uncached, a row alone = in a batch, padding is inert, it ends, it
stays within its limit.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.models.seq2seq_adaptor import (
    PROMPT,
    Seq2SeqAdaptor,
    Seq2SeqConfig,
    greedy_decode,
    most_pieces,
    without_loop,
)

CONFIG = Seq2SeqConfig(
    encoder_dim=24, dim=32, num_layers=2, num_heads=2, ffn_dim=48, pieces=40, positions=60
)
MODULE = Seq2SeqAdaptor(CONFIG)
decode = jax.jit(greedy_decode, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    fresh = random_params(
        MODULE.init,
        jax.random.key(0),
        jnp.zeros((1, 4, 24)),
        jnp.ones((1, 4), bool),
        jnp.zeros((1, 2), jnp.int32),
    )["params"]
    keys = iter(jax.random.split(jax.random.key(1), 200))
    # Larger weights than fresh ones, so that what is read and what was written matter.
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), fresh)


def speech(rows, length, seed=0):
    return jnp.asarray(
        np.random.default_rng(seed).normal(size=(rows, length, 24)).astype(np.float32)
    )


def test_ids_do_not_overlap():
    assert CONFIG.end == 40 and CONFIG.prompt == (41, 42, 43, 44) and CONFIG.vocab_size == 45


def test_cached_equals_uncached(params):
    states, valid = speech(2, 30), jnp.ones((2, 30), bool)
    written = np.asarray(decode(CONFIG, params, states, valid).ids_BN)
    ids = np.concatenate([np.broadcast_to(CONFIG.prompt, (2, PROMPT)), written], axis=1)
    logits = jax.jit(MODULE.apply)({"params": params}, states, valid, jnp.asarray(ids))
    best = np.asarray(jnp.argmax(logits[:, PROMPT - 1 : -1, : CONFIG.end + 1], axis=-1))
    for row, wanted in zip(written, best, strict=True):
        stop = list(row).index(CONFIG.end) if CONFIG.end in row else len(row)
        np.testing.assert_array_equal(row[:stop], wanted[:stop])
    assert len({tuple(row) for row in written}) == 2  # what is written depends on what is heard


def test_a_row_alone_is_the_row_in_a_padded_batch(params):
    long, short = speech(1, 60, 1), speech(1, 25, 2)
    both = jnp.concatenate([long, jnp.pad(short, ((0, 0), (0, 35), (0, 0)), constant_values=7.0)])
    valid = jnp.arange(60)[None] < jnp.array([[60], [25]])
    together = np.asarray(decode(CONFIG, params, both, valid).ids_BN)
    for row, states in enumerate((long, short)):
        alone = np.asarray(decode(CONFIG, params, states, jnp.ones(states.shape[:2], bool)).ids_BN)[
            0
        ]
        np.testing.assert_array_equal(together[row][: len(alone)], alone)
        assert (together[row][len(alone) :] == CONFIG.end).all()


@pytest.mark.parametrize("right", [0, 1, 5, 99])
def test_drafts_change_nothing(params, right):
    states = speech(3, 40, 3)
    valid = jnp.arange(40)[None] < jnp.array([[40], [30], [35]])
    written = decode(CONFIG, params, states, valid)
    ids = np.asarray(written.ids_BN)
    assert len({tuple(row) for row in ids}) == 3
    # right so far, then wrong; in the last row there is no draft
    drafts = np.where(np.arange(12) < right, ids[:, :12], (ids[:, :12] + 1) % CONFIG.pieces)
    drafts[2] = CONFIG.end
    drafted = decode(CONFIG, params, states, valid, jnp.asarray(drafts))
    np.testing.assert_array_equal(drafted.ids_BN, ids)
    np.testing.assert_allclose(drafted.first_BV, written.first_BV, atol=1e-5)


def test_drafts_do_not_lengthen_what_may_be_written(params):
    never = {
        **params,
        "embedding": params["embedding"].at[CONFIG.end].set(-1e3 * params["norm"]["bias"]),
    }
    states, valid = speech(1, 50), jnp.arange(50)[None] < 25
    written = decode(CONFIG, never, states, valid).ids_BN
    assert (written[0, 15:] == CONFIG.end).all()
    again = decode(CONFIG, never, states, valid, jnp.where(written < CONFIG.end, written, 3))
    np.testing.assert_array_equal(again.ids_BN, written)


@pytest.mark.slow
def test_what_was_drafted_rightly_costs_one_forward(params):
    # `step` is a call of the layers each; the program has one for each branch and one in the loop,
    # so it is counted where it runs
    states, valid = speech(1, 40, 3), jnp.ones((1, 40), bool)
    ids = decode(CONFIG, params, states, valid).ids_BN
    length = int((ids[0] < CONFIG.end).sum())
    assert length > 3
    for drafts, forwards in ((None, length + 1), (ids, 1), (ids.at[0, 2].add(1), length - 1)):
        assert counted(params, states, valid, drafts) == forwards


def counted(params, states, valid, drafts):
    """Forwards of a decoding."""
    calls, step = [], Seq2SeqAdaptor.step

    def noticed(self, *args):
        jax.debug.callback(lambda: calls.append(1))
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seq2SeqAdaptor, "step", noticed)
        jax.block_until_ready(
            jax.jit(partial(greedy_decode, CONFIG))(params, states, valid, drafts)
        )
        jax.effects_barrier()
    return len(calls)


def test_nothing_is_written_for_ever(params):
    never = {
        **params,
        "embedding": params["embedding"].at[CONFIG.end].set(-1e3 * params["norm"]["bias"]),
    }
    written = np.asarray(decode(CONFIG, never, speech(1, 50), jnp.ones((1, 50), bool)).ids_BN)
    assert written.shape == (1, 18)  # 6 a second and 12
    assert [most_pieces(CONFIG, states) for states in (50, 25, 1500)] == [18, 15, 56]
    short = jnp.arange(50)[None] < 25
    written = np.asarray(decode(CONFIG, never, speech(1, 50), short).ids_BN)[0]
    assert (written[15:] == CONFIG.end).all()


def test_prompt_ids_are_never_written(params):
    loud = {**params, "embedding": params["embedding"].at[41:].mul(50.0)}
    assert (
        np.asarray(decode(CONFIG, loud, speech(3, 40), jnp.ones((3, 40), bool)).ids_BN)
        <= CONFIG.end
    ).all()


WORDS = [11, 12, 13]


@pytest.mark.parametrize(
    ("ids", "left"),
    [
        (WORDS + 10 * [7], [*WORDS, 7]),
        (WORDS + 5 * [7, 8, 9], [*WORDS, 7, 8, 9]),
        (WORDS + 5 * [7, 8, 9] + [7, 8], [*WORDS, 7, 8, 9]),  # cut in the midst of a copy
        (3 * [*range(20, 30)], [*range(20, 30)]),
        (5 * [7, 7, 8], [7, 7, 8]),  # a word twice in what is repeated
        (WORDS + 8 * [7], WORDS + 8 * [7]),  # seven again: it may have been said
        (2 * [*range(20, 30)], 2 * [*range(20, 30)]),  # once again, too
        (5 * [7, 8, 9] + WORDS, 5 * [7, 8, 9] + WORDS),  # it went on
        ([*range(30)], [*range(30)]),
        ([], []),
    ],
)
def test_a_text_without_its_loop(ids, left):
    assert list(without_loop(ids, len(ids))) == left
    assert list(without_loop(ids, len(ids) + 1)) == ids  # it ended by itself
