"""From several channels one: their mean, unless the mean would lose or spoil what one of them has."""

import numpy as np

_FLOOR = 100.0  # Hz; hum and rumble below do not count
_DEAD = 1e-4  # peak above that floor, as `wave.SILENCE_PEAK`
_OPPOSED = -0.3  # correlation from which on a mean cancels
_CLIPPED = 1e-3  # share of samples at the limit, two or more in a row
_BETTER = 6.0  # dB that one channel must stand out more than the mean
_MOST = 40.0  # dB beyond which standing out counts no more
_PART, _PARTS, _FEWEST = 0.005, 8, 8  # seconds, parts of a frame, frames needed to judge


def to_mono(samples_NC: np.ndarray, rate: float) -> np.ndarray:
    """One channel float32 [N] of float samples [N, C] at `rate` Hz.

    Dead channels do not count, nor clipped ones beside others that are not. Of the rest the mean, as long as they agree; a single channel, the one
    whose sound stands out most from its own background, where they are of opposite phase (their mean would cancel) or where the mean stands out
    clearly less (one channel is noise, hum, or both are a room and one a microphone).
    """
    samples_NC = np.asarray(samples_NC, np.float32)
    if samples_NC.shape[1] == 1:
        return samples_NC[:, 0]
    clear_NC = _above_floor(samples_NC, rate)
    alive = np.flatnonzero(np.abs(clear_NC).max(axis=0) > _DEAD)
    if not len(alive):
        return samples_NC.mean(axis=1)
    kept = np.array([c for c in alive if not _is_clipped(samples_NC[:, c])], int)
    kept = kept if len(kept) else alive
    mean_N = samples_NC[:, kept].mean(axis=1)
    if len(kept) == 1:
        return mean_N
    standing_C = np.array([_standing_out(clear_NC[:, c], rate) for c in kept])
    best = int(np.argmax(standing_C))
    opposed = np.corrcoef(clear_NC[:, kept].T)[best].min() < _OPPOSED
    if opposed or standing_C[best] > _standing_out(clear_NC[:, kept].mean(axis=1), rate) + _BETTER:
        return samples_NC[:, kept[best]]
    return mean_N


def _above_floor(samples_NC: np.ndarray, rate: float) -> np.ndarray:
    spectrum_FC = np.fft.rfft(samples_NC, axis=0)
    spectrum_FC[np.fft.rfftfreq(len(samples_NC), 1 / rate) < _FLOOR] = 0
    return np.fft.irfft(spectrum_FC, len(samples_NC), axis=0)


def _is_clipped(wave_N: np.ndarray) -> bool:
    """Whether it often stays at its largest value; a wave of little else is not clipped speech."""
    at_limit = np.abs(wave_N) >= 0.999 * np.abs(wave_N).max()
    return bool((at_limit[1:] & at_limit[:-1]).mean() > _CLIPPED)


def _standing_out(wave_N: np.ndarray, rate: float) -> float:
    """How far loud frames stand above soft ones, in dB. Speech comes and goes; noise and hum stay.

    A frame's power is the median of its parts', which clicks do not move.
    """
    size = max(int(_PART * rate), 1)
    parts = np.square(wave_N[: len(wave_N) // size * size]).reshape(-1, size).mean(axis=1)
    frames = parts[: len(parts) // _PARTS * _PARTS].reshape(-1, _PARTS)
    if len(frames) < _FEWEST:
        return 0.0
    power = 10 * np.log10(np.median(frames, axis=1) + 1e-12)
    soft, loud = np.percentile(power, (10, 90))
    return min(float(loud - soft), _MOST)
