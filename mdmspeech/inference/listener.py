"""What a session hears: where speech begins, pauses, goes on and ends, and the sound of each question.

A question always ends a fixed silence behind its speech (its tail), whenever somebody asks for it,
so that an answer that was begun early has heard what a later one would have.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mdmspeech.audio.turns import Turn, TurnDetection, frames, step
from mdmspeech.audio.vad import FRAME, VoiceActivityDetector
from mdmspeech.inference.recording import Recording
from mdmspeech.speech_format import INPUT_RATE


class Began(NamedTuple):
    """Speech has begun, `at_s` seconds into the sound, padding included."""

    at_s: float


class Paused(NamedTuple):
    """Silence as long as the tail: if the turn is over, this was the question."""

    wave: np.ndarray


class WentOn(NamedTuple):
    """It was not over."""


class Ended(NamedTuple):
    """The turn is over; the speech ended at `at_s`."""

    at_s: float
    wave: np.ndarray


Heard = Began | Paused | WentOn | Ended


class Listener:
    """Of one stream at 16 kHz.

    Args:
      limit: the longest question, samples; a longer turn is cut.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._recording = limit, Recording()
        self._mark = 0  # the end of the last question: nothing is heard twice
        self._speech_from = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Listens for turns from here on."""
        self._vad, self._turn = VoiceActivityDetector(), Turn()
        self._vad_from = self._mark = self._recording.end

    def listen(
        self, samples: np.ndarray, detection: TurnDetection, tail_s: float
    ) -> Iterator[Heard]:
        """More sound; what happens in it, one after the other. tail_s: silence behind the speech
        that belongs to a question.
        """
        self._recording.append(samples)
        tail = min(frames(tail_s), frames(detection.silence_duration_s))
        for probability in self._vad.push(samples):
            before = self._turn
            self._turn, change = step(detection, before, float(probability))
            if change is not None and change.began:
                self._speech_from = self._begin(detection)
                yield Began(self._speech_from / INPUT_RATE)
            elif change is not None:
                yield self._ended(change.frame, tail)
            elif self._turn.speaking:
                if before.silence and not self._turn.silence:
                    yield WentOn()
                elif self._turn.silence == tail:
                    yield Paused(self._wave_until(self._sample(self._turn.frames)))
                if self._sample(self._turn.frames + 1) - self._speech_from > self._limit:
                    yield self._now(tail)
        self._recording.forget(self._begin(detection))

    @property
    def spoken(self) -> int:
        """Samples of the question so far; 0: nobody is speaking."""
        return self._recording.end - self._speech_from if self._turn.speaking else 0

    @property
    def pausing(self) -> bool:
        """Whether the last that was heard of it is silence."""
        return self._turn.silence > 0

    def wave_so_far(self) -> np.ndarray:
        """The sound of the question, as far as it was spoken."""
        return self._wave_until(self._speech_from + self.spoken)

    def end_turn(self, tail_s: float) -> Ended | None:
        """The turn is over because somebody says so. None: nobody is speaking."""
        return self._now(frames(tail_s)) if self._turn.speaking else None

    def record(self, samples: np.ndarray) -> bool:
        """More sound, in which no turns are looked for; whether it is more, for the first time since
        the last question, than one may be. Then the oldest of it is lost.
        """
        before = self._recording.end - self._mark
        self._recording.append(samples)
        self._recording.forget(self._recording.end - self._limit)
        return before <= self._limit < self._recording.end - self._mark

    def take(self) -> np.ndarray:
        """All sound since the last question."""
        wave = self._recording.wave(
            max(self._mark, self._recording.end - self._limit), self._recording.end
        )
        self.forget()
        return wave

    def forget(self) -> None:
        """What was heard since the last question was none."""
        self._turn, self._mark = Turn(self._turn.frames), self._recording.end
        self._recording.forget(self._mark)

    def _sample(self, frame: int) -> int:
        return self._vad_from + frame * FRAME

    def _begin(self, detection: TurnDetection) -> int:
        """First sample of the speech; of speech that may begin with the next frame, if there is
        none.
        """
        frame = self._turn.frames if self._turn.began is None else self._turn.began
        return max(self._sample(frame) - int(detection.prefix_padding_s * INPUT_RATE), self._mark)

    def _now(self, tail: int) -> Ended:
        """It ends here, with as much of the tail as there is."""
        if self._turn.silent_from is None:
            return self._ended(self._turn.frames, 0)
        return self._ended(self._turn.silent_from, min(self._turn.silence, tail))

    def _ended(self, frame: int, tail: int) -> Ended:
        """Silence begins with that frame; `tail` frames of it belong to the question."""
        self._turn, self._mark = Turn(self._turn.frames), self._sample(frame + tail)
        return Ended(self._sample(frame) / INPUT_RATE, self._wave_until(self._mark))

    def _wave_until(self, end: int) -> np.ndarray:
        return self._recording.wave(self._speech_from, end)


def too_much(limit: int) -> str:
    """What `Listener.record` has lost is told so. limit: samples of the longest question."""
    return (
        f"more than {limit / INPUT_RATE:.0f} s of sound wait for commit(); only the last of it is "
        "kept: commit() or clear() in time, or let turns be detected"
    )
