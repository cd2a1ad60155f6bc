"""The sound a session has heard lately, and how it gets from whatever rate to 16 kHz."""

from collections import deque
from typing import Any

import numpy as np
import soxr

from mdmspeech.audio.arrays import LOUDEST_FLOAT, checked_rate
from mdmspeech.errors import UserError
from mdmspeech.speech_format import INPUT_RATE


class Resampler:
    """Pieces of one stream at any rate -> pieces at 16 kHz. What comes out does not depend on how
    the stream is cut. Another rate begins a new stream.
    """

    def __init__(self) -> None:
        self._rate: float = INPUT_RATE
        self._stream: Any = None

    def push(self, samples: Any, rate: float = INPUT_RATE) -> np.ndarray:
        """The next samples [N], float at full scale 1 or int16 -> float32 [M].

        UserError: anything else, NaN, or floats that are integers' values.
        """
        wave = _checked(samples)
        if (rate := checked_rate(rate, "the sound")) != self._rate:
            rest = self.flush()
            self._rate = rate
            self._stream = None if rate == INPUT_RATE else soxr.ResampleStream(rate, INPUT_RATE, 1)
            return np.concatenate([rest, self.push(wave, rate)])
        return wave if self._stream is None else self._stream.resample_chunk(wave)

    def flush(self) -> np.ndarray:
        """What is still on its way; the next samples begin a new stream."""
        stream, self._stream, self._rate = self._stream, None, INPUT_RATE
        empty = np.zeros(0, np.float32)
        return empty if stream is None else stream.resample_chunk(empty, last=True)


def _checked(samples: Any) -> np.ndarray:
    wave = np.asarray(samples)
    if wave.ndim != 1 or (wave.dtype != np.int16 and wave.dtype.kind != "f"):
        raise UserError(
            f"sound of shape {wave.shape} and type {wave.dtype} was pushed; give samples [N] of "
            "one channel, float at full scale 1 or int16"
        )
    if wave.dtype == np.int16:
        return wave.astype(np.float32) / 32768
    wave = wave.astype(np.float32)
    if not np.isfinite(wave).all():
        raise UserError("the sound that was pushed has NaN or infinite samples; look at its source")
    if len(wave) and np.abs(wave).max() > LOUDEST_FLOAT:
        raise UserError(
            f"samples of up to {np.abs(wave).max():g} were pushed; divide integers by their full "
            "scale (32768 for 16 bits)"
        )
    return wave


class Recording:
    """The last part of a stream; positions count from its beginning.

    Attributes:
      end: samples so far. start: first sample that is still there.
    """

    def __init__(self) -> None:
        self.start = self.end = 0
        self._pieces: deque[np.ndarray] = deque()

    def append(self, samples: np.ndarray) -> None:
        """More."""
        if len(samples):
            self._pieces.append(samples)
            self.end += len(samples)

    def forget(self, before: int) -> None:
        """Whole pieces before this position are not needed any more."""
        while self._pieces and self.start + len(self._pieces[0]) <= before:
            self.start += len(self._pieces.popleft())

    def wave(self, start: int, end: int) -> np.ndarray:
        """From one position to another, as far as it is there."""
        whole = np.concatenate([np.zeros(0, np.float32), *self._pieces])
        return whole[max(start - self.start, 0) : max(end - self.start, 0)]
