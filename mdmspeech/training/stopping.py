"""Why a run stops before its last step. What one process decides by itself (a signal, its clock,
the end of its data) is put to the vote among all (`distributed.StopConsensus`), so that all stop
after the same update.
"""

import enum
import signal
from types import FrameType
from typing import Any


class StopReason(enum.IntEnum):
    """Of several reasons, in one process or in many, the largest counts."""

    NONE = 0
    DATA_ENDED = 1
    TIME_LIMIT = 2
    SIGNAL = 3
    BUDGET = 4


class StopSignal:
    """Context that turns SIGTERM and SIGINT into `.name`; SIGINT after a signal acts as usual. SIGTERM
    may come twice: managers of machines repeat it, and send it to a shell that passes it on. Inactive
    outside the main thread.
    """

    def __init__(self) -> None:
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever owns it decides
                pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name


def why_stopped(reason: int, signal_name: str, minutes: float, max_hours: float = 0.0) -> str:
    """For people. signal_name: of this process, "" if it got none; the others: limits of the run."""
    return {
        StopReason.NONE: "done",
        StopReason.DATA_ENDED: "the data ended",
        StopReason.TIME_LIMIT: f"train.minutes={minutes:g} used up",
        StopReason.SIGNAL: f"{signal_name or 'a signal to another process'}: saved, start again to go on,",
        StopReason.BUDGET: f"train.max_hours={max_hours:g} used up: saved",
    }[StopReason(reason)]
