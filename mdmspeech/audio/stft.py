"""Short-time Fourier transforms whose frames tile the signal: frame t is centred on samples [t*hop, (t+1)*hop).

The hop divides the window, so framing and overlap-add are reshapes and shifted concatenations, never gathers: exact, cheap on every
backend, and a frame depends on nothing but its own samples, which is what makes streamed synthesis equal to one-shot synthesis.
"""

import jax
import jax.numpy as jnp
import numpy as np


def hann(size: int) -> np.ndarray:
    """Periodic Hann window, float32 [size]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def frame(wave_BN: jax.Array, size: int, hop: int) -> jax.Array:
    """[B, T*hop] -> [B, T, size], zero-padded by (size - hop) / 2 on both sides. Needs size % hop == 0 and an even size - hop."""
    batch, samples = wave_BN.shape
    if size % hop or (size - hop) % 2 or samples % hop:
        raise ValueError(f"frame: window {size}, hop {hop}, {samples} samples: the hop must divide both, and window - hop must be even")
    pad = (size - hop) // 2
    count, ratio = samples // hop, size // hop
    if pad % hop == 0:
        blocks = jnp.pad(wave_BN, ((0, 0), (pad, pad))).reshape(batch, -1, hop)
        return jnp.concatenate([blocks[:, k : k + count] for k in range(ratio)], axis=-1)
    half = hop // 2  # an even ratio puts the padding on half blocks
    blocks = jnp.pad(wave_BN, ((0, 0), (pad, pad))).reshape(batch, -1, half)
    return jnp.concatenate([blocks[:, k : k + 2 * count : 2] for k in range(2 * ratio)], axis=-1)


def overlap_add(frames_BTW: jax.Array, hop: int) -> jax.Array:
    """Adjoint of `frame`: [B, T, size] -> [B, T*hop]; what falls outside the signal is cut."""
    batch, count, size = frames_BTW.shape
    ratio = size // hop
    padded = jnp.zeros((batch, count + ratio - 1, hop), frames_BTW.dtype)
    parts = frames_BTW.reshape(batch, count, ratio, hop)
    for k in range(ratio):
        padded = padded.at[:, k : k + count].add(parts[:, :, k])
    pad = (size - hop) // 2
    return padded.reshape(batch, -1)[:, pad : pad + count * hop]


def spectrum(wave_BN: jax.Array, size: int, hop: int) -> jax.Array:
    """Complex STFT [B, T, size/2+1] of Hann-windowed frames."""
    return jnp.fft.rfft(frame(wave_BN, size, hop) * jnp.asarray(hann(size))[None, None], axis=-1)


def inverse(spectrum_BTK: jax.Array, size: int, hop: int) -> jax.Array:
    """Windowed overlap-add inverse of `spectrum`, exact inside the signal when size / hop >= 4; fades at its two ends."""
    window = jnp.asarray(hann(size))[None, None]
    frames = jnp.fft.irfft(spectrum_BTK, n=size, axis=-1) * window
    return overlap_add(frames, hop) / (np.sum(hann(size) ** 2) / hop)


def magnitude(spectrum_BTK: jax.Array, floor: float = 1e-5) -> jax.Array:
    """|S| with a finite gradient at zero."""
    return jnp.sqrt(jnp.square(spectrum_BTK.real) + jnp.square(spectrum_BTK.imag) + floor**2)


def log_mel(wave_BN: jax.Array, basis_KM: np.ndarray, size: int, hop: int, floor: float = 1e-5) -> jax.Array:
    """Natural-log mel magnitudes [B, T, M]."""
    mel = magnitude(spectrum(wave_BN, size, hop)) @ jnp.asarray(basis_KM)
    return jnp.log(jnp.maximum(mel, floor))
