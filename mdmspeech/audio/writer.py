"""Waves out: a mono wave is written as it is made, and a file has its name only when it is
complete.

A file grows as `NAME.part.wav` (or .flac) beside the one that it takes the place of at the end;
until then the older file of that name is as it was. Whoever is interrupted, by a kill even, has a
.part.wav that can be played. What is no plain file (a pipe, a device, standard output) gets a wav
as it is made; its header says 0xFFFFFFFF for the length, as other programs' do, where it cannot be
corrected at the end.
"""

import contextlib
import os
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile

from mdmspeech.audio.wave import to_int16
from mdmspeech.errors import UserError

SUFFIXES = (".wav", ".flac")
# soundfile asserts that all samples went out
_ERRORS = (soundfile.LibsndfileError, OSError, struct.error, AssertionError)
_UNKNOWN = 0xFFFFFFFF  # bytes
_HEADER = 44  # bytes before the samples of a wav


def save_wave(path: str | os.PathLike, wave_N: np.ndarray, rate: int) -> None:
    """Writes a mono wave (floats are clipped to -1..1) as 16-bit PCM, .wav or .flac. UserError:
    another suffix, or it cannot be written.
    """
    with WaveWriter(path, rate) as out:
        out.write(np.asarray(wave_N, np.float32))


class WaveWriter:
    """Writes a mono wave of 16 bits: `with WaveWriter(path, rate) as out: out.write(samples)`.

    Args:
      path: .wav or .flac, or a device or pipe, or a binary file open for writing. rate: Hz.

    Attributes:
      samples: written so far. kept: where they are after an exception; None if there are none, or
        if `path` itself has them.

    Raises:
      UserError: another suffix, or what cannot be written. BrokenPipeError: nobody reads the pipe
        any more.
    """

    def __init__(self, path: str | os.PathLike | BinaryIO, rate: int):
        self.rate, self.samples = rate, 0
        self.kept: Path | None = None
        self._dropped = False
        self._name = path if isinstance(path, (str, os.PathLike)) else "the audio"
        with self._named_errors():
            self._sink = _sink(path, rate)

    def write(self, wave_N: np.ndarray) -> None:
        """The next samples, floats (clipped to -1..1)."""
        with self._named_errors():
            self._sink.write(to_int16(wave_N))
        self.samples += len(wave_N)

    def drop(self) -> None:
        """Leaves no file, when nothing is to be written after all."""
        self._sink.drop()
        self._dropped = True

    def __enter__(self) -> "WaveWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._dropped:
            return
        if error is None:
            try:
                with self._named_errors():
                    self._sink.finish()
            except UserError:
                self._sink.drop()
                raise
        else:
            with contextlib.suppress(*_ERRORS):  # the first error is the one to tell
                if self.samples:
                    self.kept = self._sink.stop()
                else:
                    self._sink.drop()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except _ERRORS as error:
            self.samples = 0  # a disk that is full has no use for half a file
            said = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"cannot write {self._name}: {said}; use a folder that is writable and has room"
            ) from error


class _Sink(Protocol):
    """Where int16 samples go. After `finish` (all is written), `stop` (keep what is) or `drop`
    (nothing of it) it is closed.
    """

    def write(self, samples_N: np.ndarray) -> None: ...
    def finish(self) -> None: ...
    def stop(self) -> Path | None: ...
    def drop(self) -> None: ...


def _sink(path: str | os.PathLike | BinaryIO, rate: int) -> _Sink:
    if not isinstance(path, (str, os.PathLike)):
        return _Stream(path, rate)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        return _Stream(open(target, "wb"), rate, close=True)
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {path}: name it {' or '.join(SUFFIXES)}")
    return _File(target, rate)


class _File:
    """A file under a name of its own until it is complete."""

    def __init__(self, target: Path, rate: int):
        self._target, self._part = target, target.with_name(f"{target.stem}.part{target.suffix}")
        self._flac = target.suffix.lower() == ".flac"
        if self._flac:
            self._file = soundfile.SoundFile(self._part, "w", rate, 1, "PCM_16", format="FLAC")
        else:
            self._raw = open(self._part, "wb")  # noqa: SIM115 - open until `finish`, `stop` or `drop`
            self._file = wave.open(self._raw, "wb")  # noqa: SIM115
            self._file.setparams((1, 2, rate, 0, "NONE", ""))
            self._file.writeframes(b"")

    def write(self, samples_N: np.ndarray) -> None:
        if self._flac:
            self._file.write(samples_N)
        else:
            # which corrects the header, too
            self._file.writeframes(samples_N.astype("<i2").tobytes())
            self._raw.flush()

    def finish(self) -> None:
        self._close()
        os.replace(self._part, self._target)

    def stop(self) -> Path:
        self._close()
        return self._part

    def drop(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        self._file.close()
        if not self._flac:
            self._raw.close()


class _Stream:
    """A wav that begins before its length is known."""

    def __init__(self, file: BinaryIO, rate: int, *, close: bool = False):
        self._file, self._closes, self._bytes = file, close, 0
        form = struct.pack(
            "<4sI4s4sIHHIIHH", b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16
        )
        self._file.write(form + struct.pack("<4sI", b"data", _UNKNOWN))
        self._file.flush()

    def write(self, samples_N: np.ndarray) -> None:
        data = samples_N.astype("<i2").tobytes()
        self._file.write(data)
        self._file.flush()
        self._bytes += len(data)

    def finish(self) -> None:
        if _can_go_back(self._file):
            end = self._file.tell()
            for place, size in ((4, 36 + self._bytes), (_HEADER - 4, self._bytes)):
                self._file.seek(end - self._bytes - _HEADER + place)
                self._file.write(struct.pack("<I", size))
            self._file.seek(end)
            self._file.flush()
        self.drop()

    def stop(self) -> None:
        self.finish()

    def drop(self) -> None:
        if self._closes:
            self._file.close()


def _can_go_back(file: BinaryIO) -> bool:
    """Whether bytes written can be overwritten: standard output may be a plain file, but one that
    is only appended to is not.
    """
    if not file.seekable():
        return False
    try:
        import fcntl

        return not fcntl.fcntl(file, fcntl.F_GETFL) & os.O_APPEND
    except (ImportError, OSError):  # no such thing on this system, or a file in memory
        return True
