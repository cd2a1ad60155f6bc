"""Log-mels against the golden arrays of the reference implementations, and what makes them safe in
batches.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close, note, same

from mdmspeech.audio.features import MelConfig, log_mel, pad_waves, whisper_log_mel
from mdmspeech.audio.stft import frames
from mdmspeech.errors import UserError

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
_whisper = jax.jit(whisper_log_mel, static_argnums=1, static_argnames="end")


@pytest.fixture(scope="module")
def waves():
    return np.load(GOLDEN / "waveform.npz")


@pytest.mark.parity
@pytest.mark.parametrize("num_mels", [80, 128])
def test_whisper_features(waves, num_mels):
    golden = np.load(GOLDEN / "whisper_logmel.npz")
    wave = waves["in.wav_16k"]
    padded = _whisper(pad_waves([wave], 480_000), num_mels)[0].T
    theirs = f"whisper_logmel mel{num_mels}.out."
    close(
        f"{theirs}padded30s_first320",
        padded[:, :320],
        golden[f"mel{num_mels}.out.padded30s_first320"],
        atol=1e-4,
    )
    close(
        f"{theirs}padded30s_tail_value",
        padded[:, 320:],
        golden[f"mel{num_mels}.out.padded30s_tail_value"],
        atol=1e-6,
    )
    plain = _whisper(wave[None], num_mels, end="reflect")[0].T
    same(f"{theirs}unpadded_frames", plain.shape[1], golden[f"mel{num_mels}.out.unpadded_frames"])
    close(
        f"{theirs}unpadded_last12",
        plain[:, -12:],
        golden[f"mel{num_mels}.out.unpadded_last12"],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        _whisper(wave[None], num_mels)[0].T, padded[:, : len(wave) // 160], atol=1e-6
    )


@pytest.mark.parity
def test_s3_features(waves):
    golden = np.load(GOLDEN / "s3_logmel.npz")
    mel = _whisper(waves["in.wav_16k"][None], 128, end="reflect")[0].T
    note(
        "waveform",
        f"{len(waves['in.wav_16k']) / 16_000:g} s of speech, the input of the other log-mels",
    )
    close("s3_logmel mel128.out.mel", mel, golden["mel128.out.mel"], atol=1e-4)


@pytest.mark.parity
def test_mel_24k(waves):
    golden = np.load(GOLDEN / "cosyvoice_mel24k.npz")
    wave = waves["in.wav_24k"][None]
    close("cosyvoice_mel24k out.mel", log_mel(wave)[0].T, golden["out.mel"][0], atol=1e-4)
    wide = log_mel(wave, MelConfig(fmax=None))[0].T
    close(
        "cosyvoice_mel24k fmax_none.out.mel_first20",
        wide[:, :20],
        golden["fmax_none.out.mel_first20"][0],
        atol=1e-4,
    )


def test_rows_do_not_depend_on_their_bucket():
    """A short loud row and a long quiet one: each has the features it has alone."""
    rng = np.random.default_rng(0)
    short, long = (
        rng.normal(size=4000).astype(np.float32),
        0.01 * rng.normal(size=9000).astype(np.float32),
    )
    batch = _whisper(pad_waves([short, long], 9600), 80)
    np.testing.assert_allclose(batch[0, :25], _whisper(short[None], 80)[0], atol=1e-5)
    np.testing.assert_allclose(batch[1, :56], _whisper(long[None], 80)[0], atol=1e-5)


def test_frames_are_slices():
    wave = jnp.arange(23.0)[None]
    got = frames(wave, 6, 4)
    assert got.shape == (1, 5, 6)
    np.testing.assert_array_equal(got[0, 2], np.arange(8, 14))


def test_log_mel_has_a_gradient_at_silence():
    grad = jax.jit(jax.grad(lambda wave: log_mel(wave).sum()))(jnp.zeros((1, 2400)))
    assert bool(jnp.isfinite(grad).all())


def test_bad_arguments_are_named(waves):
    with pytest.raises(UserError, match="too short for features"):
        whisper_log_mel(jnp.zeros((1, 100)))
    with pytest.raises(UserError, match="end must be"):
        whisper_log_mel(jnp.zeros((1, 1000)), end="zeros")
    with pytest.raises(UserError, match="wave 1 has 11 samples"):
        pad_waves([np.zeros(3), np.zeros(11)], 10)
