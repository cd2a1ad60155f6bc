"""Makes clean synthetic questions sound like microphones in rooms: reverberation, noise, level, now
and then a narrow band. Numpy, seeded.

Speed is varied when the questions are spoken (`parts`), so nothing here changes the length of a
wave or the moment of a word.
"""

import dataclasses

import numpy as np
import scipy.signal

SPEED_OF_SOUND = 343.0  # metres a second


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Chances of each change, and the ranges their strength is drawn from (uniformly)."""

    reverb: float = 0.4
    rt60: tuple[float, float] = (0.15, 0.7)  # seconds for the reverberation to fall by 60 dB
    direct_to_reverberant: tuple[float, float] = (0.0, 15.0)  # dB
    noise: float = 0.6
    snr: tuple[float, float] = (8.0, 35.0)  # dB
    narrow_band: float = 0.1
    level: tuple[float, float] = (-32.0, -14.0)  # dB of full scale, root mean square


DEFAULT = Augmentation()


def augment(
    wave: np.ndarray, rate: int, rng: np.random.Generator, how: Augmentation = DEFAULT
) -> np.ndarray:
    """float32 [N] -> float32 [N] in [-1, 1], the same words in other circumstances. The same
    generator state gives the same result.
    """
    wave = np.asarray(wave, np.float32)
    if rng.random() < how.reverb:
        wave = reverberate(
            wave,
            room_response(
                rate, rng.uniform(*how.rt60), rng.uniform(*how.direct_to_reverberant), rng
            ),
        )
    if rng.random() < how.noise:
        wave = add_noise(
            wave, coloured_noise(len(wave), rng.uniform(0.0, 2.0), rng), rng.uniform(*how.snr)
        )
    if rng.random() < how.narrow_band:
        wave = telephone(wave, rate)
    return set_level(wave, rng.uniform(*how.level))


def room_response(rate: int, rt60: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """A synthetic room (Moorer 1979's model): the direct sound, then noise that decays by 60 dB in
    `rt60` seconds. float32 [R], direct sound = 1.

    direct_db: energy of the direct sound over that of the tail.
    """
    # the first wall is one to four metres of detour away
    gap = int(rate * rng.uniform(1.0, 4.0) / SPEED_OF_SOUND)
    times = np.arange(int(rate * rt60)) / rate
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    tail *= np.sqrt(10 ** (-direct_db / 10) / np.sum(tail**2))
    return np.concatenate([[1.0], np.zeros(gap), tail]).astype(np.float32)


def reverberate(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolution cut to the wave's own length, so that words stay where they are. float32 [N]."""
    return scipy.signal.fftconvolve(wave, response)[: len(wave)].astype(np.float32)


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as 1 / f ** slope: 0 white, 1 pink, 2 brown. float32 [N] of unit power."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    return (noise / max(np.sqrt(np.mean(noise**2)), 1e-12)).astype(np.float32)


def add_noise(wave: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """wave [N] + noise [N] (unit power) at `snr` dB over the wave's mean power. A silent wave stays
    as it is.
    """
    return wave + noise * np.sqrt(np.mean(wave**2) * 10 ** (-snr / 10)).astype(np.float32)


def telephone(wave: np.ndarray, rate: int) -> np.ndarray:
    """Only 300 to 3400 Hz are left."""
    sections = scipy.signal.butter(4, (300, 3400), "bandpass", fs=rate, output="sos")
    return scipy.signal.sosfilt(sections, wave).astype(np.float32)


def set_level(wave: np.ndarray, level: float) -> np.ndarray:
    """Scaled to `level` dB (root mean square, full scale = 1), less if it would clip."""
    rms, peak = np.sqrt(np.mean(wave**2)), np.abs(wave).max(initial=0.0)
    if rms == 0:
        return wave
    return wave * np.float32(min(10 ** (level / 20) / rms, 0.99 / peak))
