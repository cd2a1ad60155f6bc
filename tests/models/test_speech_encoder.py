"""The speech encoder against golden Whisper encoders, and against itself in bucketed batches."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close, same
from random_params import random_params
from stacked_layers import stack_layers

from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import encoder_config, encoder_params
from mdmspeech.interop.tensors import read_tensors
from mdmspeech.models.speech_encoder import (
    SpeechEncoder,
    SpeechEncoderConfig,
    encode_waves,
    frame_mask,
    sinusoids,
)

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
TINY = SpeechEncoderConfig(
    num_mels=6, dim=16, num_layers=2, num_heads=2, ffn_dim=24, max_positions=20
)


@pytest.mark.parity
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("name", ["hf_whisper80", "hf_whisper128"])
def test_golden(name, scan):
    config = encoder_config(
        json.loads((GOLDEN / f"{name}.json").read_text())["config"]["hf_config"]
    )
    params = encoder_params(config, read_tensors(GOLDEN / f"{name}.safetensors"), name)
    if scan:
        config, params = (
            dataclasses.replace(config, scan_layers=True),
            {**params, "layers": stack_layers(params["layers"])},
        )
    golden = np.load(GOLDEN / f"{name}.npz")
    mel = golden["in.input_features"].swapaxes(1, 2)
    apply = jax.jit(
        SpeechEncoder(config).apply, static_argnames=("capture_intermediates", "mutable")
    )
    states, inside = apply(
        {"params": params}, mel, capture_intermediates=not scan, mutable="intermediates"
    )
    close(f"{name} out.last_hidden_state", states, golden["out.last_hidden_state"], atol=1e-4)
    if not scan:
        inside = inside["intermediates"]
        embedded = (
            jax.nn.gelu(inside["conv2"]["__call__"][0], approximate=False)
            + params["positions"][None]
        )
        close(f"{name} out.embedded", embedded, golden["out.embedded"], atol=1e-4)
        close(
            f"{name} out.layer0",
            inside["layers"]["0"]["__call__"][0][0],
            golden["out.layer0"],
            atol=1e-4,
        )


@pytest.fixture(scope="module")
def tiny():
    encoder = SpeechEncoder(TINY)
    params = encoder.init(jax.random.key(0), jnp.zeros((1, 8, 6)))
    noise = jax.tree.leaves(params)
    keys = jax.random.split(jax.random.key(1), len(noise))
    leaves = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(noise, keys, strict=True)
    ]
    return jax.jit(encoder.apply), jax.tree.unflatten(jax.tree.structure(params), leaves)


@pytest.mark.slow
@pytest.mark.parity
def test_masked_rows_equal_single_rows(tiny):
    """Odd and even lengths in one bucket; what stands in the padding is anything but zero."""
    apply, params = tiny
    mel = 1 + jax.random.normal(jax.random.key(2), (3, 24, 6))
    lengths = jnp.array([24, 13, 10])
    states = apply(params, mel, frame_mask(lengths, 24))
    for row, length in enumerate(lengths.tolist()):
        alone = apply(params, mel[row : row + 1, :length])
        assert alone.shape == (1, (length + 1) // 2, 16)
        close(
            "ragged rows equal single rows: speech encoder",
            states[row, : (length + 1) // 2],
            alone[0],
            atol=2e-5,
        )


def test_any_length_uses_the_head_of_the_position_table(tiny):
    apply, params = tiny
    mel = jax.random.normal(jax.random.key(3), (1, 40, 6))
    assert apply(params, mel).shape == (1, 20, 16)
    assert apply(params, mel[:, :7]).shape == (1, 4, 16)
    table = sinusoids(1500, 512)
    assert (
        table.shape == (1500, 512)
        and abs(table[1, 0] - np.sin(1)) < 1e-6
        and abs(table[7, 256] - np.cos(7)) < 1e-6
    )


def test_bad_input_is_named(tiny):
    apply, params = tiny
    with pytest.raises(UserError, match=r"0.42 s is too long for this encoder, the limit is 0.4 s"):
        apply(params, jnp.zeros((1, 42, 6)))
    with pytest.raises(UserError, match="takes 6 mel bins, got 8"):
        apply(params, jnp.zeros((1, 10, 8)))


@pytest.mark.slow
def test_waves_are_heard_with_silence_after_them():
    config = SpeechEncoderConfig(
        num_mels=80, dim=32, num_layers=1, num_heads=2, ffn_dim=48, max_positions=100
    )
    encoder = SpeechEncoder(config)
    params = random_params(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 80)))["params"]
    waves = 0.1 * np.random.default_rng(0).normal(size=(2, 12_800)).astype(np.float32)
    waves[1, 8_000:] = 0
    states, valid = encode_waves(encoder, params, jnp.asarray(waves), jnp.array([12_800, 8_000]))
    assert states.shape == (2, 90, 32)  # 0.8 s and one second
    assert np.asarray(valid).sum(axis=1).tolist() == [90, 75]
    alone, _ = encode_waves(encoder, params, jnp.asarray(waves[1:, :8_000]), jnp.array([8_000]))
    np.testing.assert_allclose(alone[0], states[1, :75], atol=1e-5)
    # The table of positions has room for 2 s: a wave of 1.8 s gets what is left.
    states, valid = encode_waves(encoder, params, jnp.zeros((1, 28_800)), jnp.array([28_800]))
    assert states.shape[1] == 100 and bool(valid.all())


@pytest.mark.parity
@pytest.mark.parametrize("num_mels", [80, 128])
def test_frames_of_a_wave_are_counted_as_whisper_does(num_mels):
    wave, golden = (
        np.load(GOLDEN / "waveform.npz")["in.wav_16k"],
        np.load(GOLDEN / "whisper_logmel.npz"),
    )
    config = SpeechEncoderConfig(
        num_mels=num_mels,
        dim=8,
        num_layers=1,
        num_heads=1,
        ffn_dim=8,
        max_positions=-(-len(wave) // 320),
    )
    encoder = SpeechEncoder(config)  # no room for a tail of silence: what counts is speech
    params = random_params(encoder.init, jax.random.key(0), jnp.zeros((1, 8, num_mels)))["params"]
    _, valid = encode_waves(encoder, params, jnp.asarray(wave)[None], jnp.array([len(wave)]))
    theirs = golden[f"mel{num_mels}.out.attention_mask_frames"]
    same(
        f"whisper_logmel mel{num_mels}.out.attention_mask_frames",
        np.asarray(valid).sum(),
        -(-theirs // 2),
    )


def test_a_row_without_speech_has_no_states():
    config = SpeechEncoderConfig(
        num_mels=80, dim=32, num_layers=1, num_heads=2, ffn_dim=48, max_positions=100
    )
    encoder = SpeechEncoder(config)
    params = random_params(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 80)))["params"]
    _, valid = encode_waves(encoder, params, jnp.zeros((2, 8_000)), jnp.array([8_000, 0]))
    assert np.asarray(valid).any(axis=1).tolist() == [True, False]
