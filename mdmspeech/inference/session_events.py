"""What a session tells. Times are seconds: of the sound that was pushed (`at_s`), or of the
response's own audio. Responses and questions are numbered from 1.
"""

import dataclasses
from typing import Literal

import numpy as np

from mdmspeech.inference.speech import Word

# completed: all was said. turn_detected: the person spoke. cancelled: `cancel`, `truncate` or
# `close` ended it. error: `message` has it.
Reason = Literal["completed", "turn_detected", "cancelled", "error"]


@dataclasses.dataclass(frozen=True)
class SessionOpened:
    """Everything is loaded and compiled: the session listens."""


@dataclasses.dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak. interrupts: the response that must not be played any further."""

    at_s: float
    interrupts: int | None = None


@dataclasses.dataclass(frozen=True)
class SpeechStopped:
    """The turn is over; the speech ended at `at_s`."""

    at_s: float


@dataclasses.dataclass(frozen=True)
class Transcript:
    """What was understood of a spoken question: "" if no words (then nothing answers). Adaptors
    that make vectors tell none.
    """

    question: int
    text: str


@dataclasses.dataclass(frozen=True)
class ResponseStarted:
    """An answer to one or more questions begins; `question` is the last of them."""

    response: int
    question: int


@dataclasses.dataclass(frozen=True)
class ResponseText:
    """A piece of the answer's text. Pieces joined are the text."""

    response: int
    text: str


@dataclasses.dataclass(frozen=True)
class ResponseTokens:
    """One block of speech tokens, committed: they change no more.

    start: number of the first in the response. tokens: int32 [K]. steps: the step of the block that
    unmasked each, int32 [K]. confidence: of each then, float32 [K].
    """

    response: int
    start: int
    tokens: np.ndarray
    steps: np.ndarray
    confidence: np.ndarray

    def provisional(self, step: int) -> np.ndarray:
        """The block as it stood after that step: -1 where a token was still masked."""
        return np.where(self.steps <= step, self.tokens, np.int32(-1))


@dataclasses.dataclass(frozen=True)
class ResponseAudio:
    """Samples of the answer, float32 [N], final. words: those that end in what was given so far and
    were not told yet.
    """

    response: int
    audio: np.ndarray
    sample_rate: int
    start_s: float
    words: tuple[Word, ...]


@dataclasses.dataclass(frozen=True)
class ResponseEnded:
    """The last event of a response, once for each that started.

    Attributes:
      text: what the conversation remembers of it. audio_s: how much was made of it.
      first_audio_s: from the end of the question to the first samples (None: there were none).
      underruns, underrun_s: how often and how long a player that starts at once would have stalled
        for more than 100 ms. steps: forwards of each block, where the session chose them.
      message: of an error.
    """

    response: int
    reason: Reason
    text: str
    audio_s: float
    first_audio_s: float | None
    underruns: int = 0
    underrun_s: float = 0.0
    steps: tuple[int, ...] = ()
    message: str = ""


@dataclasses.dataclass(frozen=True)
class TurnsForgotten:
    """The context is full: so many of the oldest turns are no longer remembered, in all."""

    turns: int


@dataclasses.dataclass(frozen=True)
class SessionError:
    """Something that was asked for could not be done; the session goes on."""

    message: str


@dataclasses.dataclass(frozen=True)
class SessionClosed:
    """The last event. message: of the error that ended it, if one did."""

    message: str = ""


ResponseEvent = ResponseStarted | ResponseText | ResponseTokens | ResponseAudio | ResponseEnded
SessionEvent = (
    SessionOpened
    | SpeechStarted
    | SpeechStopped
    | Transcript
    | ResponseEvent
    | TurnsForgotten
    | SessionError
    | SessionClosed
)
