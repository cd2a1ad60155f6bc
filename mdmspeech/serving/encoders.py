"""Speech as bytes while it is made: one stream of one format, whose parts joined are one file.

An encoder lives as long as the stream, so that nothing is heard where its parts meet. What cannot be
known before the end, the length, stands in the header of some formats. As a stream: wav says
0xFFFFFFFF twice, as OpenAI's server does, which browsers, FFmpeg and libsndfile read to the end of the
data; flac says 0, its own word for unknown; mp3 has no LAME frame, and frames of one size, from which
players reckon the length. `whole` ones are true.
"""

import io
import struct
from typing import Any, NamedTuple

import numpy as np
import soundfile

from mdmspeech.audio.wave import to_int16

_UNKNOWN = 0xFFFFFFFF  # bytes of a wav whose end is not known
_SET_PAGE_LATENCY = 0x1302  # libsndfile's SFC_SET_OGG_PAGE_LATENCY_MS
_PAGE_MS = 100.0  # of Opus that are held back at most


class Format(NamedTuple):
    """mime: of HTTP. options: of `soundfile.SoundFile`, if it writes this. headed: whether the file's
    beginning says how long it is, and programs rely on it.
    """

    mime: str
    options: dict[str, Any] | None = None
    headed: bool = False


FORMATS = {
    "mp3": Format(
        "audio/mpeg",
        {
            "format": "MP3",
            "subtype": "MPEG_LAYER_III",
            "bitrate_mode": "CONSTANT",
            "compression_level": 0.4,  # 96 kbit/s at 24 kHz
        },
    ),
    "opus": Format("audio/ogg", {"format": "OGG", "subtype": "OPUS"}),
    "flac": Format("audio/flac", {"format": "FLAC", "subtype": "PCM_16"}, headed=True),
    "wav": Format("audio/wav"),
    "pcm": Format("audio/pcm"),
}


class Encoder:
    """`push` samples, take bytes; `finish` gives the last ones. Not for two threads at once.

    Args:
      name: of `FORMATS`. rate: Hz. whole: all bytes come from `finish`, with a true header.
    """

    def __init__(self, name: str, rate: int, whole: bool = False) -> None:
        self._name, self._rate, self._whole = name, rate, whole
        self._begun, self._samples = False, list[bytes]()
        self._sink: _Whole | _Forward = _Whole() if whole else _Forward()
        self._file: Any = None
        if (options := FORMATS[name].options) is not None:
            self._file = soundfile.SoundFile(self._sink, "w", rate, 1, **options)
            if name == "opus" and not whole:
                _short_pages(self._file)

    def push(self, wave_N: np.ndarray) -> bytes:
        """The next samples, floats (clipped to -1..1): the bytes that are ready."""
        samples = to_int16(wave_N)
        if self._file is not None:
            self._file.write(samples)
            return b"" if self._whole else self._taken()
        data = samples.astype("<i2").tobytes()
        if self._whole:
            self._samples.append(data)
            return b""
        return self._head(_UNKNOWN) + data

    def finish(self) -> bytes:
        """The bytes that are left; nothing comes after them."""
        if self._file is not None:
            self._file.close()
            return self._taken()
        data = b"".join(self._samples)
        return self._head(len(data) if self._whole else _UNKNOWN) + data

    def _head(self, size: int) -> bytes:
        """What stands before the first samples, once."""
        if self._begun or self._name == "pcm":
            return b""
        self._begun = True
        return wav_header(self._rate, size)

    def _taken(self) -> bytes:
        data = self._sink.take()
        if data and self._name == "mp3" and not (self._begun or self._whole):
            self._begun = True
            return data[_empty_frame(data) :]
        return data


def wav_header(rate: int, size: int) -> bytes:
    """Of 16-bit samples of one channel. size: their bytes; 0xFFFFFFFF: unknown."""
    riff = min(size + 36, _UNKNOWN)
    form = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16
    )
    return form + struct.pack("<4sI", b"data", size)


class _Whole(io.BytesIO):
    """A file of which everything is taken at the end."""

    def take(self) -> bytes:
        """All of it."""
        return self.getvalue()


class _Forward(io.RawIOBase):
    """A file that only grows: what is written over bytes that are gone already is lost. libsndfile
    corrects headers so, with lengths and checksums that may be left out.
    """

    def __init__(self) -> None:
        self._at = self._end = 0
        self._new = bytearray()

    def write(self, data: Any) -> int:
        data = bytes(data)
        if self._at == self._end:
            self._new += data
            self._end += len(data)
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def take(self) -> bytes:
        """What is new."""
        data = bytes(self._new)
        self._new.clear()
        return data


def _short_pages(file: Any) -> None:
    """Ogg pages of a tenth of a second, not of a whole one. soundfile has no name for it."""
    value = soundfile._ffi.new("double *", _PAGE_MS)
    soundfile._snd.sf_command(file._file, _SET_PAGE_LATENCY, value, 8)


def _empty_frame(data: bytes) -> int:
    """Bytes of the first frame if it is LAME's, which has room for a length and no sound: players that
    believe it before it is filled in stop early.
    """
    return (
        next((n for n in range(4, len(data)) if data[n]), len(data)) if not any(data[4:40]) else 0
    )
