"""How well a Talker speaks, at each number of steps: is it understood, clean, as long as it should
be, and how fast is it made?

Every row is scored on the same texts by the same recogniser, the next-token Talker beside masked
diffusion.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdmspeech.audio.writer import save_wave
from mdmspeech.evaluation.mos import mean_opinion
from mdmspeech.evaluation.progress import in_batches
from mdmspeech.evaluation.recogniser import Recogniser
from mdmspeech.evaluation.silence import timing
from mdmspeech.evaluation.testset import held_out, in_answer_voice, question_set, wave_of

if TYPE_CHECKING:
    from mdmspeech.inference.assistant import Assistant
    from mdmspeech.inference.speech import Trace

STEPS = (1, 2, 4, 8, 16)
BASELINES = ("ntp", "mtp", "mtp_verified")
STOPPED = ("length", "eos")  # the reasons of a speech that ended as it should
SAMPLES = 3  # clips of each row kept as WAV files
_TIMED = 5  # single texts that are timed
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Texts:
    """A set of texts to be spoken. recordings: the answer voice saying each, at 24 kHz, or None
    where there are none.
    """

    name: str
    texts: list[str]
    recordings: list[np.ndarray] | None


def answer_texts(assistant: "Assistant", root: str | Path | None, count: int) -> list[str]:
    """The model's own answers to typed test questions, each different one once, at most `count`."""
    asked = [record["text"] for record in question_set(root, 2 * count)]
    answers = in_batches(assistant.answer_many, asked, "answers to speak")
    return list(dict.fromkeys(a for a in answers if any(c.isalpha() for c in a)))[:count]


def answer_set(texts: Sequence[str], rate: int) -> Texts:
    """Answers as `answer_texts` gives them, with the answer voice's own reading of each."""
    return Texts("answers", list(texts), in_answer_voice(texts, rate))


def open_set(root: str | Path | None, count: int) -> Texts:
    """Unseen open sentences with their recordings."""
    records = held_out(root, count)
    return Texts(
        "open", [record["text"] for record in records], [wave_of(record) for record in records]
    )


def rows(assistant: "Assistant", steps: Sequence[int] = STEPS) -> list[tuple[str, int]]:
    """(talker, steps) of every row of the table; a release without a next-token or multi-token
    Talker has none of its rows.
    """
    baselines = [(name, 1) for name in BASELINES if name in assistant.talkers]
    return [("mdm", s) for s in steps] + baselines


def score_row(
    assistant: "Assistant",
    recogniser: Recogniser,
    spoken: Texts,
    talker: str,
    steps: int,
    *,
    mos_count: int = 50,
    samples: Path | None = None,
) -> dict[str, Any]:
    """One row: word and character errors of the audio against the text, DNSMOS, lengths, how speech
    ended, speed.

    Args:
      mos_count: how many clips DNSMOS judges. samples: a folder for a few WAV files.
    """
    label = f"{talker} S={steps} {spoken.name}"

    def say(texts: Sequence[str]) -> list:
        return assistant.say_many(texts, talker=talker, steps=steps, seed=0)

    speeches = in_batches(say, spoken.texts, label)
    rate, waves = speeches[0].sample_rate, [speech.audio for speech in speeches]
    row: dict[str, Any] = {
        "talker": talker,
        "steps": steps,
        "set": spoken.name,
        "count": len(waves),
    }
    row |= recogniser.spoken_errors(waves, spoken.texts, rate, label=f"{label}: words").report()
    row["mos"] = mean_opinion(waves[:mos_count], rate, label=f"{label}: DNSMOS")
    if spoken.recordings is not None:
        row["timing"] = timing(waves, spoken.recordings, rate)
    row |= endings([speech.stop_reason for speech in speeches])
    row["tokens_a_forward"] = tokens_a_forward([speech.trace for speech in speeches])
    row["speed"] = speed(say, spoken.texts)
    if samples is not None:
        samples.mkdir(parents=True, exist_ok=True)
        for n, wave in enumerate(waves[:SAMPLES]):
            save_wave(samples / f"{spoken.name}-{talker}-s{steps}-{n}.wav", wave, rate)
    return row


def tokens_a_forward(traces: Sequence["Trace"]) -> float:
    """Tokens that a forward of the Talker brings its row, on average."""
    tokens = forwards = 0
    for trace in traces:
        tokens += len(trace.step_L)
        steps = np.split(trace.step_L, trace.starts_P[1:])  # of each block, counted from 0
        forwards += sum(1 + int(step_K.max()) for step_K in steps if len(step_K))
    return round(tokens / max(forwards, 1), 2)


def endings(reasons: Sequence[str]) -> dict[str, Any]:
    """How often speech did not end by itself (`eos_missed`) of how many whose end the Talker had to
    find (`ends_chosen`), and how often each reason came.

    With paced anchors the length is known before a token is spoken: no end is chosen, and none can
    be missed.
    """
    return {
        "eos_missed": sum(reason not in STOPPED for reason in reasons),
        "ends_chosen": sum(reason != "length" for reason in reasons),
        "stop_reasons": {reason: list(reasons).count(reason) for reason in sorted(set(reasons))},
    }


def speed(say: Callable[[Sequence[str]], list], texts: Sequence[str]) -> dict[str, float | int]:
    """Speech tokens a second of the Talker alone, one text at a time (median) and in a batch of 16,
    compiled before; real-time factor with the codec.
    """
    single, factors = [], []
    for text in texts[:_TIMED]:
        say([text])
        began = time.perf_counter()
        (speech,) = say([text])
        factors.append(
            (time.perf_counter() - began) * speech.sample_rate / max(len(speech.audio), 1)
        )
        single.append(len(speech.tokens) / speech.timeline["talker"])
    batch = texts[:_BATCH]
    say(batch)
    speeches = say(batch)
    together = sum(len(speech.tokens) for speech in speeches) / speeches[0].timeline["talker"]
    return {
        "timed": len(single),
        "tokens_per_s": round(float(np.median(single)), 1),
        f"tokens_per_s_batch_{len(batch)}": round(together, 1),
        "real_time_factor": round(float(np.median(factors)), 4),
    }
