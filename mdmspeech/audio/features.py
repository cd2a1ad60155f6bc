"""Log-mel features as pure JAX functions of static shape, so that they run inside jit on any
device.

Two families: Whisper's (16 kHz, log10 of the power) for the speech encoder and for speech
tokenizers of the S3 kind, and the natural-log mel of vocoders (`log_mel`), by default CosyVoice2's
at 24 kHz.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio.mel import mel_filters
from mdmspeech.audio.stft import stft
from mdmspeech.errors import UserError
from mdmspeech.speech_format import INPUT_RATE, OUTPUT_RATE, WHISPER_FFT, WHISPER_HOP


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """Parameters of `log_mel`; the defaults are CosyVoice2's (50 frames a second at 24 kHz).

    Attributes:
      rate: Hz. n_fft, hop: samples; the window is a periodic Hann of n_fft. fmin, fmax: edges of
        the filters in Hz.
      floor: smallest mel magnitude before the logarithm.
    """

    rate: int = OUTPUT_RATE
    n_fft: int = 1920
    hop: int = 480
    num_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = 8000.0
    floor: float = 1e-5


def log_mel(wave_BN: jax.Array, config: MelConfig = MelConfig()) -> jax.Array:
    """Natural log of mel magnitudes [B, floor(N / hop), num_mels], with reflected edges (HiFi-GAN's
    convention).

    Raises:
      UserError: the wave is too short to be reflected.
    """
    spectrum = stft(_reflect(wave_BN, (config.n_fft - config.hop) // 2), config.n_fft, config.hop)
    # smooth at 0: has a gradient
    magnitude = jnp.sqrt(jnp.square(spectrum.real) + jnp.square(spectrum.imag) + 1e-9)
    filters_FM = mel_filters(config.rate, config.n_fft, config.num_mels, config.fmin, config.fmax)
    return jnp.log(jnp.maximum(magnitude @ filters_FM, config.floor))


def whisper_log_mel(wave_BN: jax.Array, num_mels: int = 80, *, end: str = "silence") -> jax.Array:
    """Whisper's features [B, floor(N / 160), num_mels] of 16 kHz waves (Radford et al., 2022).

    Power mel -> log10 with floor 1e-10 -> clipped at 8 below the row's maximum -> (x + 4) / 4.

    Args:
      num_mels: 80 (Whisper up to large-v2) or 128 (large-v3, S3).
      end: what follows the wave: "silence" (a wave padded with zeros to any length, or not padded,
        has the same first frames: what Whisper sees when it pads to 30 s, and what makes bucketed
        batches equal to single rows) or "reflect" (Whisper's un-padded features; also S3's).

    Raises:
      UserError: the wave is too short, or an unknown `end`.
    """
    half = WHISPER_FFT // 2
    if end == "reflect":
        padded_BN = _reflect(wave_BN, half)
    elif end == "silence":
        padded_BN = jnp.pad(
            _reflect(wave_BN, half)[:, : half + wave_BN.shape[1]], ((0, 0), (0, half))
        )
    else:
        raise UserError(f"end must be 'silence' or 'reflect', got {end!r}")
    mel_BTM = _log10_mel(padded_BN, wave_BN.shape[1] // WHISPER_HOP, num_mels)
    return _compress(mel_BTM, mel_BTM.max(axis=(1, 2), keepdims=True))


def s3_log_mel(wave_BN: jax.Array, samples_B: jax.Array, num_mels: int = 128) -> jax.Array:
    """Features of the S3 speech tokenizer [B, floor(N / 160), num_mels] of 16 kHz waves: Whisper's
    with `end="reflect"`, for ragged rows.

    Each row has the features it has alone (its own end is reflected, its own maximum clips), and
    zeros behind.

    Args:
      wave_BN: what stands behind the end of a row is not looked at.
      samples_B: int, length of each row: more than 200 samples (it is traced, so the caller checks
        it).
    """
    half, count = WHISPER_FFT // 2, wave_BN.shape[1] // WHISPER_HOP
    last_B1 = samples_B[:, None] - 1
    place_1P = jnp.abs(jnp.arange(wave_BN.shape[1] + 2 * half) - half)[None, :]
    place_BP = jnp.maximum(last_B1 - jnp.abs(last_B1 - place_1P), 0)
    mel_BTM = _log10_mel(jnp.take_along_axis(wave_BN, place_BP, axis=1), count, num_mels)
    real_BT1 = (jnp.arange(count)[None, :] < samples_B[:, None] // WHISPER_HOP)[:, :, None]
    loudest_B11 = jnp.where(real_BT1, mel_BTM, -jnp.inf).max(axis=(1, 2), keepdims=True)
    return jnp.where(real_BT1, _compress(mel_BTM, loudest_B11), 0.0)


def pad_waves(waves: list[np.ndarray], length: int) -> np.ndarray:
    """Stacks waves into float32 [B, length], zeros after each.

    Raises:
      UserError: a wave is longer than `length`.
    """
    out = np.zeros((len(waves), length), np.float32)
    for row, wave_N in enumerate(waves):
        if len(wave_N) > length:
            raise UserError(
                f"wave {row} has {len(wave_N)} samples, the bucket only {length}; "
                "choose a longer bucket"
            )
        out[row, : len(wave_N)] = wave_N
    return out


def _reflect(wave_BN: jax.Array, pad: int) -> jax.Array:
    if wave_BN.shape[1] <= pad:
        raise UserError(
            f"a wave of {wave_BN.shape[1]} samples is too short for features; more "
            f"than {pad} are needed"
        )
    return jnp.pad(wave_BN, ((0, 0), (pad, pad)), mode="reflect")


def _log10_mel(padded_BN: jax.Array, count: int, num_mels: int) -> jax.Array:
    """log10 of the first `count` frames' mel power [B, count, num_mels], of waves that are already
    padded for centred frames.
    """
    spectrum = stft(padded_BN, WHISPER_FFT, WHISPER_HOP)[:, :count]  # the last frame is dropped
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log10(
        jnp.maximum(power @ mel_filters(INPUT_RATE, WHISPER_FFT, num_mels, 0.0, None), 1e-10)
    )


def _compress(mel_BTM: jax.Array, loudest_B11: jax.Array) -> jax.Array:
    return (jnp.maximum(mel_BTM, loudest_B11 - 8.0) + 4.0) / 4.0
