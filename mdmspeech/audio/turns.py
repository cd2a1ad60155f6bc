"""Who has the turn: when speech begins and ends, told from the probability of speech in each frame.

A pure function of probabilities, `step`, with hysteresis as silero-vad's own iterator has it: a frame
at or above the threshold is speech, one below the lower `release` is silence, what lies between
changes nothing. Speech has begun after `min_speech_s` of it, and has ended after
`silence_duration_s` of silence.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mdmspeech.audio.vad import FRAME_SECONDS
from mdmspeech.errors import UserError

# field -> lowest and highest value
_LIMITS = {
    "threshold": (0.05, 0.95),
    "release": (0.01, 0.95),
    "prefix_padding_s": (0.0, 2.0),
    "silence_duration_s": (0.1, 5.0),
    "min_speech_s": (0.0, 2.0),
}


@dataclasses.dataclass(frozen=True)
class TurnDetection:
    """How turns are found. UserError names a value that cannot be.

    Attributes:
      threshold: probability from which a frame is speech. release: below it a frame is silence;
        None: 0.15 less than `threshold`.
      prefix_padding_s: of the sound before the first frame of speech that belongs to it.
      silence_duration_s: silence that ends a turn. min_speech_s: shorter sounds are no speech.
    """

    threshold: float = 0.5
    release: float | None = None
    prefix_padding_s: float = 0.3
    silence_duration_s: float = 0.5
    min_speech_s: float = 0.1

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is None and name == "release":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{name}={value!r}: give a number from {low:g} to {high:g}")
            if not low <= value <= high:  # nor is NaN
                raise UserError(f"{name}={value!r}: give a number from {low:g} to {high:g}")
        if self.release is not None and self.release > self.threshold:
            raise UserError(
                f"release={self.release!r} is above threshold={self.threshold!r}: give less"
            )

    @property
    def lower(self) -> float:
        """Probability below which a frame is silence."""
        return max(self.threshold - 0.15, 0.01) if self.release is None else self.release

    def updated(self, changes: Mapping[str, Any]) -> "TurnDetection":
        """The same with some fields changed; the others stay. UserError: a field that there is not."""
        known = [field.name for field in dataclasses.fields(self)]
        if unknown := [name for name in changes if name not in known]:
            raise UserError(f"turn detection has no {unknown[0]!r}; it has {', '.join(known)}")
        return dataclasses.replace(self, **changes)


class Turn(NamedTuple):
    """Where a conversation stands after so many frames.

    Attributes:
      frames: heard so far.
      began: first frame of the speech, or of what may become speech; None in silence.
      speaking: whether it is speech (`min_speech_s` of it were heard).
      voiced: frames of speech since `began`.
      silent_from: first frame of the silence behind it; None while it goes on.
    """

    frames: int = 0
    began: int | None = None
    speaking: bool = False
    voiced: int = 0
    silent_from: int | None = None

    @property
    def silence(self) -> int:
        """Frames of silence behind the speech."""
        return 0 if self.silent_from is None else self.frames - self.silent_from


class TurnChange(NamedTuple):
    """began: speech has begun (else it has ended) with this frame: the first of it, or the first of
    the silence behind it.
    """

    began: bool
    frame: int


def step(
    detection: TurnDetection, turn: Turn, probability: float
) -> tuple[Turn, TurnChange | None]:
    """One more frame, of which `probability` is told: (where the conversation stands then, what has
    changed with it).
    """
    at, turn = turn.frames, turn._replace(frames=turn.frames + 1)
    if probability >= detection.threshold:
        turn = turn._replace(
            began=at if turn.began is None else turn.began,
            voiced=turn.voiced + 1,
            silent_from=None,
        )
        if not turn.speaking and turn.voiced >= frames(detection.min_speech_s):
            return turn._replace(speaking=True), TurnChange(True, turn.began or 0)
        return turn, None
    silent, patience = probability < detection.lower, frames(detection.silence_duration_s)
    if turn.began is None or (turn.speaking and not silent and turn.silent_from is None):
        return turn, None
    if not turn.speaking:  # a sound too short to be speech, or one that wavers for ever
        forget = silent or turn.frames - turn.began > patience
        return (Turn(turn.frames) if forget else turn), None
    turn = turn._replace(silent_from=at if turn.silent_from is None else turn.silent_from)
    if turn.silence >= patience:
        return Turn(turn.frames), TurnChange(False, turn.silent_from or 0)
    return turn, None


def frames(seconds: float) -> int:
    """Whole frames that last at least so long."""
    return math.ceil(seconds / FRAME_SECONDS - 1e-9)
