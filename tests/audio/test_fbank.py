"""Kaldi's filterbank against Kaldi's own code (kaldi-native-fbank 1.23.0, without dither, on the
wave of the golden fixtures; every 8th frame is kept).
"""

from pathlib import Path

import numpy as np
import pytest
from measured import close, same

from mdmspeech.audio.fbank import kaldi_fbank

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


@pytest.mark.parity
def test_equals_kaldi():
    wave, golden = (
        np.load(GOLDEN / "waveform.npz")["in.wav_16k"],
        np.load(GOLDEN / "kaldi_fbank.npz"),
    )
    ours = kaldi_fbank(wave)
    assert ours.dtype == np.float32
    same("kaldi_fbank out.frames", len(ours), golden["out.frames"])
    close("kaldi_fbank out.fbank_every8", ours[::8], golden["out.fbank_every8"], atol=1e-3)


def test_frames_lie_inside_the_wave():
    assert [len(kaldi_fbank(np.ones(n, np.float32))) for n in (0, 399, 400, 559, 560)] == [
        0,
        0,
        1,
        1,
        2,
    ]
    # a constant is silence
    np.testing.assert_allclose(
        kaldi_fbank(np.ones(400)), np.log(np.finfo(np.float32).eps), atol=1e-6
    )
