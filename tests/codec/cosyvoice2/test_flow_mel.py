"""The mel of prompts: `audio.features.log_mel` as it is, against the reference's arrays, in the
layout the flow takes.
"""

from pathlib import Path

import numpy as np
import pytest
from measured import close

from mdmspeech.audio.features import MelConfig, log_mel
from mdmspeech.audio.mel import mel_filters
from mdmspeech.codec.cosyvoice2.flow_batch import FlowConfig

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"


@pytest.mark.parity
def test_prompt_mel():
    golden, wave = (
        np.load(GOLDEN / "cosyvoice_mel24k.npz"),
        np.load(GOLDEN / "waveform.npz")["in.wav_24k"],
    )
    mel = np.asarray(log_mel(wave[None]))
    assert mel.shape == (1, len(wave) // 480, FlowConfig().estimator.num_mels)
    close("cosyvoice_mel24k out.mel", mel.swapaxes(1, 2), golden["out.mel"], atol=1e-4)
    wide = np.asarray(log_mel(wave[None], MelConfig(fmax=None)))[:, :20]
    close(
        "cosyvoice_mel24k fmax_none.out.mel_first20",
        wide.swapaxes(1, 2),
        golden["fmax_none.out.mel_first20"],
        atol=1e-4,
    )
    close(
        "cosyvoice_mel24k out.mel_basis",
        mel_filters(24_000, 1920, 80, 0.0, 8000.0).T,
        golden["out.mel_basis"],
        atol=1e-7,
    )
