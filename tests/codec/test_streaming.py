"""Streaming: any partition of the tokens gives the samples of one-shot decoding; a padded row gives
those of the row alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.codec.compact import bound, streaming
from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.codec import CompactCodecModel, source_controls
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.errors import UserError

CONFIG = CompactCodecConfig(
    num_mels=20,
    encoder_dim=32,
    encoder_num_layers=1,
    decoder_dim=32,
    decoder_num_layers=3,
    decoder_reach=5,
    frame_dim=24,
    head_dim=16,
    phones=8,
)
MODEL = CompactCodecModel(CONFIG)
decode = jax.jit(MODEL.decode)


@pytest.fixture(scope="module")
def params():
    """Random parameters that speak at the level of speech, with a voice that moves and pauses."""
    params = jax.jit(MODEL.init)(jax.random.key(0))
    params["spectral"]["out"]["kernel"] *= 2.0
    params["decoder"]["acoustics"]["bias"] += 0.3 * (
        np.arange(CONFIG.num_mels + 2) < CONFIG.num_mels
    )
    return params


def tokens(length, seed=0):
    return np.random.default_rng(seed).integers(0, 6561, length).astype(np.int32)


def one_shot(params, ids):
    return np.asarray(decode(params, ids[None], np.ones((1, len(ids)), bool)))[0]


@functools.cache
def pusher(size):
    return jax.jit(functools.partial(streaming.push, MODEL))


def streamed(params, ids, size):
    c, late = CONFIG, CONFIG.right_context
    state, out = streaming.start(MODEL, 1), []
    for at in range(0, len(ids) + late, size):
        part = ids[at : at + size]
        padded = np.pad(part, (0, size - len(part)))
        state, wave = pusher(size)(params, state, padded[None], (np.arange(size) < len(part))[None])
        out.append(np.asarray(wave)[0])
    return np.concatenate(out)[late * c.token_samples :][: len(ids) * c.token_samples]


@pytest.mark.slow
def test_the_example_speaks_with_changing_pitch_and_pauses(params):
    acoustics = jax.jit(MODEL.acoustics)(params, tokens(64)[None], np.ones((1, 64), bool))
    f0, gate = source_controls(acoustics)
    assert float(f0.max() / f0.min()) > 1.5
    assert 0.1 < float(gate.mean()) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("size", "length"), [(1, 23), (7, 60), (16, 61), (16, 3)])
def test_streamed_equals_one_shot(params, size, length):
    ids = tokens(length, seed=length)
    whole = one_shot(params, ids)
    assert 0.01 < np.abs(whole).max() < 2.0
    np.testing.assert_allclose(streamed(params, ids, size), whole, atol=1e-4)


def test_a_token_reaches_no_further_than_the_config_says(params):
    length, at = 40, 20
    ids = tokens(length)
    changed = ids.copy()
    changed[at] = (changed[at] + 3280) % 6561
    difference = (
        np.abs(one_shot(params, ids) - one_shot(params, changed)).reshape(length, -1).max(axis=1)
    )
    assert difference[: at - CONFIG.right_context].max() == 0
    assert difference[at] > 1e-3


def test_a_padded_row_equals_the_row_alone(params):
    short, long = tokens(17, 1), tokens(30, 2)
    ids, valid = np.zeros((2, 30), np.int32), np.ones((2, 30), bool)
    ids[0, :17], ids[1], valid[0, 17:] = short, long, False
    both = np.asarray(decode(params, ids, valid))
    # Another batch size is another order of sums on some processors; the source's phase adds up
    # what that does to F0 (1.7e-4 after 30 tokens).
    np.testing.assert_allclose(
        both[0, : 17 * CONFIG.token_samples], one_shot(params, short), atol=5e-4
    )
    np.testing.assert_allclose(both[1], one_shot(params, long), atol=5e-4)
    assert np.abs(both[0, 17 * CONFIG.token_samples :]).max() == 0


def test_the_bound_codec_streams_what_it_decodes(params):
    codec = CompactCodec(CONFIG, params, push=8)
    rows = [tokens(n, n) for n in (30, 5, 0, 12)]
    waves = codec.decode(rows)
    assert [len(wave) for wave in waves] == [len(row) * CONFIG.token_samples for row in rows]
    for row, wave in zip(rows, waves, strict=True):
        stream = codec.stream()
        parts = [
            stream.push(row[:3]),
            stream.push(row[3:20]),
            stream.push(row[20:]),
            stream.finish(),
        ]
        np.testing.assert_allclose(np.concatenate(parts), wave, atol=1e-4)


def test_samples_leave_after_the_bounded_look_ahead(params):
    stream = CompactCodec(CONFIG, params, push=8).stream()
    assert len(stream.push(tokens(8))) == (8 - CONFIG.right_context) * CONFIG.token_samples
    assert len(stream.push(tokens(8))) == 8 * CONFIG.token_samples


def test_bound_encode_gives_a_token_for_every_40_ms(params):
    codec = CompactCodec(CONFIG, params)
    waves = [0.1 * np.random.default_rng(n).normal(size=n).astype(np.float32) for n in (9600, 961)]
    ids = codec.encode(waves)
    assert [len(row) for row in ids] == [10, 2]
    np.testing.assert_array_equal(ids[0], codec.encode(waves[:1])[0])


def test_more_tokens_than_fit_are_streamed(params, monkeypatch):
    """Alone and beside short rows; many tokens at a time give what few do."""
    monkeypatch.setattr(bound, "_LENGTHS", (32,))
    codec = CompactCodec(CONFIG, params, push=8)
    rows = [tokens(5, 1), tokens(150, 2)]
    short, long = codec.decode(rows)
    np.testing.assert_array_equal(short, codec.decode(rows[:1])[0])
    stream = codec.stream()
    parts = [stream.push(rows[1][at : at + 8]) for at in range(0, 150, 8)]
    np.testing.assert_allclose(np.concatenate([*parts, stream.finish()]), long, atol=1e-3)
    with pytest.raises(UserError, match="cut the speech"):
        codec.encode([np.zeros(33 * CONFIG.token_samples, np.float32)])


@pytest.mark.slow
def test_gradients_reach_every_part_and_are_finite(params):
    ids = jnp.asarray(tokens(8)[None])
    valid = jnp.ones((1, 8), bool)

    def loss(params):
        return jnp.mean(jnp.square(MODEL.decode(params, ids, valid)))

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    for part in (
        gradients["spectral"]["out"],
        gradients["decoder"]["acoustics"],
        gradients["decoder"]["embed"],
    ):
        assert float(jnp.abs(part["kernel"]).max()) > 0
