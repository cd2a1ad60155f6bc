"""Waves in (writer.py writes them): any readable file or array becomes a clean mono float32 wave,
or one clear error.

Everything above this room may rely on what `load_wave` promises: one channel, the asked rate,
finite samples within about [-1, 1], a sensible length, something to hear.
"""

import functools
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import soxr

from mdmspeech.audio.arrays import checked_rate, split_rate, to_samples
from mdmspeech.audio.channels import to_mono
from mdmspeech.audio.files import name_of, read_path, read_stream
from mdmspeech.errors import UserError

# -80 dBFS: below the quietest usable recording, above one 16-bit step of dither
SILENCE_PEAK = 1e-4

Source = str | os.PathLike | bytes | BinaryIO | np.ndarray | Sequence | Mapping[str, Any]


class AudioWarning(UserWarning):
    """A recording that is used, but is not all of what it says it is."""


def load_wave(
    source: Source,
    rate: int = 16_000,
    *,
    min_seconds: float = 0.1,
    max_seconds: float | None = 30.0,
) -> np.ndarray:
    """Mono float32 wave [N] at `rate` Hz.

    Args:
      source: path, open binary file, stream (anything with `read`) or content (bytes) of what
        libsndfile reads (wav, flac, ogg, opus, mp3, aiff, ...) or, with PyAV, of what browsers and
        phones record (m4a, aac, webm, mp4, 3gp, amr, ...); or samples ([N], [N, channels] or
        [channels, N], anything that NumPy sees as an array: see `arrays.to_samples` for types and
        scales), at `rate`; or samples and their rate: see `arrays.split_rate`.
      rate: wanted rate in Hz.
      min_seconds, max_seconds: shortest and longest accepted length (None: no limit). Checked
        before anything is decoded, as far as a header says it.

    Several channels become one by `channels.to_mono`. A file that was cut off is used as far as it
    goes, with an `AudioWarning` of what is missing; one whose header does not know the length, as
    it was written to a pipe, is read to its end.

    Raises:
      UserError: missing, empty or unreadable file, no samples, NaN or infinite samples, too short,
        too long, only silence.
    """
    checked_rate(rate, "the wanted wave")
    for option, seconds in (("min_seconds", min_seconds), ("max_seconds", max_seconds)):
        if seconds is not None and not seconds >= 0:
            raise UserError(
                f"{option} is {seconds}; give a number of seconds, 0 or more"
                + (", or None for no limit" if option == "max_seconds" else "")
            )
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(bytes(source))
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name = name_of(source)
        check = functools.partial(_check_length, name=name, shortest=None, longest=max_seconds)
        sound = (
            read_path(source, name, check)
            if isinstance(source, (str, os.PathLike))
            else read_stream(source, name, check)
        )
        samples, from_rate = to_samples(sound.samples, name, channels_last=True), float(sound.rate)
        if sound.missing > 0.05:
            has = len(samples) / from_rate
            warnings.warn(
                (
                    f"{name} was cut off: {sound.missing:.2f} s of {has + sound.missing:.2f} s are "
                    f"missing, so only the first {has:.2f} s are used"
                ),
                AudioWarning,
                stacklevel=2,
            )
    else:
        name = "the wave"
        source, from_rate = split_rate(source, rate, name)
        samples = to_samples(source, name)
    _check_length(len(samples) / from_rate, name, min_seconds, max_seconds)
    mono = to_mono(samples if samples.ndim == 2 else samples[:, None], from_rate)
    if np.ptp(mono) < 2 * SILENCE_PEAK:  # whatever constant it stands on
        raise UserError(f"{name} holds only silence; check the microphone or the file")
    return resample(mono, from_rate, rate)


def resample(wave_N: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Band-limited resampling (soxr, high quality) of a mono wave; float32 [round(N * to/from)]."""
    if from_rate == to_rate:
        return np.ascontiguousarray(wave_N, np.float32)
    return soxr.resample(np.asarray(wave_N, np.float32), from_rate, to_rate, quality="HQ").astype(
        np.float32
    )


def to_int16(wave_N: np.ndarray) -> np.ndarray:
    """Float wave -> int16 samples, clipped; the inverse of dividing by 32768."""
    return np.clip(np.round(np.asarray(wave_N, np.float64) * 32768), -32768, 32767).astype(np.int16)


def _check_length(seconds: float, name: str, shortest: float | None, longest: float | None) -> None:
    if shortest is not None and seconds < shortest:
        raise UserError(f"{name} is too short: {seconds:.3f} s, at least {shortest:g} s are needed")
    if longest is not None and seconds > longest:
        # never the limit itself
        shown = f"{seconds:.1f}" if seconds >= longest + 0.1 else f"{seconds:.5f}"
        raise UserError(
            f"{name} is too long: {shown} s, the limit is {longest:g} s; cut it into parts"
        )
