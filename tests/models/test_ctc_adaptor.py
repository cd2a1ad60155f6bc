"""Spelling adaptor: greedy CTC by hand, round trip of the character table, padding is inert."""

import jax
import jax.numpy as jnp
import numpy as np
from random_params import random_params

from mdmspeech.models import ctc_adaptor as spelling


def _logits(classes):
    return jnp.asarray(np.eye(spelling.CLASSES)[classes])[None]


def test_greedy_ctc_merges_repeats_and_drops_blanks():
    h, e, l, o = spelling.text_to_ids("helo")
    path = [0, h, h, 0, e, l, l, 0, l, o, o, 0]
    assert spelling.ctc_greedy_decode(_logits(path), jnp.ones((1, len(path)), bool)) == ["hello"]


def test_states_after_the_end_are_not_read():
    h, i = spelling.text_to_ids("hi")
    assert spelling.ctc_greedy_decode(_logits([h, i, h]), jnp.array([[True, True, False]])) == [
        "hi"
    ]


def test_encode_text_drops_what_it_cannot_spell():
    ids = spelling.text_to_ids("A é  b\n?")
    assert "".join(spelling.CHARACTERS[i - 1] for i in ids) == "A b?"


def test_padding_changes_nothing():
    config = spelling.CTCConfig(encoder_dim=16, dim=64, num_layers=2, head_dim=32)
    model = spelling.CTCAdaptor(config)
    states = jnp.asarray(np.random.default_rng(0).normal(size=(1, 30, 16)), jnp.float32)
    params = random_params(model.init, jax.random.key(0), states[:, :20], jnp.ones((1, 20), bool))
    apply = jax.jit(model.apply)
    alone = apply(params, states[:, :20], jnp.ones((1, 20), bool))
    padded = apply(params, states, jnp.arange(30)[None] < 20)
    np.testing.assert_allclose(alone, padded[:, :20], atol=1e-5)
