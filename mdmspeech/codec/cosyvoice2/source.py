"""HiFT's excitation: F0 -> a mix of sines and noise at the sample rate (neural source-filter, Wang
et al. 2019; CosyVoice's SineGen2).

The phase of harmonic h is the running sum of h * F0 over frames, linear between frame centres and
constant in the first and the last half frame. It is counted in units of 2^-32 cycles in unsigned
integers, which wrap by themselves: the sum is exact however long the speech and however it is cut
into blocks. (The reference adds up radians in float32, which is off by 1e-3 after a second.) Its
random initial phases are left out: at these rates they reach no sample.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mdmspeech.codec.cosyvoice2.f0_predictor import EXACT
from mdmspeech.codec.cosyvoice2.hift_config import HiFTConfig
from mdmspeech.codec.cosyvoice2.hift_layers import Clock, Signal, Streamed


def draw_noise(
    key_B: jax.Array, first_frame: jax.Array | int, frames: int, config: HiFTConfig
) -> jax.Array:
    """White noise [B, frames * frame_samples, H]; that of a frame depends on the row's key (one an
    utterance) and the frame's index only.
    """

    def one(key, index):
        return jax.random.normal(
            jax.random.fold_in(key, index), (config.frame_samples, config.harmonics)
        )

    index_T = first_frame + jnp.arange(frames)
    noise = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(key_B, index_T)
    return noise.reshape(key_B.shape[0], -1, config.harmonics)


class Source(Streamed):
    """F0 [B, T, 1] in Hz -> excitation [B, T * frame_samples, 1] in (-1, 1), silent outside the rows."""

    config: HiFTConfig

    @nn.compact
    def __call__(self, f0: Signal, noise: jax.Array, clock: Clock) -> Signal:
        """`noise`: float [B, T * frame_samples, H], standard normal, or typed keys [B], from which
        `draw_noise` makes it.
        """
        c = self.config
        size, batch, frames = c.frame_samples, *f0.x_BTC.shape[:2]
        # One frame more: the phase of a frame's second half heads for the next frame's.
        wide_BT1 = (
            self.with_past(f0.x_BTC, 1, "f0")
            if self.stream
            else jnp.pad(f0.x_BTC, ((0, 0), (0, 1), (0, 0)))
        )
        cycles_BTH = _cycles(wide_BT1, c)
        if self.stream:
            ticks = self.variable("stream", "ticks", jnp.zeros, (batch, c.harmonics), jnp.uint32)
            phase_BTH = ticks.value[:, None] + jnp.pad(
                _summed(cycles_BTH[:, 1:]), ((0, 0), (1, 0), (0, 0))
            )
            ticks.value = phase_BTH[:, -1]
        else:
            phase_BTH = _summed(cycles_BTH)
        here = Signal(wide_BT1[:, :-1], delay=f0.delay + 1 if self.stream else 0)
        first_T = clock.positions(here) == 0
        toward_BTH = jnp.where(first_T[None, :, None], 0.0, cycles_BTH[:, :-1])
        place = ((jnp.arange(size) + 0.5) / size - 0.5)[None, None, :, None]
        slope = jnp.where(place < 0, toward_BTH[:, :, None], cycles_BTH[:, 1:, None])
        turn = phase_BTH[:, :-1, None].astype(jnp.float32) * 2.0**-32 + place * slope
        sines = c.sine_amplitude * jnp.sin(2 * jnp.pi * (turn % 1.0)).reshape(
            batch, frames * size, c.harmonics
        )
        voiced_BN1 = jnp.repeat(here.x_BTC > c.voiced_hz, size, axis=1)
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            noise = draw_noise(noise, clock.positions(here)[0], frames, c)
        mixed = jnp.where(voiced_BN1, sines + c.noise_std * noise, c.sine_amplitude / 3 * noise)
        self.sow("intermediates", "harmonics", mixed)
        wave_BN1 = jnp.tanh(nn.Dense(1, precision=EXACT, name="mix")(mixed))
        return clock.blank(Signal(wave_BN1, size, here.delay * size))


def _cycles(f0_BT1: jax.Array, config: HiFTConfig) -> jax.Array:
    """Cycles that each harmonic makes in each frame, [B, T, H]."""
    order = jnp.arange(1, config.harmonics + 1, dtype=jnp.float32)[None, None]
    return (f0_BT1 * order / config.sample_rate) % 1.0 * config.frame_samples


def _summed(cycles_BTH: jax.Array) -> jax.Array:
    """Running sum in uint32 units of 2^-32 cycles."""
    return jnp.cumsum((cycles_BTH % 1.0 * 2.0**32).astype(jnp.uint32), axis=1, dtype=jnp.uint32)
