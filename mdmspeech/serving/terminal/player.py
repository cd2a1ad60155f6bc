"""What a loudspeaker plays: the sound of one response after another, and how much of each came out."""

import threading
from collections import deque

import numpy as np

_FADE_S = 0.005  # that a stop takes, so that it does not click
_START_S = 0.08  # of sound that waits before a response begins to be played


class Player:
    """Samples in, from any thread; `fill` is what the sound card calls.

    Attributes:
      rate: samples a second. underruns: how often a response had nothing to play in its middle.
    """

    def __init__(self, rate: int) -> None:
        self.rate, self.underruns = rate, 0
        self._lock = threading.Lock()
        self._pieces: deque[tuple[int, np.ndarray]] = deque()
        self._waiting = 0  # samples in them
        self._now: int | None = None  # the response that is being played
        self._ended: int = 0  # the last response of which all has come
        self._played: dict[int, int] = {}
        self._fading = np.zeros(0, np.float32)
        self._starved = False

    def put(self, response: int, samples: np.ndarray) -> None:
        """More of a response; float32 [N]."""
        with self._lock:
            self._pieces.append((response, np.asarray(samples, np.float32)))
            self._waiting += len(samples)

    def end(self, response: int) -> None:
        """All of it has come."""
        with self._lock:
            self._ended = max(self._ended, response)

    def stop(self, response: int) -> float:
        """Nothing more of it is played: seconds of it that were."""
        with self._lock:
            if self._now == response:
                rest = [piece for number, piece in self._pieces if number == response]
                fade = np.concatenate([*rest, self._fading])[: int(_FADE_S * self.rate)]
                self._fading = fade * np.linspace(1, 0, len(fade), dtype=np.float32)
                self._now = None
            kept = [one for one in self._pieces if one[0] != response]
            self._pieces, self._waiting = deque(kept), sum(len(piece) for _, piece in kept)
            self._ended = max(self._ended, response)
            return self._played.get(response, 0) / self.rate

    def played(self, response: int) -> float:
        """Seconds of it that have been played."""
        with self._lock:
            return self._played.get(response, 0) / self.rate

    @property
    def busy(self) -> bool:
        """Whether anything is left to play."""
        with self._lock:
            return bool(self._pieces)

    def fill(self, count: int) -> np.ndarray:
        """The next `count` samples, silence where there are none."""
        out = np.zeros(count, np.float32)
        with self._lock:
            at = min(len(self._fading), count)
            out[:at], self._fading = self._fading[:at], self._fading[at:]
            while at < count and self._pieces and self._may_begin():
                response, piece = self._pieces[0]
                self._now, self._starved = response, False
                taken = piece[: count - at]
                out[at : at + len(taken)] = taken
                at += len(taken)
                self._waiting -= len(taken)
                self._played[response] = self._played.get(response, 0) + len(taken)
                if len(taken) < len(piece):
                    self._pieces[0] = (response, piece[len(taken) :])
                else:
                    self._pieces.popleft()
            if not self._pieces and self._now is not None:
                if self._now <= self._ended:
                    self._now = None
                elif not self._starved:
                    self._starved, self.underruns = True, self.underruns + 1
        return out

    def _may_begin(self) -> bool:
        """A response goes on, or begins once a little of it waits."""
        response = self._pieces[0][0]
        enough = self._waiting >= _START_S * self.rate or response <= self._ended
        return response == self._now or enough
