"""The short-time Fourier transform inside compiled models: `stft` of a wave as it is, and
`spectrum` / `inverse` with frames that tile the signal.

Framing and overlap-add are reshapes and shifted concatenations, never gathers: exact, cheap on
every backend, and a frame depends on nothing but its own samples, which is what makes streamed
synthesis equal to one-shot synthesis. (`host_features` has its own in numpy, for input pipelines;
HiFT's in `codec.cosyvoice2.hift_stft` has the edges of torch.istft, and streams.)
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def hann(size: int) -> np.ndarray:
    """Periodic Hann window, float32 [size]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def frames(wave_BN: jax.Array, size: int, hop: int) -> jax.Array:
    """Overlapping frames [B, 1 + (N - size) // hop, size]; the first begins with the first sample.

    Built from strided slices of gcd(size, hop) samples instead of a gather, whose gradient is a
    slow scatter.
    """
    unit = math.gcd(size, hop)
    count = 1 + (wave_BN.shape[1] - size) // hop
    units_BUG = wave_BN[:, : wave_BN.shape[1] // unit * unit].reshape(wave_BN.shape[0], -1, unit)
    stride = hop // unit
    parts = [units_BUG[:, j : j + (count - 1) * stride + 1 : stride] for j in range(size // unit)]
    return jnp.concatenate(parts, axis=-1)


def tiled_frames(wave_BN: jax.Array, size: int, hop: int) -> jax.Array:
    """[B, T*hop] -> [B, T, size]: frame t is centred on samples [t*hop, (t+1)*hop), zeros outside
    of the signal. Needs size % hop == 0 and an even size - hop.
    """
    if size % hop or (size - hop) % 2 or wave_BN.shape[1] % hop:
        raise ValueError(
            f"frames: window {size}, hop {hop}, {wave_BN.shape[1]} samples: the "
            "hop must divide both, and window - hop must be even"
        )
    pad = (size - hop) // 2
    return frames(jnp.pad(wave_BN, ((0, 0), (pad, pad))), size, hop)


def overlap_add(frames_BTW: jax.Array, hop: int) -> jax.Array:
    """Adjoint of `tiled_frames`: [B, T, size] -> [B, T*hop]; what falls outside the signal is cut."""
    batch, count, size = frames_BTW.shape
    ratio = size // hop
    padded = jnp.zeros((batch, count + ratio - 1, hop), frames_BTW.dtype)
    parts = frames_BTW.reshape(batch, count, ratio, hop)
    for k in range(ratio):
        padded = padded.at[:, k : k + count].add(parts[:, :, k])
    pad = (size - hop) // 2
    return padded.reshape(batch, -1)[:, pad : pad + count * hop]


def stft(wave_BN: jax.Array, size: int, hop: int) -> jax.Array:
    """Complex spectrum [B, T, size/2+1] of un-centred frames under a periodic Hann window; pad
    before if you want centring.
    """
    return _windowed(frames(wave_BN, size, hop))


def spectrum(wave_BN: jax.Array, size: int, hop: int) -> jax.Array:
    """The same of frames that tile the signal, T = N / hop."""
    return _windowed(tiled_frames(wave_BN, size, hop))


def _windowed(frames_BTW: jax.Array) -> jax.Array:
    return jnp.fft.rfft(frames_BTW * jnp.asarray(hann(frames_BTW.shape[-1]))[None, None], axis=-1)


def inverse(spectrum_BTK: jax.Array, size: int, hop: int) -> jax.Array:
    """Windowed overlap-add inverse of `spectrum`, exact inside the signal when size / hop >= 4;
    fades at its two ends.
    """
    window = jnp.asarray(hann(size))[None, None]
    frames = jnp.fft.irfft(spectrum_BTK, n=size, axis=-1) * window
    return overlap_add(frames, hop) / (np.sum(hann(size) ** 2) / hop)


def magnitude(spectrum_BTK: jax.Array, floor: float = 1e-5) -> jax.Array:
    """|S| with a finite gradient at zero."""
    return jnp.sqrt(jnp.square(spectrum_BTK.real) + jnp.square(spectrum_BTK.imag) + floor**2)


def log_mel(wave_BN: jax.Array, basis_KM: np.ndarray, size: int, hop: int) -> jax.Array:
    """Natural-log mel magnitudes [B, T, M]."""
    mel = magnitude(spectrum(wave_BN, size, hop)) @ jnp.asarray(basis_KM)
    return jnp.log(jnp.maximum(mel, 1e-5))
