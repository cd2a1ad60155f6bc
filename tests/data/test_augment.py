"""Augmentation: seeded, the asked strength, no change of length, no clipping."""

import numpy as np
import pytest

from mdmspeech.data.synthesis import augment as a

RATE = 16_000
WAVE = (0.2 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)).astype(np.float32)


def test_same_seed_same_wave_other_seed_another():
    one, same, other = (a.augment(WAVE, RATE, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (one == same).all() and (one != other).any()
    assert one.shape == WAVE.shape and one.dtype == np.float32


def test_never_clips_and_never_invents_nan():
    for seed in range(30):
        out = a.augment(3 * WAVE, RATE, np.random.default_rng(seed))
        assert np.isfinite(out).all() and np.abs(out).max() <= 0.991


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_has_the_asked_strength(snr):
    noise = a.coloured_noise(len(WAVE), 1.0, np.random.default_rng(0))
    added = a.add_noise(WAVE, noise, snr) - WAVE
    assert 10 * np.log10(np.mean(WAVE**2) / np.mean(added**2)) == pytest.approx(snr, abs=0.05)


def test_brown_noise_is_low_white_is_not():
    def low_share(slope):
        power = np.abs(np.fft.rfft(a.coloured_noise(RATE, slope, np.random.default_rng(0)))) ** 2
        return power[:1000].sum() / power.sum()

    assert low_share(2.0) > 0.95 > 0.2 > low_share(0.0)


def test_room_decays_by_sixty_decibels_in_rt60():
    response = a.room_response(RATE, 0.5, 5.0, np.random.default_rng(0))
    tail = response[-int(0.5 * RATE) :]
    early, late = (np.mean(tail[part] ** 2) for part in (slice(0, 800), slice(-800, None)))
    # 60 dB less the two windows' widths
    assert 10 * np.log10(early / late) == pytest.approx(54, abs=3)
    assert 10 * np.log10(1 / np.sum(tail**2)) == pytest.approx(5.0, abs=1e-3)


def test_reverberation_keeps_the_direct_sound_in_place():
    click = np.zeros(1000, np.float32)
    click[100] = 1
    out = a.reverberate(click, a.room_response(RATE, 0.3, 5.0, np.random.default_rng(0)))
    assert (
        len(out) == 1000
        and not np.abs(out[:100]).max() > 1e-6
        and out[100] == pytest.approx(1, abs=1e-5)
    )


def test_silence_stays_silence():
    assert not a.augment(np.zeros(1000, np.float32), RATE, np.random.default_rng(0)).any()
