import numpy as np

from mdmspeech.audio import stft
from mdmspeech.audio.mel import mel_filters
from mdmspeech.evaluation.griffin_lim import from_log_mel


def test_the_mel_of_the_wave_is_the_mel_it_was_made_from():
    """A rich periodic sound: its pitch and its envelope have to come back, and its length exactly."""
    rate, window, hop = 24_000, 960, 240
    time = np.arange(100 * hop) / rate
    wave = (0.05 * sum(np.cos(2 * np.pi * 180 * k * time) / k for k in range(1, 20))).astype(
        np.float32
    )
    basis = mel_filters(rate, window, 100)
    mel = np.asarray(stft.log_mel(wave[None], basis, window, hop))[0]
    made = from_log_mel(mel, basis, window, hop, len(wave))
    assert made.shape == wave.shape
    again = np.asarray(stft.log_mel(made[None], basis, window, hop))[0]
    loud = mel[10:-10] > -6
    assert np.abs(again - mel)[10:-10][loud].mean() < 0.4
