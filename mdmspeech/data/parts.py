"""The spoken parts of the corpus as lists of jobs: who says what. `mdmspeech.data.build` has them spoken."""

from mdmspeech.data.texts.open_sentences import SECONDS_EACH as OPEN_SECONDS
from mdmspeech.data.texts.open_sentences import open_sentences
from mdmspeech.data.voices.base import Job

ANSWER_RATE, QUESTION_RATE = 24_000, 16_000  # Hz
OPEN_SENTENCES = 18_000
ANSWER_VOICE = ("hibari", "heart")


def open_jobs(hours: float | None = None) -> list[Job]:
    """The open sentences in the answer voice; `hours` takes about that much of them."""
    wanted = OPEN_SENTENCES if hours is None else min(OPEN_SENTENCES, round(hours * 3600 / OPEN_SECONDS))
    engine, voice = ANSWER_VOICE
    return [
        Job(s["id"], s["text"], engine, voice, seed=n, record={"family": "open", "split": s["split"]})
        for n, s in enumerate(open_sentences()[:wanted])
    ]
