"""From several channels one: which are mixed, which is chosen."""

import numpy as np
import pytest

from mdmspeech.audio.channels import to_mono
from mdmspeech.audio.wave import load_wave

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE
RNG = np.random.default_rng(0)


def _speechlike(seed=0, pitch=120):
    """Syllables of a buzzing voice, four a second, with pauses."""
    phase = 2 * np.pi * np.cumsum(pitch + 20 * np.sin(2 * np.pi * 0.7 * TIME + seed)) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    return 0.1 * voice * np.maximum(0, np.sin(2 * np.pi * 2 * TIME + seed)) ** 2


SPEECH = _speechlike()
NOISE = 0.1 * RNG.normal(size=len(TIME))
HUM = 0.3 * np.sin(2 * np.pi * 50 * TIME) + 0.1 * np.sin(2 * np.pi * 150 * TIME)
NOTHING = np.zeros(len(TIME))
CLIPPED = np.clip(20 * SPEECH, -1, 1)
ROOM = 0.001 * RNG.normal(size=(6, len(TIME)))


def _agreement(wave, with_=SPEECH):
    return abs(np.corrcoef(wave, with_)[0, 1])


CASES = {  # name: (channels, least agreement with the speech)
    "opposite phase": ([SPEECH, -SPEECH], 0.999),
    "opposite phase, one softer": ([SPEECH, -0.8 * SPEECH], 0.999),
    "opposite phase in a room": ([SPEECH + ROOM[0], -SPEECH + ROOM[1]], 0.99),
    "the right one noise": ([SPEECH, NOISE], 0.999),
    "the left one noise": ([NOISE, SPEECH], 0.999),
    "one with noise over the same speech": ([SPEECH + NOISE, SPEECH + ROOM[0]], 0.99),
    "one hum": ([HUM, SPEECH + ROOM[0]], 0.99),
    "loud noise, soft speech": ([0.05 * SPEECH, 5 * NOISE], 0.999),
    "one dead": ([NOTHING, SPEECH], 0.9999),
    "one a constant": ([SPEECH, NOTHING + 0.3], 0.9999),
    "one rumble below hearing": ([SPEECH, 0.5 * np.sin(2 * np.pi * 20 * TIME)], 0.9999),
    "one clipped": ([CLIPPED, SPEECH], 0.9999),
    "one with clicks": (
        [SPEECH + ROOM[0], np.where(RNG.random(len(TIME)) < 1e-3, 0.9, 0) + NOISE / 5],
        0.99,
    ),
    "5.1 with speech in the middle": (
        [NOTHING, NOTHING, SPEECH, NOTHING, NOTHING, NOTHING],
        0.9999,
    ),
    "5.1, noise around": ([NOISE, 0.5 * NOISE[::-1], SPEECH, HUM, NOISE[::-1], NOISE * 0.3], 0.999),
    "quadro, one of opposite phase": ([SPEECH, SPEECH, -SPEECH, SPEECH], 0.999),
}


@pytest.mark.parametrize("name", CASES)
def test_the_channel_that_has_the_speech_is_heard(name):
    channels, least = CASES[name]
    wave = to_mono(np.stack(channels, axis=1).astype(np.float32), RATE)
    assert _agreement(wave) > least
    both_ways = [load_wave(np.stack(channels, axis=axis).astype(np.float32)) for axis in (0, 1)]
    np.testing.assert_array_equal(*both_ways)


def test_a_dead_channel_does_not_halve_the_other():
    wave = to_mono(np.stack([NOTHING, SPEECH], axis=1).astype(np.float32), RATE)
    np.testing.assert_array_equal(wave, SPEECH.astype(np.float32))


@pytest.mark.parametrize(
    "channels",
    [
        [SPEECH, SPEECH],
        [SPEECH, 0.5 * SPEECH],
        [SPEECH + ROOM[0], SPEECH + ROOM[1]],
        [SPEECH, np.roll(SPEECH, 8)],
        [SPEECH + ROOM[i] for i in range(6)],
        [SPEECH + ROOM[0], _speechlike(seed=2, pitch=205) + ROOM[1]],
        [CLIPPED, CLIPPED * 0.9],
        [NOISE, NOISE[::-1]],
        [SPEECH[:1600], SPEECH[:1600]],
    ],
    ids=[
        "equal",
        "one softer",
        "in a room",
        "half a millisecond apart",
        "six microphones",
        "two people",
        "both clipped",
        "noise",
        "0.1 s",
    ],
)
def test_channels_that_agree_keep_their_mean(channels):
    both = np.stack(channels, axis=1).astype(np.float32)
    np.testing.assert_allclose(to_mono(both, RATE), both.mean(axis=1), atol=1e-6)


def test_nothing_in_any_channel_stays_nothing():
    assert not to_mono(np.zeros((RATE, 2), np.float32), RATE).any()
