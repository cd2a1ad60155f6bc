"""What browsers and phones record (m4a, aac, webm, mp4, 3gp, amr, ...), decoded by FFmpeg's
libraries, which PyAV brings: the extra `media`.

The container is named by us, never guessed by FFmpeg: some that it would guess are playlists, which
open other files and addresses.
"""

from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from mdmspeech.audio.kinds import Kind
from mdmspeech.errors import UserError

CURE = "pip install av"


def read_media(
    file: BinaryIO, kind: Kind, name: str, check: Callable[[float], None]
) -> tuple[np.ndarray, int, float]:
    """Samples float32 [N, channels], their rate, and the seconds that the container promises and
    does not have.

    Args:
      file: seekable, at its beginning.
      kind: has a demuxer. name: for messages.
      check: called with the length in seconds, first by the container's word, then while decoding;
        it may raise.

    Raises:
      UserError: PyAV is not installed; not decodable; no sound in it; or by `check`.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{name} is {kind.words}; reading it needs PyAV, which is not "
            f"installed: {CURE} (or convert it to wav, flac, ogg or mp3)"
        ) from error
    try:
        with av.open(file, format=kind.demuxer) as container:
            stream = container.streams.best("audio")
            if stream is None:
                raise UserError(
                    f"{name} is not readable audio: {kind.words} without sound in "
                    "it, or damaged; give a recording"
                )
            promised = _seconds(container, stream)
            check(promised)
            samples, rate = _decode(container, stream, check)
    except av.error.FFmpegError as error:
        raise UserError(
            f"{name} is not readable audio: {kind.words} that is damaged or was "
            f"cut off ({error.strerror}); record or export it again"
        ) from error
    if samples is None:
        raise UserError(
            f"{name} is not readable audio: {kind.words} with nothing in it; record "
            "or export it again"
        )
    missing = promised - len(samples) / rate
    # codecs' delays are no loss
    return samples, rate, missing if missing > max(0.25, 0.05 * promised) else 0.0


def _seconds(container, stream) -> float:
    """The length by the container's word, 0 if it says none."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _decode(container, stream, check: Callable[[float], None]):
    import av

    blocks, count, resampler, rate = [], 0, None, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # one damaged packet; a file that was cut off ends in one
            continue
        for frame in frames:
            if resampler is None:
                rate = frame.sample_rate
                resampler = av.AudioResampler("fltp", frame.layout, rate)
            for part in resampler.resample(frame):
                blocks.append(part.to_ndarray())
                count += blocks[-1].shape[1]
        check(count / rate if rate else 0.0)
    return (np.concatenate(blocks, axis=1).T if blocks else None), rate
