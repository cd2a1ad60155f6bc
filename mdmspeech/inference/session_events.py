"""What a session tells. Times are seconds: of the sound that was pushed (`at_s`), or of the
response's own audio. Responses and questions are numbered from 1.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from mdmspeech.inference.speech import Word

# completed: all was said. turn_detected: the person spoke. cancelled: `cancel`, `truncate` or
# `close` ended it. max_output_tokens: it was as long as it may be. error: `message` has it.
Reason = Literal["completed", "turn_detected", "cancelled", "max_output_tokens", "error"]


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
    """The turn is over; the speech ended at `at_s`. question: its number (None: it is not taken, as a
    `SessionError` says).
    """

    at_s: float
    question: int | None = None


@dataclasses.dataclass(frozen=True)
class TurnCommitted:
    """What a `commit(ref=...)`, `note`, `insert` or `respond` has made of what was given: a question,
    or an answer, of this number.
    """

    ref: str
    number: int


@dataclasses.dataclass(frozen=True)
class Transcript:
    """What was understood of a spoken question: "" if no words (then nothing answers). Adaptors
    that make vectors tell none.
    """

    question: int
    text: str


@dataclasses.dataclass(frozen=True)
class ResponseStarted:
    """An answer to one or more questions begins; `question` is the last of them. ref: of the `respond`
    that asked for it.
    """

    response: int
    question: int
    ref: str | None = None


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
class Usage:
    """Tokens. text_in, audio_in: all that the Thinker had before it when it began to answer, as text
    and as vectors of sound. cached: of these, read for an earlier answer. text_out: written, thoughts
    included. audio_out: spoken.
    """

    text_in: int = 0
    audio_in: int = 0
    cached: int = 0
    text_out: int = 0
    audio_out: int = 0


@dataclasses.dataclass(frozen=True)
class ResponseEnded:
    """The last event of a response, once for each that started.

    Attributes:
      text: what the conversation remembers of it. audio_s: how much was made of it.
      first_audio_s: from the end of the question to the first samples (None: there were none).
      underruns, underrun_s: how often and how long a player that starts at once would have stalled
        for more than 100 ms. steps: forwards of each block, where the session chose them.
      message: of an error. usage: tokens. timeline: seconds by stage, see `Reply`.
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
    usage: Usage = Usage()
    timeline: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)


@dataclasses.dataclass(frozen=True)
class ResponseTruncated:
    """What a `truncate(ref=...)` has left of a response: `text`, said in the first `played_s`
    seconds.
    """

    ref: str
    response: int
    played_s: float
    text: str


@dataclasses.dataclass(frozen=True)
class TurnsForgotten:
    """The context is full: so many of the oldest turns are no longer remembered, in all."""

    turns: int


@dataclasses.dataclass(frozen=True)
class SessionError:
    """Something that was asked for could not be done; the session goes on. ref: of what was asked
    for. reason: of a `respond` that came to nothing, why.
    """

    message: str
    ref: str | None = None
    reason: Reason = "error"


@dataclasses.dataclass(frozen=True)
class SessionClosed:
    """The last event. message: of the error that ended it, if one did."""

    message: str = ""


ResponseEvent = ResponseStarted | ResponseText | ResponseTokens | ResponseAudio | ResponseEnded
SessionEvent = (
    SessionOpened
    | SpeechStarted
    | SpeechStopped
    | TurnCommitted
    | Transcript
    | ResponseEvent
    | ResponseTruncated
    | TurnsForgotten
    | SessionError
    | SessionClosed
)
