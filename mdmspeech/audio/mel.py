"""Slaney's mel scale and filters (Auditory Toolbox, 1998), as librosa has them: straight up to 1
kHz, logarithmic above, every triangle of the same area.

Numpy alone, in float64 until the end: a model that is opened needs no librosa, whose numba wants a
folder to write its compiled code to.
"""

import functools

import numpy as np

from mdmspeech.errors import UserError

_STRAIGHT = 200.0 / 3  # Hz a mel below the knee
_KNEE = 1000.0  # Hz
_STEP = np.log(6.4) / 27.0  # of log-frequency a mel above it


def mel_frequencies(count: int, fmin: float, fmax: float) -> np.ndarray:
    """`count` frequencies in Hz from fmin to fmax, evenly spaced on the mel scale, float64 [count]."""
    low, high = _mel(np.array([fmin, fmax], np.float64))
    mels = np.linspace(low, high, count)
    knee = _KNEE / _STRAIGHT
    return np.where(mels >= knee, _KNEE * np.exp(_STEP * (mels - knee)), _STRAIGHT * mels)


@functools.cache
def mel_filters(
    rate: int, n_fft: int, num_mels: int, fmin: float = 0.0, fmax: float | None = None
) -> np.ndarray:
    """Triangular filters of area 1, float32 [n_fft // 2 + 1, num_mels], C-ordered and read-only.
    fmin, fmax: Hz (None: half the rate).

    Raises:
      UserError: no filter can be made of such numbers.
    """
    fmax = rate / 2 if fmax is None else fmax
    if num_mels < 1 or n_fft < 2 or not 0 <= fmin < fmax:
        raise UserError(
            f"no mel filters: {num_mels} bands from {fmin:g} to {fmax:g} Hz of {n_fft} samples"
        )
    edges = mel_frequencies(num_mels + 2, fmin, fmax)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins_K1 = np.fft.rfftfreq(n_fft, 1.0 / rate)[:, None]
    rising, falling = (
        (bins_K1 - left[None]) / (centre - left)[None],
        (right[None] - bins_K1) / (right - centre)[None],
    )
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    filters = (triangles * (2.0 / (right - left))[None]).astype(np.float32)
    filters.setflags(write=False)
    return filters


def _mel(hertz: np.ndarray) -> np.ndarray:
    above = _KNEE / _STRAIGHT + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _STEP
    return np.where(hertz >= _KNEE, above, hertz / _STRAIGHT)
