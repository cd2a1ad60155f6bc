"""Sound as the protocol writes it: base64 of 16-bit samples, little-endian, one channel."""

import base64
import binascii
from typing import Any

import numpy as np

from mdmspeech.audio.wave import to_int16
from mdmspeech.serving.request_error import RequestError, kind_of


def decode(given: Any, param: str) -> bytes:
    """The bytes of a base64 text. RequestError: it is none."""
    if not isinstance(given, str):
        raise RequestError(f"{param} is {kind_of(given)}; give base64 of 16-bit samples", param)
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            f"{param} is no base64 ({error}); encode the samples by base64, without line breaks",
            param,
            code="invalid_audio",
        ) from error


def encode(samples: np.ndarray) -> str:
    """Of floats [N], clipped to -1..1."""
    return base64.b64encode(to_int16(samples).astype("<i2").tobytes()).decode("ascii")


class Pcm:
    """Bytes of one stream, cut anywhere, as samples."""

    def __init__(self) -> None:
        self._left = b""

    def push(self, data: bytes) -> np.ndarray:
        """The samples that are whole now, int16 [N]."""
        data = self._left + data
        whole = len(data) // 2 * 2
        self._left = data[whole:]
        return np.frombuffer(data[:whole], "<i2").astype(np.int16)

    def clear(self) -> None:
        """The next byte begins a sample."""
        self._left = b""
