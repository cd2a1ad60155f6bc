"""How long a person waits: from the end of a spoken question to the first sample of the answer, by
stage.

A short wait is worth nothing if playback then stalls: underruns are counted beside it, as a player
meets them that starts at once.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mdmspeech.errors import UserError
from mdmspeech.evaluation.testset import question_set, wave_of

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant

STEPS = (1, 4)
QUESTION_SECONDS = (2.5, 3.0)  # questions this long are "3 s" questions
# stages that are over before the first word is written
BEFORE_SPEECH = ("encoder", "adaptor", "thinker_prefill")
AT_ONCE = ("thinker_decode", "talker", "codec")  # these take turns until the answer ends


def evaluate_latency(
    assistant: "Assistant",
    root: str | Path | None = None,
    count: int = 7,
    steps: Sequence[int] = STEPS,
    talker: str = "mdm",
) -> dict[str, Any]:
    """Medians over `count` questions of 2.5 to 3 s, each asked once before it is timed (so that all
    is compiled).

    Returns: {"steps": {"1": {...}, "4": {...}}}; each with first_audio_ms and its least and
    largest, stages_ms until the first audio (of the median question), the whole answer's
    real_time_factor and total_stages_ms, underruns (questions after whose start playback would have
    stalled), stalled_ms (the longest).

    Raises:
      UserError: no test question is that long.
    """
    records = [record for record in question_set(root) if _is_short(record)][:count]
    if not records:
        raise UserError(
            f"no test question lasts {QUESTION_SECONDS[0]} to {QUESTION_SECONDS[1]} "
            "s; make more with: mdmspeech data"
        )
    assistant.warm_up(talker)
    measured = {}
    for step in steps:
        bar = tqdm(records, f"latency S={step}", unit="question", leave=False)
        measured[str(step)] = summary(
            [_time_second(assistant, record, step, talker) for record in bar]
        )
    return {"talker": talker, "questions": len(records), "steps": measured}


def timed_stream(events) -> dict[str, Any]:
    """Runs a stream of events as a player would. Returns the reply's timeline with `arrivals`:
    (seconds since the start, seconds of audio).
    """
    began, arrivals, timeline = time.perf_counter(), [], None
    for event in events:
        if hasattr(event, "audio"):
            arrivals.append((time.perf_counter() - began, len(event.audio) / event.sample_rate))
        elif hasattr(event, "reply"):
            timeline = event.reply.timeline
    if timeline is None or not arrivals:
        raise UserError("an answer came without speech; its latency cannot be measured")
    return {**timeline, "arrivals": arrivals}


def stalled(arrivals: Sequence[tuple[float, float]]) -> float:
    """Seconds a player that starts with the first samples would stand still in all. arrivals:
    (time, seconds of audio) of every piece.
    """
    clock, waited = arrivals[0][0], 0.0  # when what has come will have been played
    for at, seconds in arrivals:
        waited += max(at - clock, 0.0)
        clock = max(clock, at) + seconds
    return waited


def until_first_audio(timeline: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage before the first sample. Where the release does not split what takes
    turns, that is one entry, "words and speech".
    """
    stages = {name: timeline[name] for name in BEFORE_SPEECH}
    split = timeline.get("until_first_audio")
    if split:
        stages |= {name: split[name] for name in AT_ONCE if name in split}
    stages["other" if split else "words and speech"] = max(
        timeline["first_audio_s"] - sum(stages.values()), 0.0
    )
    return stages


def summary(timelines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of timelines made by `timed_stream`; the stages until the first audio are those of
    the question with the median wait, so they add up.
    """
    first = [1000 * t["first_audio_s"] for t in timelines]
    middle = sorted(timelines, key=lambda t: t["first_audio_s"])[len(timelines) // 2]
    stalls = [stalled(t["arrivals"]) for t in timelines]
    stages = {name: round(1000 * seconds, 1) for name, seconds in until_first_audio(middle).items()}
    return {
        "first_audio_ms": round(statistics.median(first)),
        "first_audio_ms_range": [round(min(first)), round(max(first))],
        "stages_ms": stages,
        "thinker_ms": round(
            sum(ms for name, ms in stages.items() if name.startswith("thinker")), 1
        ),
        "total_stages_ms": {
            name: round(1000 * statistics.median(t[name] for t in timelines), 1)
            for name in BEFORE_SPEECH + AT_ONCE
        },
        "answer_s": round(statistics.median(t["audio_s"] for t in timelines), 2),
        "real_time_factor": round(statistics.median(t["real_time_factor"] for t in timelines), 3),
        "underruns": sum(s > 0.001 for s in stalls),
        "stalled_ms": round(1000 * float(np.max(stalls))),
    }


def _time_second(assistant: "Assistant", record: dict, steps: int, talker: str) -> dict[str, Any]:
    question = (wave_of(record), record["rate"])
    timed_stream(assistant.stream(question, steps=steps, talker=talker))
    return timed_stream(assistant.stream(question, steps=steps, talker=talker))


def _is_short(record: dict) -> bool:
    low, high = QUESTION_SECONDS
    return low <= len(record["audio"]) / record["rate"] <= high
