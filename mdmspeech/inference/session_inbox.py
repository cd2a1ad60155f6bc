"""What a session's caller leaves for its thread: sound, in order with what is asked for, and what is
asked for at once.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.recording import Resampler
from mdmspeech.speech_format import INPUT_RATE

BEHIND = 60.0  # seconds of sound that may wait to be listened to


class Inbox:
    """Filled from any thread, emptied by one; nothing is taken once it is closed."""

    def __init__(self) -> None:
        self._lock, self._resampler = threading.Lock(), Resampler()
        self._ordered: deque[np.ndarray | Callable[[], None]] = deque()
        self._urgent: deque[Callable[[], None]] = deque()
        self._waiting, self._closed = 0, False  # samples

    def __len__(self) -> int:
        return len(self._ordered) + len(self._urgent)

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that nobody has listened to yet."""
        return self._waiting / INPUT_RATE

    def push(self, samples: Any, rate: float) -> None:
        """More sound. UserError: none, or too much of it waits."""
        with self._lock:
            if self.waiting_s > BEHIND:
                raise UserError(
                    f"{self.waiting_s:.0f} s of sound wait to be listened to; push it "
                    "as it is recorded, and read the session's events"
                )
            wave = self._resampler.push(samples, rate)
            if len(wave) and not self._closed:
                self._ordered.append(wave)
                self._waiting += len(wave)

    def leave(self, wanted: Callable[[], None], at_once: bool = False) -> None:
        """Something to be called; at once: before all that waits."""
        with self._lock:
            if not self._closed:
                (self._urgent if at_once else self._ordered).append(wanted)

    def take_urgent(self) -> Callable[[], None] | None:
        """What is to be called at once, if there is something."""
        with self._lock:
            return self._urgent.popleft() if self._urgent else None

    def take(self, most: int) -> np.ndarray | Callable[[], None] | None:
        """The next thing to be called, or at most so many samples of sound."""
        with self._lock:
            if not self._ordered:
                return None
            wanted = self._ordered.popleft()
            if callable(wanted):
                return wanted
            if len(wanted) > most:
                self._ordered.appendleft(wanted[most:])
            wanted = wanted[:most]
            self._waiting -= len(wanted)
            return wanted

    def close(self) -> None:
        """Nothing is taken any more."""
        with self._lock:
            self._closed = True
            self._ordered.clear()
            self._urgent.clear()
            self._waiting = 0
