"""What a person who talks sees in the terminal: a level meter, both transcripts, how long it took."""

import sys
import threading
from typing import TextIO

import numpy as np

from mdmspeech.inference.session_events import ResponseEnded

_WIDTH = 12  # characters of the meter
_QUIET_DB = -60.0  # its lower end


class Screen:
    """Lines for people; a terminal has the meter below them, anything else has not.

    Args:
      out: where to.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._live, self._lock = self._out.isatty(), threading.Lock()
        self._in_line = False  # an answer's text is being written

    def note(self, text: str) -> None:
        """A line about what happens."""
        with self._lock:
            self._line(text)

    def heard(self, text: str) -> None:
        """What was understood of a question."""
        self.note(f"you: {text or '(no words)'}")

    def said(self, text: str) -> None:
        """A piece of the answer."""
        with self._lock:
            if not self._in_line:
                self._clear()
                self._out.write("it:  ")
                text = text.lstrip()
            self._in_line = True
            self._out.write(text)
            self._out.flush()

    def ended(self, event: ResponseEnded, waited: float | None, underruns: int) -> None:
        """The answer is over. waited: seconds from the end of the turn to the first sound."""
        parts = [] if waited is None else [f"first sound after {1000 * waited:.0f} ms"]
        parts.append(f"{event.audio_s:.1f} s of sound")
        if event.steps:
            parts.append("S=" + ",".join(map(str, event.steps)))
        if underruns:
            parts.append(f"{underruns} gaps")
        if event.reason != "completed":
            parts.append({"turn_detected": "interrupted"}.get(event.reason, event.reason))
        if event.message:
            parts.append(event.message)
        self.note(f"     ({'; '.join(parts)})")

    def level(self, samples: np.ndarray, state: str) -> None:
        """Shows how loud the microphone is, and what the session does."""
        if not self._live or self._in_line:
            return
        power = float(np.mean(np.square(samples))) if len(samples) else 0.0
        loud = (10 * np.log10(power + 1e-12) - _QUIET_DB) / -_QUIET_DB
        bars = int(np.clip(loud, 0, 1) * _WIDTH)
        with self._lock:
            self._out.write(f"\r\033[K[{'#' * bars}{' ' * (_WIDTH - bars)}] {state}")
            self._out.flush()

    def _line(self, text: str) -> None:
        self._out.write("\n" if self._in_line else "")
        self._in_line = False
        self._clear()
        self._out.write(text + "\n")
        self._out.flush()

    def _clear(self) -> None:
        if self._live:
            self._out.write("\r\033[K")
