"""Our mel filters are librosa's to the last bit of float32 but one, for every codec and encoder
here and for sizes that nobody uses.
"""

import librosa
import numpy as np
import pytest

from mdmspeech.audio.mel import mel_filters, mel_frequencies
from mdmspeech.errors import UserError

TABLES = [
    (16_000, 400, 80, 0.0, None), (16_000, 400, 128, 0.0, None), (24_000, 1920, 80, 0.0, 8000.0),
    (24_000, 1920, 80, 0.0, None),
    (24_000, 960, 100, 0.0, None), (16_000, 321, 120, 0.0, None), (48_000, 2048, 1, 20.0, 20_000.0),
    (8_000, 256, 20, 1_000.0, 3_999.0),
    (22_050, 1024, 40, 300.0, 900.0),
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_filters_are_librosas(table):
    rate, n_fft, num_mels, fmin, fmax = table
    ours, theirs = (
        mel_filters(*table),
        librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax).T,
    )
    assert ours.dtype == np.float32 and ours.shape == theirs.shape == (n_fft // 2 + 1, num_mels)
    np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=1e-9 * float(theirs.max()))


@pytest.mark.parametrize(
    "edges", [(0.0, 8000.0), (0.0, 12_000.0), (20.0, 900.0), (1000.0, 4000.0), (999.0, 1001.0)]
)
@pytest.mark.parametrize("count", [1, 3, 82, 130])
def test_frequencies_are_librosas(edges, count):
    np.testing.assert_allclose(
        mel_frequencies(count, *edges),
        librosa.mel_frequencies(count, fmin=edges[0], fmax=edges[1]),
        rtol=1e-12,
    )


def test_a_table_that_all_share_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        mel_filters(16_000, 400, 80)[0, 0] = 1


@pytest.mark.parametrize(
    "table",
    [
        (16_000, 400, 0),
        (16_000, 0, 80),
        (16_000, 400, 80, 8000.0),
        (16_000, 400, 80, -1.0),
        (16_000, 400, 80, 0.0, float("nan")),
    ],
)
def test_sizes_that_cannot_be(table):
    with pytest.raises(UserError, match="no mel filters"):
        mel_filters(*table)
