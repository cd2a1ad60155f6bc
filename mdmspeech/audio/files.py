"""Files and streams of audio: what a file is comes from its first bytes; libsndfile reads what it
can, FFmpeg's libraries the rest.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile

from mdmspeech.audio.kinds import HEAD, kind_of
from mdmspeech.audio.media import read_media
from mdmspeech.audio.riff import promised_frames, true_sizes
from mdmspeech.errors import UserError

# bytes of a stream that are kept: 30 s of eight channels, 24 bits and 192 kHz are 138 MB
_MOST_STREAMED = 256 << 20
_UNKNOWN_FRAMES = 1 << 40  # a length that no file has: its writer did not know it
_BLOCK = 1 << 16  # frames read at once
# seconds that a compressed file may have less than it says: codecs' delays are no loss
_DELAY = 0.25
_LONGEST_NAME = 120  # characters of a path that a message shows


class Sound(NamedTuple):
    """samples: float32 [N, channels]; rate: Hz; missing: seconds that the file promises and does
    not have.
    """

    samples: np.ndarray
    rate: int
    missing: float


def name_of(source: Any) -> str:
    """What messages call a source."""
    if not isinstance(source, (str, os.PathLike)):
        source = getattr(source, "name", None)
    if not isinstance(source, (str, os.PathLike)):
        return "the recording"
    name = os.fsdecode(source)
    return (
        name
        if len(name) <= _LONGEST_NAME
        else f"{name[: _LONGEST_NAME // 2]}...{name[-_LONGEST_NAME // 2 :]}"
    )


def read_path(path: str | os.PathLike, name: str, check: Callable[[float], None]) -> Sound:
    """A file by its path; `~` is the home folder unless there is a file of that name. Pipes and
    devices are read to their end.
    """
    path = _existing(os.fsdecode(path), name)
    if path.is_dir():
        raise UserError(f"{name} is a folder; give one audio file")
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{name} is an empty file; record or export it again")
    try:
        with open(path, "rb", buffering=0) as file:
            return _read(file if path.is_file() else _in_memory(file, name), name, check)
    except OSError as error:
        raise UserError(
            f"{name} cannot be read: {error.strerror or error}; check its permissions and its disk"
        ) from error


def read_stream(stream: Any, name: str, check: Callable[[float], None]) -> Sound:
    """An open binary file from where it stands, or anything with `read`: seekable or not."""
    if isinstance(stream, io.TextIOBase):
        if not hasattr(stream, "buffer"):
            raise UserError(
                f"{name} is a text; open the recording in binary mode, open(path, 'rb')"
            )
        stream = stream.buffer
    try:
        can_seek = stream.seekable() and stream.tell() == 0
    except (AttributeError, OSError, ValueError):  # a closed file is said when it is read
        can_seek = False
    try:
        return _read(stream if can_seek else _in_memory(stream, name), name, check)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from error


def _existing(given: str, name: str) -> Path:
    if not given:
        raise UserError("the path is empty; give that of a recording")
    if "\0" in given:
        raise UserError(
            f"{name!r} is no path: it has a NUL character in it; check where it comes from"
        )
    if "://" in given[:12]:
        raise UserError(f"{name} is an address; download the recording and give its path")
    try:
        for path in (Path(given), Path(given).expanduser()):
            if os.path.lexists(path):
                os.stat(path)
                return path
        os.stat(given)
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist; check the path") from error
    except (OSError, RuntimeError, ValueError) as error:  # too long, no permission, no such user
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name} cannot be opened: {reason}; check the path") from error
    raise UserError(f"{name} does not exist; check the path")


def _in_memory(stream: Any, name: str) -> BinaryIO:
    """The rest of a stream."""
    parts, size = [], 0
    while True:
        try:
            part = stream.read(1 << 20)
        except TypeError:  # a read() without a size
            part = stream.read()
        except ValueError as error:
            raise UserError(f"{name} cannot be read: {error}; open it again") from error
        if not part and isinstance(part, (bytes, bytearray, memoryview, str)):
            break
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise UserError(
                f"{name} gives {type(part).__name__} where bytes are needed; "
                "open the recording in binary mode, open(path, 'rb')"
            )
        parts.append(bytes(part))
        size += len(part)
        if size > _MOST_STREAMED:
            raise UserError(
                f"{name} is a stream of more than {_MOST_STREAMED >> 20} MiB, "
                "which no question has; save what you need as a file"
            )
    return io.BytesIO(b"".join(parts))


def _read(file: BinaryIO, name: str, check: Callable[[float], None]) -> Sound:
    """A seekable file at its beginning."""
    head = file.read(HEAD)
    if not isinstance(head, bytes):
        raise UserError(
            f"{name} gives {type(head).__name__} where bytes are needed; open the "
            "recording in binary mode, open(path, 'rb')"
        )
    if not head:
        raise UserError(
            f"{name} is empty; rewind it with seek(0) if it was just written, or record it again"
        )
    kind, size = kind_of(head), file.seek(0, io.SEEK_END)
    file.seek(0)
    if kind is None or kind.native:
        try:
            return _read_native(file, head, size, name, check)
        except (soundfile.LibsndfileError, TypeError) as error:
            if kind is None or not _has_av():
                raise UserError(
                    f"{name} is not readable audio ({_one_line(error)}); use wav, flac, ogg or mp3"
                ) from error
            file.seek(0)
    if kind.demuxer is None:
        raise UserError(f"{name} is not readable audio: it is {kind.words}; {kind.cure}")
    return Sound(*read_media(file, kind, name, check))


def _read_native(
    file: BinaryIO, head: bytes, size: int, name: str, check: Callable[[float], None]
) -> Sound:
    file, missing = true_sizes(file, size, check)
    with soundfile.SoundFile(_nameless(file), closefd=False) as sound:
        known = 0 < sound.frames < _UNKNOWN_FRAMES
        if known:
            check(sound.frames / sound.samplerate)
        samples = _read_to_the_end(sound, check)
        if not samples.size:
            raise UserError(f"{name} holds no samples; record or export it again")
        short = (
            ((promised_frames(head) or sound.frames) - len(samples)) / sound.samplerate
            if known
            else 0.0
        )
        return Sound(samples, sound.samplerate, missing or (short if short > _DELAY else 0.0))


def _read_to_the_end(sound: soundfile.SoundFile, check: Callable[[float], None]) -> np.ndarray:
    blocks, count = [np.zeros((0, sound.channels), np.float32)], 0
    while True:
        block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            return np.concatenate(blocks)
        blocks.append(block)
        count += len(block)
        check(count / sound.samplerate)


def _nameless(file: BinaryIO) -> Any:
    """For soundfile, which believes a name that ends in .raw: unbuffered files by number, as
    `read_path` opens them, others as they are.
    """
    return file.fileno() if isinstance(file, io.FileIO) else file


def _has_av() -> bool:
    import importlib.util

    return importlib.util.find_spec("av") is not None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
