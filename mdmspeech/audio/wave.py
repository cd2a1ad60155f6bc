"""Waves in (writer.py writes them): any readable file or array becomes a clean mono float32 wave, or one clear error.

Everything above this room may rely on what `load_wave` promises: one channel, the asked rate, finite samples within about
[-1, 1], a sensible length, something to hear.
"""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from mdmspeech.errors import UserError

SILENCE_PEAK = 1e-4  # -80 dBFS: below the quietest usable recording, above one 16-bit step of dither
LOUDEST_FLOAT = 8.0  # a float wave beyond this is no overdrive: somebody forgot to divide integers by 32768

Source = str | os.PathLike | BinaryIO | np.ndarray | tuple[np.ndarray, int]


def load_wave(
    source: Source,
    rate: int = 16_000,
    *,
    source_rate: int | None = None,
    min_seconds: float = 0.1,
    max_seconds: float | None = 30.0,
    allow_silence: bool = False,
) -> np.ndarray:
    """Mono float32 wave [N] at `rate` Hz.

    Args:
      source: path or open binary file of anything libsndfile reads; or samples ([N], [N, channels] or [channels, N], integer
        or float) with `source_rate`; or a pair (samples, their rate).
      rate: wanted rate in Hz.
      source_rate: rate of a bare array in Hz (default: `rate`).
      min_seconds, max_seconds: shortest and longest accepted length (None: no limit).
      allow_silence: accept a wave with nothing in it.

    Raises:
      UserError: missing, empty or unreadable file, no samples, NaN or infinite samples, too short, too long, only silence.
    """
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name = str(source) if isinstance(source, (str, os.PathLike)) else "the audio"
        samples, source_rate = _read(source, name, max_seconds)
    else:
        name = "the wave"
        if isinstance(source, tuple):
            source, source_rate = source
        samples, source_rate = np.asarray(source), rate if source_rate is None else source_rate
    if source_rate <= 0:
        raise UserError(f"{name} has a sample rate of {source_rate} Hz; give its true rate")
    mono = _mono(_as_float(samples, name), name)
    _check_length(len(mono) / source_rate, name, min_seconds, max_seconds)
    if not np.isfinite(mono).all():
        raise UserError(f"{name} has {np.count_nonzero(~np.isfinite(mono))} NaN or infinite samples; repair or re-export it")
    peak = float(np.abs(mono).max())
    if peak > LOUDEST_FLOAT:
        raise UserError(f"{name} has float samples up to {peak:.0f}; scale them to -1..1 or pass integers")
    if peak < SILENCE_PEAK and not allow_silence:
        raise UserError(f"{name} holds only silence; check the microphone or the file")
    return resample(mono, source_rate, rate)


def resample(wave_N: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Band-limited resampling (soxr, high quality) of a mono wave; float32 [round(N * to/from)]."""
    if from_rate == to_rate:
        return np.ascontiguousarray(wave_N, np.float32)
    return soxr.resample(np.asarray(wave_N, np.float32), from_rate, to_rate, quality="HQ").astype(np.float32)


def to_int16(wave_N: np.ndarray) -> np.ndarray:
    """Float wave -> int16 samples, clipped; the inverse of dividing by 32768."""
    return np.clip(np.round(np.asarray(wave_N, np.float64) * 32768), -32768, 32767).astype(np.int16)


def _read(source, name: str, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """All samples of a file, float32 [N, channels]; the length is checked on the header, before anything is decoded."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise UserError(f"{name} does not exist; check the path")
        if path.is_dir():
            raise UserError(f"{name} is a folder; give one audio file")
        if path.stat().st_size == 0:
            raise UserError(f"{name} is an empty file; record or export it again")
        source = os.fspath(source)
    try:
        with soundfile.SoundFile(source) as file:
            _check_length(file.frames / file.samplerate, name, None, max_seconds)
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise UserError(f"{name} is not readable audio ({_one_line(error)}); use wav, flac, ogg or mp3") from error


def _as_float(samples: np.ndarray, name: str) -> np.ndarray:
    """Float32 samples; integers are divided by their full scale (unsigned 8-bit audio is centred on 128)."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.signedinteger):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise UserError(f"{name} has samples of type {samples.dtype}; use float, int16, int32 or uint8")
    return samples.astype(np.float32)


def _mono(samples: np.ndarray, name: str) -> np.ndarray:
    """Mean over channels; of two axes the shorter one is the channels."""
    if samples.ndim == 2 and samples.size:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.size == 0:
        raise UserError(f"{name} holds no samples; record or export it again")
    if samples.ndim != 1:
        raise UserError(f"{name} has shape {samples.shape}; give [samples] or [samples, channels]")
    return samples


def _check_length(seconds: float, name: str, shortest: float | None, longest: float | None) -> None:
    if shortest is not None and seconds < shortest:
        raise UserError(f"{name} is too short: {seconds:.3f} s, at least {shortest:g} s are needed")
    if longest is not None and seconds > longest:
        raise UserError(f"{name} is too long: {seconds:.1f} s, the limit is {longest:g} s; cut it into parts")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
