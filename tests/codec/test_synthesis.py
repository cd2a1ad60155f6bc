"""STFT and source: inversion inside the signal, phases that continue and restart, pulses at the pitch asked for, noise keyed by the frame."""

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
    wave, frames = jax.random.normal(keys[0], (1, 10 * HOP)), jax.random.normal(keys[1], (1, 10, 960))
    left = jnp.vdot(stft.frame(wave, 960, HOP), frames)
    np.testing.assert_allclose(left, jnp.vdot(wave, stft.overlap_add(frames, HOP)), rtol=1e-4)


def test_framing_refuses_sizes_that_do_not_tile():
    with pytest.raises(ValueError, match="the hop must divide both"):
        stft.frame(jnp.zeros((1, 1000)), 960, HOP)


def test_phases_continue_over_a_cut():
    f0 = 100.0 + 50.0 * jax.random.uniform(jax.random.key(2), (1, 20))
    valid, never = jnp.ones((1, 20), bool), jnp.zeros((1, 20), bool)
    per_sample = synthesis.control(f0, valid, HOP)
    whole = synthesis.frame_phases(per_sample, never, RATE, jnp.zeros(1))
    second = synthesis.frame_phases(per_sample[:, 12:], never[:, 12:], RATE, whole[:, 12])
    np.testing.assert_array_equal(second, whole[:, 12:])


def test_a_pause_restarts_the_phase_where_nothing_is_heard():
    gate = jnp.array([[1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]])
    restart = synthesis.restarts(gate, jnp.ones((1, 8), bool))
    np.testing.assert_array_equal(restart[0], [False, False, False, True, True, False, False, False])
    heard = synthesis.control(gate, jnp.ones((1, 8), bool), HOP)
    assert float(heard[0, 3].max()) == 0 and float(heard[0, 2, -1]) < 1e-6  # both sides of the first restart are silent


def test_the_first_frame_of_a_padded_utterance_starts_at_phase_0():
    valid = jnp.array([[False, False, True, True]])
    restart = synthesis.restarts(jnp.ones((1, 4)), valid)
    phases = synthesis.frame_phases(jnp.full((1, 4, HOP), 130.0), restart, RATE, jnp.full(1, 0.3))
    assert float(phases[0, 2]) == 0


def test_invalid_neighbours_leave_no_trace_in_the_controls():
    values = jnp.array([[9.0, 1.0, 2.0, 7.0]])
    valid = jnp.array([[False, True, True, False]])
    alone = synthesis.control(values[:, 1:3], jnp.ones((1, 2), bool), HOP)
    np.testing.assert_array_equal(synthesis.control(values, valid, HOP)[:, 1:3], alone)


def test_pulses_have_the_pitch_and_the_power_asked_for():
    frames = 50
    for hertz in (100.0, 240.0):
        f0 = jnp.full((1, frames, HOP), hertz)
        phases = synthesis.frame_phases(f0, jnp.zeros((1, frames), bool), RATE, jnp.zeros(1))
        wave = np.asarray(synthesis.pulse_train(f0, phases[:, :-1], jnp.ones((1, frames, HOP)), RATE))[0]
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        assert abs(np.argmax(power[: int(1.5 * hertz * len(wave) / RATE)]) * RATE / len(wave) - hertz) < 3
        assert 0.3 < np.mean(wave**2) < 0.7


def test_noise_of_a_frame_depends_on_its_absolute_number_only():
    key = jax.random.key(3)
    whole = synthesis.noise_source(key, jnp.array([0]), 10, HOP)
    late = synthesis.noise_source(key, jnp.array([6]), 4, HOP)
    np.testing.assert_array_equal(whole[:, 6 * HOP :], late)
