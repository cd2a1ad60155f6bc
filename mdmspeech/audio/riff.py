"""What headers promise. WAV headers whose sizes are not true: written to a pipe, before the length
was known (0, or as large as can be), or of a file that was cut off.
"""

import io
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

# sizes from here on mean "until the end": 0x7FFF....
# (sox, arecord, espeak-ng), 0xFFFF.... (ffmpeg, browsers)
_UNKNOWN = 0x7FFF_0000
# of a sample, by AU's number of a coding
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_TOO_FAR = 1 << 20  # bytes of chunks before the samples that are kept


class Data(NamedTuple):
    """Where the samples are. start: byte; promised: bytes by the header; per_second, align: bytes
    of a second and of a frame.
    """

    start: int
    promised: int
    per_second: int
    align: int
    little: bool


def true_sizes(file: BinaryIO, size: int, check: Callable[[float], None]) -> tuple[BinaryIO, float]:
    """A WAV file whose header tells the truth.

    Args:
      file, size: an open file at its beginning, and its bytes.
      check: called with the length in seconds before anything is copied; it may raise.

    Returns:
      The file itself at its beginning, or a copy in memory with true sizes in the header; and the
      seconds that the header promised and the file does not have (0 if nothing is missing).
    """
    data = _find_data(file, size)
    file.seek(0)
    if data is None:
        return file, 0.0
    left = size - data.start
    streamed = data.promised == 0 or data.promised >= _UNKNOWN
    if data.promised <= left and not streamed:
        return file, 0.0
    true = (
        0
        if data.promised == 0 and _only_chunks(file, data.start, size, data.little)
        else left - left % data.align
    )
    check(true / data.per_second)
    order = "<I" if data.little else ">I"
    file.seek(0)
    head = bytearray(file.read(data.start))
    head[4:8] = struct.pack(order, data.start - 8 + true)
    head[-4:] = struct.pack(order, true)
    copy = io.BytesIO(bytes(head) + file.read(true))
    return copy, 0.0 if streamed else (data.promised - true) / data.per_second


def _find_data(file: BinaryIO, size: int) -> Data | None:
    """The samples' place; None for a header that makes no sense (libsndfile says why) or has 64-bit
    sizes (which are not written to pipes).
    """
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return None
    little = head[:4] == b"RIFF"
    order = "<" if little else ">"
    at, form = 12, None
    while at + 8 <= size and at < _TOO_FAR:
        file.seek(at)
        name, length = struct.unpack(order + "4sI", file.read(8))
        if name == b"data":
            if form is None or not form[3] or not form[4]:
                return None
            return Data(at + 8, length, form[3], form[4], little)
        if name == b"fmt ":
            content = file.read(16)
            if len(content) < 16:
                return None
            form = struct.unpack(order + "HHIIHH", content)
        at += 8 + length + length % 2
    return None


def _only_chunks(file: BinaryIO, at: int, size: int, little: bool) -> bool:
    """Whether what follows samples of length 0 is other chunks and not the samples: then there
    really are none.
    """
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI" if little else ">4sI", file.read(8))
        if not (name.isascii() and name.decode().isprintable()):
            return False
        at += 8 + length + length % 2
    return at in (size, size + 1)


def promised_frames(head: bytes) -> int | None:
    """Frames that the header of an AIFF, AU or RF64 file promises (libsndfile says how many there
    are); None for other files, or if it does not know.
    """
    if head[:4] == b"FORM" and (at := head.find(b"COMM")) > 0:
        return int.from_bytes(head[at + 10 : at + 14], "big") or None
    if head[:4] == b"RF64" and (at := head.find(b"ds64")) > 0:
        data, form = int.from_bytes(head[at + 16 : at + 24], "little"), head.find(b"fmt ")
        align = int.from_bytes(head[form + 20 : form + 22], "little") if form > 0 else 0
        return data // align if align else None
    if head[:4] == b".snd" and len(head) >= 24:
        size, coding, _, channels = struct.unpack(">4I", head[8:24])
        width = _AU_BYTES.get(coding, 0) * channels
        return size // width if width and size < _UNKNOWN else None
    return None
