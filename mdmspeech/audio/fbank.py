"""Kaldi's log-mel filterbank at 16 kHz, as speaker encoders of the Kaldi school take it (Povey et
al., 2011; `compute-fbank-feats`).

Frames of 25 ms every 10 ms that lie wholly inside the wave; of each its mean removed, a
pre-emphasis, Povey's window, the power spectrum, and triangles that are straight on the mel scale.
Without dither, so that it is a function of the wave. On the host: it is needed once a voice.
"""

import functools

import numpy as np

from mdmspeech.speech_format import INPUT_RATE

_SIZE, _HOP, _FFT = 400, 160, 512
_PREEMPHASIS = 0.97
_LOWEST = 20.0  # Hz
_FLOOR = np.finfo(np.float32).eps  # of the energies, before the logarithm


def kaldi_fbank(wave_N: np.ndarray, num_mels: int = 80) -> np.ndarray:
    """Natural-log mel energies float32 [1 + (N - 400) // 160, num_mels] of a wave at 16 kHz, full
    scale 1; none of less than 25 ms.
    """
    wave_N = np.asarray(wave_N, np.float64)
    if len(wave_N) < _SIZE:
        return np.zeros((0, num_mels), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(wave_N, _SIZE)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # before the first sample stands itself
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.square(
        np.abs(np.fft.rfft((frames - _PREEMPHASIS * before) * _window(), _FFT, axis=1))
    )
    return np.log(np.maximum(power @ _filters(num_mels), _FLOOR)).astype(np.float32)


def _window() -> np.ndarray:
    """Povey's: a Hann window that starts and ends at zero, to the power of 0.85."""
    return np.hanning(_SIZE) ** 0.85


@functools.cache
def _filters(num_mels: int) -> np.ndarray:
    """Triangles on the mel scale between 20 Hz and 8 kHz [257, num_mels]; none reaches the last bin."""
    mel = lambda hertz: 1127.0 * np.log1p(hertz / 700.0)
    edges = np.linspace(mel(_LOWEST), mel(INPUT_RATE / 2), num_mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    at = mel(np.arange(_FFT // 2) * INPUT_RATE / _FFT)[:, None]
    triangles = np.minimum(
        (at - left[None]) / (centre - left)[None], (right[None] - at) / (right - centre)[None]
    )
    return np.pad(np.maximum(triangles, 0.0), ((0, 1), (0, 0)))
