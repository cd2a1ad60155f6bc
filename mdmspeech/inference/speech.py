"""What speaking gives back."""

import dataclasses
import os
from typing import Any

import numpy as np

from mdmspeech.audio.writer import save_wave


@dataclasses.dataclass(frozen=True)
class Trace:
    """How the tokens came about, for pictures and tests. L tokens, P blocks.

    starts_P: number of the first token of each block. step_L: the step of its block that revealed a token (0 first). confidence_L: the
    probability of the best token at that moment. ready_P: seconds since the start at which a block's tokens were decoded (zeros if all at once).
    """

    starts_P: np.ndarray
    step_L: np.ndarray
    confidence_L: np.ndarray
    ready_P: np.ndarray


@dataclasses.dataclass(frozen=True)
class Word:
    """A written word and when it is spoken, seconds from the start of the audio."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Speech:
    """Spoken text: audio float32 [N] at `sample_rate` Hz, tokens int32 [L], why it ended, when each word is said, how it was made.

    timeline: seconds by stage ("talker", "codec"; those of a whole batch when it was spoken in one), audio_s, total_s, real_time_factor.
    """

    text: str
    audio: np.ndarray
    sample_rate: int
    tokens: np.ndarray
    stop_reason: str
    words: tuple[Word, ...]
    trace: Trace
    timeline: dict[str, Any]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the audio (16-bit; .wav or .flac)."""
        save_wave(path, self.audio, self.sample_rate)


def finish_timeline(timeline: dict[str, Any], samples: int, sample_rate: int, total: float) -> dict[str, Any]:
    """Adds audio_s, total_s and real_time_factor (None without audio)."""
    seconds = samples / sample_rate
    return {**timeline, "audio_s": seconds, "total_s": total, "real_time_factor": total / seconds if seconds else None}
