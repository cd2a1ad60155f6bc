"""How long a person waits for the first sound, and how many can talk at once.

Real questions, asked in the time that they take; every way of talking takes turns on each question.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mdmspeech.audio.wave import resample
from mdmspeech.errors import UserError
from mdmspeech.evaluation.latency import stalled, timed_stream, until_first_audio
from mdmspeech.evaluation.testset import question_set, wave_of
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    SessionOpened,
    SpeechStopped,
)
from mdmspeech.speech_format import INPUT_RATE

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

SECONDS = (1.5, 4.0)  # of the questions
_PIECE = 512  # samples that a microphone gives at a time, 32 ms
_PATIENCE = 30.0  # seconds for an answer


def questions(root: str | None, count: int) -> list[np.ndarray]:
    """Test questions of `SECONDS`, float32 at 16 kHz. UserError: there are none."""
    records = question_set(root)
    waves = [
        resample(wave_of(record), record["rate"], INPUT_RATE)
        for record in records
        if SECONDS[0] <= len(record["audio"]) / record["rate"] <= SECONDS[1]
    ]
    if not waves:
        raise UserError("no test question lasts 1.5 to 4 s; make some with: mdmspeech data")
    step = max(len(waves) // count, 1)
    return waves[::step][:count]


def first_audio(
    assistant: "Assistant",
    waves: Sequence[np.ndarray],
    ways: Sequence[tuple[str, int]],
    told: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """From the end of a question that is there to the first samples: one entry a way (talker,
    steps), with medians and 95th percentiles in ms, of each stage, too.
    """
    for talker, steps in ways:
        told(f"warming up {talker} S={steps}")
        for wave in waves[:3]:
            timed_stream(assistant.stream(wave, talker=talker, steps=steps))
    found: dict[tuple[str, int], list[dict[str, Any]]] = {way: [] for way in ways}
    for number, wave in enumerate(waves, 1):
        told(f"question {number} of {len(waves)}")
        # again, once each, so that none is the first with its own lengths
        for talker, steps in ways:
            timed_stream(assistant.stream(wave, talker=talker, steps=steps))
        for talker, steps in ways:
            found[talker, steps].append(
                timed_stream(assistant.stream(wave, talker=talker, steps=steps))
            )
    return [
        {
            "talker": talker,
            "steps": steps,
            "questions": len(timelines),
            "first_audio_ms": spread([t["first_audio_s"] for t in timelines]),
            "stages_ms": _stages([until_first_audio(t) for t in timelines]),
            "real_time_factor": float(np.median([t["real_time_factor"] for t in timelines])),
            "underruns": sum(stalled(t["arrivals"]) > 0.1 for t in timelines),
        }
        for (talker, steps), timelines in found.items()
    ]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile, in ms."""
    median, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
    return {"median": round(float(median), 1), "p95": round(float(p95), 1)}


def _stages(parts: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: spread([part[name] for part in parts]) for name in parts[0]}


@dataclasses.dataclass(frozen=True)
class Turn:
    """One question in a session. first_audio_s: from the moment the end of the turn was told to the
    first samples; underruns as of `ResponseEnded`. None, 0: it was not answered.
    """

    first_audio_s: float | None
    underruns: int
    audio_s: float


def say_in_time(
    push: Callable[[np.ndarray], None],
    wave: np.ndarray,
    over: threading.Event,
    rate: int = INPUT_RATE,
    piece: int = _PIECE,
) -> None:
    """Gives a question to `push` in the time that it takes, `piece` samples at a time, and then
    silence until `over`.
    """
    began, sent = time.monotonic(), 0
    while not over.is_set():
        if (wait := began + sent / rate - time.monotonic()) > 0:
            time.sleep(wait)
        given = wave[sent : sent + piece]
        push(np.pad(given, (0, piece - len(given))))
        sent += piece


def ask(session: Session, wave: np.ndarray) -> Turn:
    """Says a question to a session in the time it takes, then is silent until the answer has ended."""
    over = threading.Event()
    speaker = threading.Thread(
        target=say_in_time, args=(session.push_audio, wave, over), daemon=True
    )
    speaker.start()
    try:
        return _turn(session, len(wave) / INPUT_RATE + _PATIENCE)
    finally:
        over.set()
        speaker.join()


def _turn(session: Session, patience: float) -> Turn:
    stopped = first = None
    for event, at in _until(session, patience):
        if isinstance(event, SpeechStopped):
            stopped, first = at, None
        elif isinstance(event, ResponseAudio) and first is None and len(event.audio):
            first = at
        elif isinstance(event, ResponseEnded):
            waited = None if first is None or stopped is None else first - stopped
            return Turn(waited, event.underruns, event.audio_s)
    return Turn(None, 0, 0.0)


def _until(session: Session, patience: float) -> Iterator[tuple[Any, float]]:
    end = time.monotonic() + patience
    while (left := end - time.monotonic()) > 0:
        if (event := session.events.get(left)) is not None:
            yield event, time.monotonic()


def turns(
    assistant: "Assistant",
    waves: Sequence[np.ndarray],
    told: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> list[Turn]:
    """The questions, one after the other in one session."""
    session = assistant.session(SessionConfig(**settings))
    _opened(session)
    found = []
    for number, wave in enumerate(waves, 1):
        told(f"turn {number} of {len(waves)}")
        found.append(ask(session, wave))
    session.close()
    return found


def sustained(
    assistant: "Assistant",
    waves: Sequence[np.ndarray],
    sessions: int,
    rounds: int = 2,
    **settings: Any,
) -> list[Turn]:
    """So many sessions that ask at the same time, in step by a third of a second, `rounds` times
    each.
    """
    opened = [assistant.session(SessionConfig(**settings)) for _ in range(sessions)]
    for session in opened:
        _opened(session)
    found: list[Turn] = []

    def talk(number: int, session: Session) -> None:
        time.sleep(number / 3)
        for turn in range(rounds):
            found.append(ask(session, waves[(number + turn * sessions) % len(waves)]))

    threads = [threading.Thread(target=talk, args=pair) for pair in enumerate(opened)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in opened:
        session.close()
    return found


def _opened(session: Session) -> None:
    event = session.events.get(600)
    if not isinstance(event, SessionOpened):
        raise UserError(f"the session did not open: {event}")


def summary(found: Sequence[Turn]) -> dict[str, Any]:
    """Of turns: how many were answered, ms to the first sound (median, 95th percentile), underruns."""
    waits = [turn.first_audio_s for turn in found if turn.first_audio_s is not None]
    return {
        "turns": len(found),
        "answered": len(waits),
        "first_audio_ms": spread(waits) if waits else None,
        "underruns": sum(turn.underruns for turn in found),
    }
