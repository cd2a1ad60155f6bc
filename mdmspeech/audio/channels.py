"""From several channels one: their mean, unless the mean would lose or spoil what one of them has."""

import numpy as np

_FLOOR = 100.0  # Hz; hum and rumble below do not count
_DEAD = 1e-4  # peak above that floor, as `wave.SILENCE_PEAK`
_OPPOSED = -0.3  # correlation from which on a mean cancels
_CLIPPED = 1e-3  # share of samples at the limit, two or more in a row
_BETTER = 6.0  # dB that one channel stands out more than the mean and those that spoil it
_PLAIN = 20.0  # dB that are good enough beside any other
_MOST = 40.0  # dB beyond which standing out counts no more
_PART, _PARTS, _FEWEST = 0.005, 8, 8  # seconds, parts of a frame, frames needed to judge


def to_mono(samples_NC: np.ndarray, rate: float) -> np.ndarray:
    """One channel float32 [N] of float samples [N, C] at `rate` Hz.

    Dead channels do not count, nor clipped ones beside others that are not, nor, if they spoil the
    mean, those whose sound stands out clearly less from its own background than another's (noise,
    hum). Of the rest the mean, or the loudest where some are of opposite phase: their mean would
    cancel.
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
    standing_C = np.array([_standing_out(clear_NC[:, c], rate) for c in kept])
    enough = min(standing_C.max() - _BETTER, _PLAIN)
    if _standing_out(clear_NC[:, kept].mean(axis=1), rate) < enough:
        # who talks in turn, each on a channel, stands out in all of them
        kept = kept[standing_C >= enough]
    first = kept[np.argmax(np.square(clear_NC[:, kept]).sum(axis=0))]
    if (
        len(kept) > 1
        and min(np.corrcoef(clear_NC[:, first], clear_NC[:, c])[0, 1] for c in kept) < _OPPOSED
    ):
        return samples_NC[:, first]
    return samples_NC[:, kept].mean(axis=1)


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
