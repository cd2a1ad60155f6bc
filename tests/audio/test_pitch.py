"""F0 of waves whose F0 is known: pulse trains that glide, noise, silence, and gaps between voiced
stretches.
"""

import numpy as np
import pytest

from mdmspeech.audio.pitch import f0_curve

RATE = 24_000


def voice(f0_N: np.ndarray) -> np.ndarray:
    """Ten harmonics with a falling spectrum."""
    phase = 2 * np.pi * np.cumsum(f0_N) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 11)).astype(np.float32) * 0.1


def cents(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(1200 * np.log2(found / true))


@pytest.mark.parametrize(("low", "high"), [(80.0, 120.0), (180.0, 320.0), (400.0, 250.0)])
def test_glides_are_followed(low, high):
    f0_N = np.geomspace(low, high, RATE)
    found = f0_curve(voice(f0_N), RATE)
    assert found.shape == (100,) and found.dtype == np.float32
    inner = slice(3, -3)  # the windows of the first and last frames are not full
    true = f0_N[(np.arange(100) * 240 + 120)][inner]
    assert (found[inner] > 0).all()
    assert cents(found[inner], true).max() < 30  # a third of a semitone


def test_noise_and_silence_have_no_f0():
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.1
    assert (f0_curve(noise, RATE) > 0).mean() < 0.05
    assert not f0_curve(np.zeros(RATE, np.float32), RATE).any()
    assert f0_curve(np.zeros(0, np.float32), RATE).shape == (0,)


def test_short_gaps_are_bridged_when_asked():
    wave = np.concatenate(
        [
            voice(np.full(RATE // 2, 120.0)),
            np.zeros(RATE // 10),
            voice(np.full(RATE // 2, 160.0)),
            np.zeros(RATE // 2),
        ]
    )
    wave = wave.astype(np.float32)
    plain, bridged = f0_curve(wave, RATE), f0_curve(wave, RATE, bridge=20)
    assert not plain[53:57].any()
    assert (
        (bridged[53:57] > 118).all()
        and (bridged[53:57] < 162).all()
        and (np.diff(bridged[53:57]) > 0).all()
    )
    assert not bridged[-40:].any()  # the end of the voice is no gap
    assert f0_curve(wave, RATE, bridge=3)[53:57].sum() == 0
