"""What a release is tested on: spoken questions of unseen voices and wordings, human recordings,
sentences that no training saw.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdmspeech.audio.wave import resample
from mdmspeech.data.datasets.corpus import speech, whole
from mdmspeech.data.synthesis import voices
from mdmspeech.data.synthesis.jobs import ANSWER_VOICE
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.errors import UserError

# Parts of the corpus, by split: nothing is chosen by what is reported.
QUESTIONS = {"test": "questions_test", "val": "questions_val"}
RARE = {"test": "rare_test", "val": "rare_val"}
HUMAN = "human"
HUMAN_REPEAT = "human repeat"  # human clips after a spoken "Now repeat what I say:"


def question_set(
    root: str | Path | None, count: int | None = None, split: str = "test"
) -> list[dict]:
    """Question records (with `audio`, int16 at `rate`); `count` of them, spread over all.

    split: "test", voices and phrasings of the test; "val", those of validation.
    """
    store = whole(root, "recordings", QUESTIONS[split])
    return [store[i] for i in spread(len(store), count)]


def human_clips(root: str | Path | None, family: str, count: int | None = None) -> list[dict]:
    """Real recordings, of family "human" (the clip alone) or "human repeat"; empty where the part
    was not made (it needs Debian packages).
    """
    try:
        store = whole(root, "recordings", HUMAN)
    except UserError:
        return []
    rows = [i for i in range(len(store)) if store.fields(i)["family"] == family]
    return [store[rows[i]] for i in spread(len(rows), count)]


def held_out(
    root: str | Path | None, count: int | None, part: str = "open", split: str = "test"
) -> list[dict]:
    """Recordings of the answer voice that no training saw, with text and audio (int16 at 24 kHz)."""
    source = speech(root, (part,), split)
    return [source[i] for i in spread(len(source), count)]


def wave_of(record: dict) -> np.ndarray:
    """A record's audio as float32 in [-1, 1]."""
    return np.asarray(record["audio"], np.float32) / 32768


def in_answer_voice(texts: Sequence[str], rate: int) -> list[np.ndarray] | None:
    """The texts spoken by the voice that the Talker learned from, to compare lengths with; None
    where its synthesiser is not installed.
    """
    engine, voice = ANSWER_VOICE
    try:
        speaker = voices.load(engine)
        spoken = [speaker.speak(Job(str(n), text, engine, voice)) for n, text in enumerate(texts)]
    except (UserError, ImportError, ValueError):
        return None
    return [resample(one.audio, one.rate, rate) for one in spoken]


def spread(available: int, count: int | None) -> list[int]:
    """`count` numbers below `available`, evenly spread; all of them when there are no more, or for
    None.
    """
    if count is None or count >= available:
        return list(range(available))
    return [int(i) for i in np.unique(np.linspace(0, available - 1, count).round())]
