"""Standard input and output as strangers connect them: closed early, full, not UTF-8, not seekable."""

import errno
import io
import os
import sys
from typing import Any, BinaryIO

from mdmspeech.errors import UserError

STDIN = ("-", "/dev/stdin")
STDOUT = ("-", "/dev/stdout")
MOST = 2**28  # bytes of a recording or text that are taken from a pipe


class Patient:
    """A text stream on which work does not depend: when nobody reads it any more (`| head -0`) or
    it is full, what is written is lost, no more.

    error: why the last write failed, unless it was for want of a reader.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, action, *args) -> None:
        try:
            action(*args)
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.error = error
            # What is left in the buffer, too,
            # goes where it does not fail again when the program ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def input_bytes() -> bytes:
    """All of standard input. UserError: it is closed, or endless."""
    if sys.stdin is None:
        raise UserError("standard input is closed: give a file, or send something through a pipe")
    file = (
        sys.stdin.buffer if hasattr(sys.stdin, "buffer") else io.BytesIO(sys.stdin.read().encode())
    )
    data = file.read(MOST + 1)
    if len(data) > MOST:
        raise UserError(
            f"standard input holds more than {MOST >> 20} MB; send one recording or text"
        )
    return data


def input_text() -> str:
    """Standard input as text: UTF-8, or UTF-16 with its mark. UserError: neither."""
    data = input_bytes()
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"standard input is no UTF-8 text (byte {error.start + 1}): convert "
            "it, for example with iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def output_bytes() -> BinaryIO:
    """Standard output for audio. UserError: it is closed, or a terminal."""
    if sys.stdout is None:
        raise UserError("standard output is closed: name a file with -o")
    if sys.stdout.isatty():
        raise UserError(
            "-o - sends a wav file to standard output, which is a terminal here: "
            "redirect it, or name a file"
        )
    return sys.stdout.buffer
