"""What speaking gives back."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mdmspeech.audio.writer import save_wave


@dataclasses.dataclass(frozen=True)
class Trace:
    """How the tokens came about, for pictures and tests. L tokens, P blocks.

    starts_P: number of the first token of each block. step_L: the step of its block that revealed a
    token (0 first). confidence_L: the probability of the best token at that moment. ready_P:
    seconds since the start at which a block's tokens were decoded (zeros if all at once).
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
    """Spoken text: audio float32 [N] at `sample_rate` Hz, tokens int32 [L], why it ended, when each
    word is said, how it was made.

    timeline: seconds by stage ("talker", "codec"; those of a whole batch when it was spoken in
      one), audio_s, total_s, real_time_factor.
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


class Parts:
    """A text being spoken: iterate once for its parts, each a `Speech` with the words and samples
    that are final by then; `len()` parts in all.

    Times of words count from the beginning of the whole. A codec that hands out samples late puts
    them into the next part.

    Attributes:
      words: how many words the text has. sample_rate: of the audio, Hz.
    """

    def __init__(self, count: int, words: int, sample_rate: int, parts: Iterator[Speech]):
        self.words, self.sample_rate, self._count, self._parts = words, sample_rate, count, parts

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Speech]:
        return self._parts


def join(parts: Iterable[Speech]) -> Speech:
    """The parts of one text as one `Speech`. ValueError: no part."""
    parts = list(parts)
    starts, at = [], 0
    for part in parts:
        starts.append(part.trace.starts_P + at)
        at += len(part.tokens)
    traces = [
        np.concatenate([getattr(part.trace, name) for part in parts])
        for name in ("step_L", "confidence_L", "ready_P")
    ]
    audio, last = np.concatenate([part.audio for part in parts]), parts[-1]
    spent = {name: sum(part.timeline[name] for part in parts) for name in ("talker", "codec")}
    return Speech(
        text=" ".join(part.text for part in parts),
        audio=audio,
        sample_rate=last.sample_rate,
        tokens=np.concatenate([part.tokens for part in parts]),
        stop_reason=last.stop_reason,
        words=tuple(word for part in parts for word in part.words),
        trace=Trace(np.concatenate(starts), *traces),
        timeline=finish_timeline(
            spent, len(audio), last.sample_rate, sum(part.timeline["total_s"] for part in parts)
        ),
    )


def finish_timeline(
    timeline: dict[str, Any], samples: int, sample_rate: int, total: float
) -> dict[str, Any]:
    """Adds audio_s, total_s and real_time_factor (None without audio)."""
    seconds = samples / sample_rate
    return {
        **timeline,
        "audio_s": seconds,
        "total_s": total,
        "real_time_factor": total / seconds if seconds else None,
    }
