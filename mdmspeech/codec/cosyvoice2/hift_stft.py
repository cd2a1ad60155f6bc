"""The two 16-sample Fourier transforms of HiFT, as matrix products: STFT of the source, inverse
STFT of the speech.

Frame j is centred on sample j * hop, so N samples have N / hop + 1 frames; before its first and
behind its last sample the source is mirrored, and the inverse divides by the squares of just those
windows that exist: both as in torch.stft / torch.istft (center=True, periodic Hann).
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mdmspeech.audio.stft import hann
from mdmspeech.codec.cosyvoice2.f0_predictor import EXACT
from mdmspeech.codec.cosyvoice2.hift_layers import Clock, Signal, Streamed


class Spectrum(Streamed):
    """Wave [B, N, 1] -> real parts, then imaginary parts of its STFT, [B, N / hop + 1, size + 2]."""

    size: int
    hop: int

    @nn.compact
    def __call__(self, wave: Signal, clock: Clock) -> Signal:
        half, hop, x_BN1 = self.size // 2, self.hop, wave.x_BTC
        if self.stream:
            # The newest frame needs samples up to its centre + half (the mirror's, in frame 0), the
            # oldest one its centre - half - 1.
            delay = -(-(wave.delay + 1 - hop + half) // hop)
            left = hop * delay - wave.delay + half + 1
            x_BN1, count = self.with_past(x_BN1, left), x_BN1.shape[1] // hop
        else:
            delay, left, count = 0, 0, x_BN1.shape[1] // hop + 1
        rate, length_B1 = wave.rate, clock.length_B[:, None]
        begin = clock.first * rate - delay * hop - half
        at_BN = begin + jnp.arange((count - 1) * hop + self.size)[None]
        last_B1 = length_B1 * rate - 1
        at_BN = jnp.where(at_BN > last_B1, 2 * last_B1 - at_BN, jnp.abs(at_BN))
        local_BN = at_BN - (clock.first * rate - wave.delay - left)
        mirrored_BN = jnp.take_along_axis(
            x_BN1[..., 0], jnp.clip(local_BN, 0, x_BN1.shape[1] - 1), axis=1
        )
        blocks = mirrored_BN.reshape(x_BN1.shape[0], -1, hop)
        frames = jnp.concatenate(
            [blocks[:, k : k + count] for k in range(self.size // hop)], axis=2
        )
        spectrum = jnp.matmul(frames, jnp.asarray(_forward(self.size)), precision=EXACT)
        return clock.blank(Signal(spectrum, rate // hop, delay, 1))


class Inverse(Streamed):
    """Log-magnitudes, then phases [B, J, size + 2] -> wave [B, (J - 1) * hop, 1]. CosyVoice's head:
    magnitude at most 100, phase = sin(x).
    """

    size: int
    hop: int

    @nn.compact
    def __call__(self, frames: Signal, clock: Clock) -> Signal:
        bins, hop, ratio = self.size // 2 + 1, self.hop, self.size // self.hop
        gain, phase = (
            jnp.minimum(jnp.exp(frames.x_BTC[..., :bins]), 1e2),
            jnp.sin(frames.x_BTC[..., bins:]),
        )
        spectrum = jnp.concatenate([gain * jnp.cos(phase), gain * jnp.sin(phase)], axis=2)
        parts = jnp.matmul(spectrum, jnp.asarray(_backward(self.size)), precision=EXACT)
        heard = clock.heard(frames)[..., None]
        parts = jnp.concatenate([jnp.where(heard, parts, 0), heard.astype(parts.dtype)], axis=2)
        # Samples [q * hop, (q + 1) * hop) lie under frames q - before ... q + after.
        after = ratio // 2
        before = ratio - 1 - after
        if self.stream:
            wide, count, delay = (
                self.with_past(parts, ratio - 1),
                parts.shape[1],
                frames.delay + after,
            )
        else:
            wide, count, delay = (
                jnp.pad(parts, ((0, 0), (before, after), (0, 0))),
                parts.shape[1] - 1,
                0,
            )
        total, weight = (
            jnp.zeros((parts.shape[0], count, hop)),
            jnp.zeros((parts.shape[0], count, hop)),
        )
        for k in range(ratio):
            cut = slice((ratio - 1 - k) * hop, (ratio - k) * hop)
            total += wide[:, k : k + count, cut]
            weight += (
                wide[:, k : k + count, -1:] * jnp.asarray(hann(self.size) ** 2)[None, None, cut]
            )
        wave_BN1 = (total / jnp.maximum(weight, 1e-11)).reshape(parts.shape[0], count * hop, 1)
        return clock.blank(Signal(wave_BN1, frames.rate * hop, delay * hop))


def _forward(size: int) -> np.ndarray:
    """Hann window and real DFT, float32 [size, size + 2]."""
    spectra = np.fft.rfft(np.diag(hann(size).astype(np.float64)), axis=1)
    return np.concatenate([spectra.real, spectra.imag], axis=1).astype(np.float32)


def _backward(size: int) -> np.ndarray:
    """Real inverse DFT and Hann window, float32 [size + 2, size]; the imaginary parts at 0 and at
    half the sample rate count for nothing.
    """
    unit = np.eye(size // 2 + 1)
    return (np.fft.irfft(np.concatenate([unit, 1j * unit]), n=size, axis=1) * hann(size)).astype(
        np.float32
    )
