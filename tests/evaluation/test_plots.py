"""Pictures of the evaluation."""

import warnings

import numpy as np

from mdmspeech.evaluation import plots


def test_digital_silence_is_drawn_without_a_warning(tmp_path):
    """Recordings begin and end with it; its level is minus infinity."""
    wave_N = np.zeros(24_000, np.float32)
    wave_N[8_000:16_000] = 0.1 * np.random.default_rng(0).normal(size=8_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.spectrograms(
            tmp_path / "x.png", {"original": wave_N, "resynthesis": 0 * wave_N}, 24_000
        )
    assert (tmp_path / "x.png").stat().st_size > 5_000
