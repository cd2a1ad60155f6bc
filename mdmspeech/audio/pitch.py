"""F0 of a recording, for the codec's source signal: autocorrelation, and a Viterbi search for the
smoothest likely curve.

The window-corrected autocorrelation is Boersma's (1993), the search over candidates with costs for
octave jumps and for turning the voice on and off is Praat's and RAPT's (Talkin 1995). Times are
frames of 10 ms, as in the corpus.
"""

import itertools

import numpy as np

from mdmspeech.audio.wave import resample

RATE = 8_000  # Hz, of the analysis
HOP = 80  # 10 ms
LOWEST, HIGHEST = 60.0, 500.0  # Hz
_WINDOW = 320  # 40 ms: more than two periods of the lowest voice would blur a high one
_VOICED = 0.38  # correlation at which a frame is as likely voiced as not
_QUIET = 0.03  # of the recording's loud frames: below it there is no voice
_SWITCH = 0.35  # cost of turning the voice on or off
_JUMP = 2.0  # cost of an octave between neighbouring frames
_LOW_PENALTY = 0.1  # a lag of two periods correlates as well as one of one: prefer the shorter


def f0_curve(wave_N: np.ndarray, rate: int, bridge: int = 0) -> np.ndarray:
    """Mono wave -> F0 in Hz at 100 frames a second, float32 [round(seconds * 100)], 0 = unvoiced;
    frame t is centred on (t + 1/2) * 10 ms.

    bridge: unvoiced gaps of up to so many frames between voiced ones get a straight line (of
      log-F0), as our synthesiser's curves have.
    """
    frames = round(len(wave_N) / rate * RATE / HOP)
    if not frames:
        return np.zeros(0, np.float32)
    wave = resample(wave_N, rate, RATE)
    strength_TK, lag_K, energy_T = _correlation(wave, frames)
    path = _smoothest(strength_TK, lag_K, energy_T)
    f0 = np.zeros(frames, np.float32)
    voiced = np.flatnonzero(path >= 0)
    f0[voiced] = RATE / _refined(strength_TK[voiced], path[voiced], lag_K)
    return _bridged(f0, voiced, bridge)


def _correlation(wave_N: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(normalised autocorrelation [T, K] at the lags [K] in samples, RMS [T])."""
    half = _WINDOW // 2
    padded = np.pad(wave_N, (half, half + HOP))
    starts = np.minimum(np.arange(frames) * HOP + HOP // 2, len(padded) - _WINDOW)
    window = np.hanning(_WINDOW)
    cut_TW = padded[starts[:, None] + np.arange(_WINDOW)]
    cut_TW = (cut_TW - cut_TW.mean(axis=1, keepdims=True)) * window
    size = 2 * _WINDOW
    own_TW = np.fft.irfft(np.abs(np.fft.rfft(cut_TW, size)) ** 2, size)[:, :_WINDOW]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)[:_WINDOW]
    lags = np.arange(int(RATE / HIGHEST), int(RATE / LOWEST) + 1)
    strength = own_TW[:, lags] / np.maximum(own_TW[:, :1], 1e-12) / (of_window[lags] / of_window[0])
    return np.minimum(strength, 1.0), lags, np.sqrt(own_TW[:, 0])


def _smoothest(strength_TK: np.ndarray, lag_K: np.ndarray, energy_T: np.ndarray) -> np.ndarray:
    """int [T]: which lag, or -1 for unvoiced, on the path of least cost."""
    frames, count = strength_TK.shape
    gain_TK = strength_TK - _LOW_PENALTY * np.log2(lag_K / lag_K[0])
    loud = np.percentile(energy_T, 95)
    gain_none_T = np.where(energy_T < _QUIET * loud, 2.0, _VOICED)
    jump_KK = _JUMP * np.abs(np.log2(lag_K[:, None] / lag_K[None, :]))
    best_K, none = gain_TK[0], float(gain_none_T[0])
    back_TK, back_none_T = np.full((frames, count), -1), np.full(frames, -1)
    for t in range(1, frames):
        from_voiced = best_K[None, :] - jump_KK
        pick_K = np.argmax(from_voiced, axis=1)
        stay_K, start = from_voiced[np.arange(count), pick_K], none - _SWITCH
        last = int(np.argmax(best_K))
        stop = best_K[last] - _SWITCH
        back_TK[t] = np.where(stay_K >= start, pick_K, -1)
        back_none_T[t] = last if stop > none else -1
        best_K, none = (
            np.maximum(stay_K, start) + gain_TK[t],
            max(none, float(stop)) + gain_none_T[t],
        )
    path = np.full(frames, -1)
    path[-1] = int(np.argmax(best_K)) if best_K.max() > none else -1
    for t in range(frames - 1, 0, -1):
        path[t - 1] = back_TK[t, path[t]] if path[t] >= 0 else back_none_T[t]
    return path


def _refined(strength_TK: np.ndarray, pick_T: np.ndarray, lag_K: np.ndarray) -> np.ndarray:
    """Lags in samples, between the whole ones by a parabola through the neighbours."""
    inner = np.clip(pick_T, 1, len(lag_K) - 2)
    rows = np.arange(len(pick_T))
    left, here, right = (strength_TK[rows, inner + k] for k in (-1, 0, 1))
    curve = left - 2 * here + right
    shift = np.where(curve < -1e-6, 0.5 * (left - right) / np.minimum(curve, -1e-6), 0.0)
    return lag_K[pick_T] + np.where(pick_T == inner, np.clip(shift, -0.5, 0.5), 0.0)


def _bridged(f0_T: np.ndarray, voiced: np.ndarray, bridge: int) -> np.ndarray:
    for before, after in itertools.pairwise(voiced):
        if 1 < after - before <= bridge + 1:
            f0_T[before : after + 1] = np.geomspace(f0_T[before], f0_T[after], after - before + 1)
    return f0_T
