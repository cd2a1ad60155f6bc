"""What answering gives back, event by event and whole."""

import dataclasses
import os
from typing import Any

import numpy as np

from mdmspeech.audio.writer import save_wave
from mdmspeech.inference.speech import Trace, Word


@dataclasses.dataclass(frozen=True)
class TextEvent:
    """A piece of the answer's text, as soon as it is written. Pieces joined are the text."""

    text: str


@dataclasses.dataclass(frozen=True)
class AudioEvent:
    """Samples of the answer, float32 [N], as soon as they are final. Joined they are the audio."""

    audio: np.ndarray
    sample_rate: int


@dataclasses.dataclass(frozen=True)
class Reply:
    """A whole answer.

    Attributes:
      text; audio: float32 [N] at `sample_rate` Hz; tokens: speech tokens int32 [L]; stop_reason:
      why the speech ended ("length", "eos", ...).
      heard: what was understood, if the frontend writes it down (else None).
      words: when each word is spoken. trace: how the tokens were unmasked.
      timeline: seconds of encoder, adaptor, thinker_prefill, thinker_decode, talker and codec;
        thinker_tokens: how many were written, thoughts included; first_audio_s and total_s from the
        call on; until_first_audio: what the last three had taken by then; audio_s;
        real_time_factor.
    """

    text: str
    audio: np.ndarray
    sample_rate: int
    tokens: np.ndarray
    stop_reason: str
    heard: str | None
    words: tuple[Word, ...]
    trace: Trace
    timeline: dict[str, Any]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the audio (16-bit; .wav or .flac)."""
        save_wave(path, self.audio, self.sample_rate)


@dataclasses.dataclass(frozen=True)
class EndEvent:
    """The last event: the whole answer."""

    reply: Reply


Event = TextEvent | AudioEvent | EndEvent
