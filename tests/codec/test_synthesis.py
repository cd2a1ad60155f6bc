"""STFT and source: inversion inside the signal, phases that continue and restart, pulses at the
pitch asked for, noise keyed by the frame.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.audio import stft
from mdmspeech.codec.compact import synthesis

RATE, HOP = 24_000, 240


def test_inverse_of_the_spectrum_is_the_signal_inside():
    wave = jax.random.normal(jax.random.key(0), (2, 40 * HOP))
    back = stft.inverse(stft.spectrum(wave, 960, HOP), 960, HOP)
    np.testing.assert_allclose(back[:, 960:-960], wave[:, 960:-960], atol=1e-5)


def test_overlap_add_is_the_adjoint_of_framing():
    keys = jax.random.split(jax.random.key(1))
    wave, frames = (
        jax.random.normal(keys[0], (1, 10 * HOP)),
        jax.random.normal(keys[1], (1, 10, 960)),
    )
    left = jnp.vdot(stft.tiled_frames(wave, 960, HOP), frames)
    np.testing.assert_allclose(left, jnp.vdot(wave, stft.overlap_add(frames, HOP)), rtol=1e-4)


def test_framing_refuses_sizes_that_do_not_tile():
    with pytest.raises(ValueError, match="the hop must divide both"):
        stft.tiled_frames(jnp.zeros((1, 1000)), 960, HOP)


def glide(frames, seed=2):
    """F0 per sample [1, frames, HOP] that goes up and down."""
    f0 = 100.0 + 150.0 * jax.random.uniform(jax.random.key(seed), (1, frames))
    return synthesis.control(f0, jnp.ones((1, frames), bool), HOP)


def test_locking_hardly_changes_the_pitch_and_makes_tokens_whole():
    f0 = glide(40)
    locked, cycles = synthesis.lock(f0, 4, RATE)
    assert float(jnp.abs(locked / f0 - 1).max()) < 0.002
    np.testing.assert_array_equal(cycles * 64, jnp.round(cycles * 64))
    np.testing.assert_allclose(locked.reshape(1, 10, -1).sum(axis=-1) / RATE, cycles, rtol=1e-5)


def test_locking_takes_noise_out_of_the_phase():
    f0 = glide(4000)
    noisy = f0 * (1 + 3e-7 * jax.random.normal(jax.random.key(5), f0.shape[:2])[..., None])
    never = jnp.zeros((1, 1000), bool)
    ends = [
        synthesis.group_phases(synthesis.lock(x, 4, RATE)[1], never, jnp.zeros(1))
        for x in (f0, noisy)
    ]
    np.testing.assert_array_equal(*ends)


def test_phases_continue_over_a_cut_and_from_frame_to_frame():
    locked, cycles = synthesis.lock(glide(20), 4, RATE)
    never = jnp.zeros((1, 5), bool)
    groups = synthesis.group_phases(cycles, never, jnp.zeros(1))
    second = synthesis.group_phases(cycles[:, 3:], never[:, 3:], groups[:, 3])
    np.testing.assert_array_equal(second, groups[:, 3:])
    frames = synthesis.frame_phases(locked, groups[:, :-1], RATE)
    expected = jnp.cumsum(jnp.sum(locked, axis=-1), axis=1)[:, :-1] / RATE
    turned = (frames[:, 1:] - expected + 0.5) % 1.0 - 0.5
    np.testing.assert_allclose(turned, 0.0, atol=1e-4)


def test_the_first_token_of_a_padded_utterance_starts_at_phase_0():
    valid = jnp.repeat(jnp.array([[False, True, True]]), 4, axis=1)
    begins = synthesis.begins(valid)[:, ::4]
    np.testing.assert_array_equal(begins, [[False, True, False]])
    phases = synthesis.group_phases(jnp.full((1, 3), 5.25), begins, jnp.full(1, 0.3))
    np.testing.assert_array_equal(phases[0, 1:], [0.0, 0.25, 0.5])


def test_invalid_neighbours_leave_no_trace_in_the_controls():
    values = jnp.array([[9.0, 1.0, 2.0, 7.0]])
    valid = jnp.array([[False, True, True, False]])
    alone = synthesis.control(values[:, 1:3], jnp.ones((1, 2), bool), HOP)
    np.testing.assert_array_equal(synthesis.control(values, valid, HOP)[:, 1:3], alone)


def test_pulses_have_the_pitch_and_the_power_asked_for():
    frames = 48
    for hertz in (100.0, 240.0):
        f0, cycles = synthesis.lock(jnp.full((1, frames, HOP), hertz), 4, RATE)
        groups = synthesis.group_phases(cycles, jnp.zeros(cycles.shape, bool), jnp.zeros(1))
        phases = synthesis.frame_phases(f0, groups[:, :-1], RATE)
        wave = np.asarray(synthesis.pulse_train(f0, phases, jnp.ones((1, frames, HOP)), RATE))[0]
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        assert (
            abs(np.argmax(power[: int(1.5 * hertz * len(wave) / RATE)]) * RATE / len(wave) - hertz)
            < 3
        )
        assert 0.3 < np.mean(wave**2) < 0.7


def test_noise_of_a_frame_depends_on_its_absolute_number_only():
    key = jax.random.key(3)
    whole = synthesis.noise_source(key, jnp.array([0]), 10, HOP)
    late = synthesis.noise_source(key, jnp.array([6]), 4, HOP)
    np.testing.assert_array_equal(whole[:, 6 * HOP :], late)
