"""Neural source-filter synthesis with an inverse-STFT head.

The source is a band-limited pulse train that follows F0 (the neural source-filter idea, Wang et al.
2019) and white noise; the network gives each a time-varying filter in the STFT domain (as
iSTFT-head vocoders do), and one inverse STFT makes the wave. Because phase comes from F0, the
network never has to guess it, so a magnitude loss is enough to train it; nothing here needs a
discriminator.

Streaming: a sample depends on a few neighbouring frames, on the phase at the start of its token
(one number, carried) and on the noise of its own hop (keyed by the absolute frame index), so blocks
can be synthesised one by one. Two computations of the same speech differ by float32 noise in F0,
which would add up in the phase for ever: `lock` makes every token a whole number of 1/64 cycles
long, and the noise ends there.

B batch, T frames, H samples of a hop, N samples, K bins. Frames outside an utterance (`valid_BT`
False) are silent and have no neighbours: a padded row gives the same samples as the row alone.
"""

import jax
import jax.numpy as jnp

from mdmspeech.audio import stft

_TOP_HARMONIC_HZ = 11_000.0
_PARTS = 64  # phase steps a cycle


def control(values_BT: jax.Array, valid_BT: jax.Array, hop: int) -> jax.Array:
    """Frame values -> one a sample, [B, T, H]: linear between frame centres, constant beyond the
    first and last valid one.
    """
    padded, known = jnp.pad(values_BT, ((0, 0), (1, 1))), jnp.pad(valid_BT, ((0, 0), (1, 1)))
    here = values_BT[:, :, None]
    before = jnp.where(known[:, :-2, None], padded[:, :-2, None], here)
    after = jnp.where(known[:, 2:, None], padded[:, 2:, None], here)
    place = ((jnp.arange(hop) + 0.5) / hop - 0.5)[None, None]
    return here + jnp.where(place < 0, (here - before) * place, (after - here) * place)


def lock(f0_BTH: jax.Array, group: int, sample_rate: int) -> tuple[jax.Array, jax.Array]:
    """F0 changed by at most 0.2 % (at 100 Hz; less above) so that every `group` frames take a
    multiple of 1/64 cycles: (new F0, those cycles [B, T/group]).

    Rounding is what makes the phase exact: noise in F0 is lost in it, and float32 adds multiples of
    1/64 without error.
    """
    batch, frames, hop = f0_BTH.shape
    grouped = f0_BTH.reshape(batch, frames // group, group * hop)
    cycles = jnp.sum(grouped, axis=-1) / sample_rate
    whole = jnp.maximum(jnp.round(cycles * _PARTS), 1.0) / _PARTS
    return (grouped * (whole / cycles)[..., None]).reshape(f0_BTH.shape), whole


def group_phases(cycles_BL: jax.Array, restart_BL: jax.Array, start_B: jax.Array) -> jax.Array:
    """Phase (cycles, in [0, 1)) at the start of every group of frames and after the last one,
    [B, L + 1]; exact if `start_B` is.

    cycles_BL: from `lock`. restart_BL: groups that begin at phase 0.
    """

    def add(phase, group):
        cycles, restart = group
        phase = jnp.where(restart, 0.0, phase)
        return (phase + cycles) % 1.0, phase

    end, phases = jax.lax.scan(add, start_B, (cycles_BL.T, restart_BL.T))
    return jnp.concatenate([phases.T, end[:, None]], axis=1)


def frame_phases(f0_BTH: jax.Array, phase_BL: jax.Array, sample_rate: int) -> jax.Array:
    """Phase at the start of every frame [B, T], from those of the groups [B, L] and (locked) F0."""
    batch, frames, _ = f0_BTH.shape
    groups = phase_BL.shape[1]
    advance = (jnp.sum(f0_BTH, axis=-1) / sample_rate).reshape(batch, groups, frames // groups)
    inside = jnp.cumsum(jnp.pad(advance[..., :-1] % 1.0, ((0, 0), (0, 0), (1, 0))), axis=-1)
    return ((phase_BL[..., None] + inside) % 1.0).reshape(batch, frames)


def begins(valid_BT: jax.Array) -> jax.Array:
    """bool [B, T]: the first frames of utterances. Nothing is known of the frame before the first,
    so that one is not meant.
    """
    return valid_BT & ~jnp.pad(valid_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)


def pulse_train(
    f0_BTH: jax.Array, phase_BT: jax.Array, gate_BTH: jax.Array, sample_rate: int
) -> jax.Array:
    """Sum of all harmonics below 11 kHz with unit amplitude, gated by voicing: [B, T*H].

    Uses the closed form of sum_{h=1..H} cos(h t) (the Dirichlet kernel); H is that of the frame's
    highest F0.
    """
    angle = 2 * jnp.pi * ((phase_BT[..., None] + jnp.cumsum(f0_BTH, axis=-1) / sample_rate) % 1.0)
    harmonics = jnp.floor(_TOP_HARMONIC_HZ / jnp.max(f0_BTH, axis=-1, keepdims=True))
    half = jnp.sin(0.5 * angle)
    near = jnp.abs(half) < 1e-3
    ratio = jnp.sin((harmonics + 0.5) * angle) / jnp.where(near, 1.0, 2.0 * half)
    pulse = jnp.where(near, harmonics + 0.5, ratio) - 0.5
    # Equal power whatever the pitch: H harmonics of amplitude 1 have power H / 2.
    pulse = pulse * jax.lax.rsqrt(harmonics) * gate_BTH
    return pulse.reshape(pulse.shape[0], -1)


def noise_source(key: jax.Array, first_frame_B: jax.Array, frames: int, hop: int) -> jax.Array:
    """White noise [B, frames*hop]; the noise of a frame depends on `key` and its absolute index only."""

    def one(index):
        return jax.random.normal(jax.random.fold_in(key, index), (hop,))

    index = first_frame_B[:, None] + jnp.arange(frames)[None, :]
    return jax.vmap(jax.vmap(one))(index).reshape(index.shape[0], -1)


def filter_sources(
    pulses_BN, noise_BN, harmonic_BTK, noise_BTK, phase_BTK, valid_BT, window: int, hop: int
) -> jax.Array:
    """Shape both sources with their log-magnitudes (and the harmonic one with its phase) and return
    the wave [B, T*H].
    """
    heard_BN = jnp.repeat(valid_BT.astype(pulses_BN.dtype), hop, axis=1)
    gain = jnp.exp(jnp.minimum(harmonic_BTK, 8.0))
    turn = jax.lax.complex(gain * jnp.cos(phase_BTK), gain * jnp.sin(phase_BTK))
    shaped = stft.spectrum(pulses_BN * heard_BN, window, hop) * turn
    shaped = shaped + stft.spectrum(noise_BN * heard_BN, window, hop) * jnp.exp(
        jnp.minimum(noise_BTK, 8.0)
    )
    return stft.inverse(shaped * valid_BT[..., None] / (window / 4), window, hop) * heard_BN
