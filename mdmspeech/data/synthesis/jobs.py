"""The spoken parts of the corpus as lists of jobs: who says what, at which pace.
`mdmspeech.data.synthesis.build` has them spoken.

Test voices (`TEST_VOICES`, and the human clips) never occur in a training part; a test holds that.
"""

import collections
import random
from collections.abc import Sequence
from typing import Any

from mdmspeech.data.storage.splits import text_id
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.data.synthesis.voices.hibari import HibariVoice
from mdmspeech.data.texts.family import Question
from mdmspeech.data.texts.open_sentences import SECONDS_EACH as OPEN_SECONDS
from mdmspeech.data.texts.open_sentences import open_sentences
from mdmspeech.data.texts.rare_words import RareSentence, has_tested_word, rare_sentences

OPEN_SENTENCES = 18_000
QUESTIONS = 22_016  # spoken training questions beside Kokoro's; the other texts are only answered
ANSWER_SECONDS, QUESTION_SECONDS = 2.7, 2.7  # measured means, for "how many make an hour"
ANSWER_VOICE = ("hibari", "heart")

TEST_VOICES = [
    ("kokoro", v) for v in ("af_nicole", "am_onyx", "bf_lily", "bm_lewis", "am_puck", "af_river")
] + [("piper", "joe")] * 2
TESTS_A_FAMILY = collections.defaultdict(lambda: 12, {"repeat": 64, "arithmetic": 24})
KOKORO_TRAIN_VOICES = [
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nova", "af_sarah",
    "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_santa",
    "bf_alice", "bf_emma", "bf_isabella", "bm_daniel", "bm_fable", "bm_george",
]  # fmt: skip
KOKORO_TRAIN = 330  # questions; at 1.4x real time this engine is the expensive one
QUESTIONS_VAL = 150
# engine -> voices and share of the other training questions; pseudo-speakers take the rest
TRAIN_ENGINES = {
    "flite": (("slt", "rms", "awb", "kal16"), 0.08),
    "festival": (("cmu_us_slt_arctic_hts", "kal_diphone", "ked_diphone"), 0.02),
    "espeak": (
        ("en-us", "en-gb", "en-us+f3", "en-gb+f4", "en-gb-scotland", "en-us+m7", "en-us-nyc+f2"),
        0.02,
    ),
}
PSEUDO_SPEAKERS = 400
RARE_VOICES, RARE_SECONDS = 3, 3.0  # of each sentence; a measured mean
# open ones that are spoken in many voices; a measured mean
SENTENCES, SENTENCE_SECONDS = 10_000, 2.8
TRAIN_SPEED, TEST_SPEED = (0.8, 1.25), (0.9, 1.1)


def open_jobs(hours: float | None = None) -> list[Job]:
    """The open sentences in the answer voice; `hours` takes about that much of them."""
    engine, voice = ANSWER_VOICE
    chosen = _some(open_sentences()[:OPEN_SENTENCES], hours, OPEN_SECONDS)
    return [
        Job(
            s["id"],
            s["text"],
            engine,
            voice,
            seed=n,
            record={"family": "open", "split": s["split"]},
        )
        for n, s in enumerate(chosen)
    ]


def answer_jobs(questions: Sequence[Question], hours: float | None = None) -> list[Job]:
    """Every different answer to a training question once, in the answer voice; answers that only
    validation questions have are for testing.
    """
    first: dict[str, Question] = {}
    for question in sorted(_shuffled(questions, test=False), key=lambda q: q.split != "train"):
        first.setdefault(question.answer, question)
    engine, voice = ANSWER_VOICE
    chosen = _some(list(first.values()), hours, ANSWER_SECONDS)
    return [
        Job(
            f"answer-{text_id(q.answer)}",
            q.answer,
            engine,
            voice,
            seed=n,
            record={
                "family": q.family,
                "question": q.text,
                "split": "train" if q.split == "train" else "test",
            },
        )
        for n, q in enumerate(chosen)
    ]


def question_jobs(questions: Sequence[Question], hours: float | None = None) -> list[Job]:
    """The training and validation questions in pseudo-speakers and small synthesisers, each
    question once.
    """
    chosen = _some(
        _shuffled(questions, test=False)[KOKORO_TRAIN : KOKORO_TRAIN + QUESTIONS],
        hours,
        QUESTION_SECONDS,
    )
    rng, crowd = random.Random(1), pseudo_speakers()
    jobs = []
    for question in chosen:
        engine, voice = _some_voice(rng, crowd)
        jobs.append(_question_job(question, engine, voice, rng, TRAIN_SPEED))
    return jobs


def _kokoro_voice(n: int) -> tuple[str, str]:
    """The n-th engine and voice of those of Kokoro's that are for training, in turns."""
    return "kokoro", KOKORO_TRAIN_VOICES[n % len(KOKORO_TRAIN_VOICES)]


def kokoro_jobs(questions: Sequence[Question], hours: float | None = None) -> list[Job]:
    """The training questions that Kokoro's training voices ask."""
    chosen = _some(_shuffled(questions, test=False)[:KOKORO_TRAIN], hours, QUESTION_SECONDS)
    rng = random.Random(2)
    return [_question_job(q, *_kokoro_voice(n), rng, TRAIN_SPEED) for n, q in enumerate(chosen)]


def held_out_jobs(questions: Sequence[Question]) -> list[Job]:
    """The spoken test set: so many questions of each family, in voices that training never hears."""
    by_family: dict[str, list[Question]] = collections.defaultdict(list)
    for question in _shuffled(questions, test=True):
        by_family[question.family].append(question)
    chosen = [
        q for family in sorted(by_family) for q in by_family[family][: TESTS_A_FAMILY[family]]
    ]
    random.Random(3).shuffle(chosen)
    rng = random.Random(4)
    return [
        _question_job(q, *TEST_VOICES[n % len(TEST_VOICES)], rng, TEST_SPEED)
        for n, q in enumerate(chosen)
    ]


def rare_jobs(hours: float | None = None) -> list[Job]:
    """The training and validation sentences with rare words, each in `RARE_VOICES` voices of those
    that ask the training questions, Kokoro's apart.
    """
    said = [s for s in rare_sentences() if s.split != "test"]
    rng, crowd = random.Random(5), pseudo_speakers()
    picked = [
        (sentence, *_some_voice(rng, crowd), rng.uniform(*TRAIN_SPEED), rng.randrange(2**31))
        for sentence in said
        for _ in range(RARE_VOICES)
    ]
    return [
        _rare_job(sentence, n, engine, voice, round(speed, 2), seed)
        for n, (sentence, engine, voice, speed, seed) in enumerate(
            _some(picked, hours, RARE_SECONDS)
        )
    ]


def sentence_jobs(hours: float | None = None) -> list[Job]:
    """Open sentences of training and validation, each once, in a voice of those that ask the training
    questions, Kokoro's apart: more words than questions have. None has a rare word that is tested.
    """
    said = [
        s
        for s in open_sentences()[:OPEN_SENTENCES]
        if s["split"] in ("train", "val") and not has_tested_word(s["text"])
    ]
    rng, crowd = random.Random(7), pseudo_speakers()
    picked = [(s, *_some_voice(rng, crowd), rng.uniform(*TRAIN_SPEED)) for s in said[:SENTENCES]]
    return [
        Job(
            f"said-{s['id']}",
            s["text"],
            engine,
            voice,
            speed=round(speed, 2),
            seed=n,
            record={"family": "open", "phrasing": "open", "split": s["split"]},
        )
        for n, (s, engine, voice, speed) in enumerate(_some(picked, hours, SENTENCE_SECONDS))
    ]


def rare_val_jobs(hours: float | None = None) -> list[Job]:
    """The validation sentences with rare words once more, in Kokoro's training voices: in invented
    ones no choice of an ear shows, Whisper itself writes a rare word as often wrong there as ours.
    """
    rng = random.Random(8)
    said = [
        _rare_job(
            sentence,
            f"val-{n}",
            *_kokoro_voice(n),
            round(rng.uniform(*TEST_SPEED), 2),
            rng.randrange(2**31),
        )
        for n, sentence in enumerate(s for s in rare_sentences() if s.split == "val")
    ]
    return list(_some(said, hours, RARE_SECONDS))


def question_val_jobs(questions: Sequence[Question], hours: float | None = None) -> list[Job]:
    """Validation questions in the same voices, for the same purpose."""
    rng = random.Random(9)
    said = [q for q in _shuffled(questions, test=False) if q.split == "val"][:QUESTIONS_VAL]
    return [
        _question_job(
            q,
            *_kokoro_voice(n),
            rng,
            TEST_SPEED,
            name="question-val",
        )
        for n, q in enumerate(_some(said, hours, QUESTION_SECONDS))
    ]


def rare_test_jobs() -> list[Job]:
    """The test sentences with rare words, once each, in test voices."""
    rng = random.Random(6)
    return [
        _rare_job(
            sentence,
            n,
            *TEST_VOICES[n % len(TEST_VOICES)],
            round(rng.uniform(*TEST_SPEED), 2),
            rng.randrange(2**31),
        )
        for n, sentence in enumerate(s for s in rare_sentences() if s.split == "test")
    ]


def pseudo_speakers(seed: int = 0) -> list[HibariVoice]:
    """Invented speakers: children to deep voices, flat to lively. A lower voice has longer
    formants, as real ones do.
    """
    rng = random.Random(seed)
    crowd = []
    for _ in range(PSEUDO_SPEAKERS):
        formant = rng.uniform(0.84, 1.18)
        f0 = 195 * 2 ** (4.2 * (formant - 1) + rng.gauss(0, 0.22))
        crowd.append(
            HibariVoice(
                round(formant, 2), round(min(max(f0, 75), 340)), round(rng.uniform(0.4, 1.3), 2)
            )
        )
    return crowd


def _some_voice(rng: random.Random, crowd: Sequence[HibariVoice]) -> tuple[str, str]:
    """(engine, voice) by the shares of `TRAIN_ENGINES`; the rest is the crowd's."""
    weights = [share for _, share in TRAIN_ENGINES.values()]
    (engine,) = rng.choices([*TRAIN_ENGINES, "hibari"], [*weights, 1 - sum(weights)])
    return engine, (
        rng.choice(crowd).name if engine == "hibari" else rng.choice(TRAIN_ENGINES[engine][0])
    )


def _rare_job(
    sentence: RareSentence, number: int | str, engine: str, voice: str, speed: float, seed: int
) -> Job:
    record = {
        "answer": ";".join(sentence.words),
        "family": "rare words",
        "phrasing": "rare words",
        "split": sentence.split,
    }
    name = f"rare-{text_id(sentence.text)}-{number}"
    return Job(name, sentence.text, engine, voice, speed=speed, seed=seed, record=record)


def _question_job(
    question: Question,
    engine: str,
    voice: str,
    rng: random.Random,
    speed: tuple[float, float],
    name: str = "question",
) -> Job:
    record = {
        "answer": question.answer,
        "family": question.family,
        "phrasing": question.phrasing,
        "split": question.split,
    }
    return Job(
        f"{name}-{text_id(question.text)}",
        question.text,
        engine,
        voice,
        speed=round(rng.uniform(*speed), 2),
        seed=rng.randrange(2**31),
        record=record,
    )


def _shuffled(questions: Sequence[Question], test: bool) -> list[Question]:
    """The test or the other questions in an order that depends on each text alone, so that a new
    question does not move the others.
    """
    return sorted(
        (q for q in questions if (q.split == "test") == test), key=lambda q: text_id(q.text)
    )


def _some(everything: Sequence[Any], hours: float | None, seconds_each: float) -> Sequence[Any]:
    """All, or about `hours` of them, evenly spaced: lists begin or end with what is held out, and a
    small corpus needs its share of that too.
    """
    wanted = len(everything) if hours is None else max(2, round(hours * 3600 / seconds_each))
    if wanted >= len(everything):
        return everything
    return [everything[i * (len(everything) - 1) // (wanted - 1)] for i in range(wanted)]
