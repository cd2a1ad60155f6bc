"""Neural source-filter synthesis with an inverse-STFT head.

The source is a band-limited pulse train that follows F0 (the neural source-filter idea, Wang et al. 2019) and white noise; the network gives
each a time-varying filter in the STFT domain (as iSTFT-head vocoders do), and one inverse STFT makes the wave. Because phase comes from F0, the
network never has to guess it, so a magnitude loss is enough to train it; nothing here needs a discriminator.

Streaming: a sample depends on a few neighbouring frames, on the phase at the start of its frame (one number, carried) and on the noise of
its own hop (keyed by the absolute frame index), so blocks can be synthesised one by one, exactly.
"""

import jax
import jax.numpy as jnp

from mdmspeech.audio import stft

_TOP_HARMONIC_HZ = 11_000.0


def frame_phases(f0_BT: jax.Array, hop: int, sample_rate: int, start_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Phase (cycles, in [0, 1)) at the start of every frame, [B, T], and after the last one, [B].

    A scan that wraps at every frame: float32 stays exact over any length, and a stream that carries the phase repeats the same additions.
    """
    advance = jnp.sum(_sample_f0(f0_BT, hop), axis=-1) / sample_rate

    def add(phase, step):
        return (phase + step) % 1.0, phase

    end, phases = jax.lax.scan(add, start_B, advance.T)
    return phases.T, end


def pulse_train(f0_BT: jax.Array, phase_BT: jax.Array, gate_BT: jax.Array, hop: int, sample_rate: int) -> jax.Array:
    """Sum of all harmonics below 11 kHz with unit amplitude, gated by voicing: [B, T*hop].

    Uses the closed form of sum_{h=1..H} cos(h t) (the Dirichlet kernel).
    """
    f0 = _sample_f0(f0_BT, hop)
    angle = 2 * jnp.pi * ((phase_BT[..., None] + jnp.cumsum(f0, axis=-1) / sample_rate) % 1.0)
    harmonics = jnp.floor(_TOP_HARMONIC_HZ / f0)
    half = jnp.sin(0.5 * angle)
    near = jnp.abs(half) < 1e-3
    ratio = jnp.sin((harmonics + 0.5) * angle) / jnp.where(near, 1.0, 2.0 * half)
    pulse = jnp.where(near, harmonics + 0.5, ratio) - 0.5
    # Equal power whatever the pitch: H harmonics of amplitude 1 have power H / 2.
    pulse = pulse * jax.lax.rsqrt(harmonics) * _interpolate(gate_BT, hop)
    return pulse.reshape(pulse.shape[0], -1)


def noise_source(key: jax.Array, first_frame_B: jax.Array, frames: int, hop: int) -> jax.Array:
    """White noise [B, frames*hop]; the noise of a frame depends on `key` and its absolute index only."""

    def one(index):
        return jax.random.normal(jax.random.fold_in(key, index), (hop,))

    index = first_frame_B[:, None] + jnp.arange(frames)[None, :]
    return jax.vmap(jax.vmap(one))(index).reshape(index.shape[0], -1)


def filter_sources(pulses_BN, noise_BN, harmonic_BTK, noise_BTK, phase_BTK, window: int, hop: int) -> jax.Array:
    """Shape both sources with their log-magnitudes (and the harmonic one with its phase) and return the wave [B, T*hop]."""
    gain = jnp.exp(jnp.minimum(harmonic_BTK, 8.0))
    turn = jax.lax.complex(gain * jnp.cos(phase_BTK), gain * jnp.sin(phase_BTK))
    shaped = stft.spectrum(pulses_BN, window, hop) * turn
    shaped = shaped + stft.spectrum(noise_BN, window, hop) * jnp.exp(jnp.minimum(noise_BTK, 8.0))
    return stft.inverse(shaped / (window / 4), window, hop)


def _sample_f0(f0_BT: jax.Array, hop: int) -> jax.Array:
    return jnp.maximum(_interpolate(f0_BT, hop), 40.0)


def _interpolate(values_BT: jax.Array, hop: int) -> jax.Array:
    """Frame values -> [B, T, hop], linear between frame centres, constant beyond the first and last centre."""
    padded = jnp.pad(values_BT, ((0, 0), (1, 1)), mode="edge")
    before, here, after = padded[:, :-2, None], padded[:, 1:-1, None], padded[:, 2:, None]
    place = ((jnp.arange(hop) + 0.5) / hop - 0.5)[None, None]
    return here + jnp.where(place < 0, (here - before) * place, (after - here) * place)
