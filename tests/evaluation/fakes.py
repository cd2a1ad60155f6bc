"""A corpus of a few sounds, an assistant that knows answers by heart, a recogniser that reads them
off: all plumbing, no models.
"""

import dataclasses
import json

import jax
import numpy as np

from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.data.synthesis.build import write_datasets
from mdmspeech.evaluation.scoring import score
from mdmspeech.inference.speech import Trace

RATE = 24_000
QUESTIONS = [
    ("What is two plus two?", "Two plus two is four.", "arithmetic"),
    ("What is two plus three?", "Two plus three is five.", "arithmetic"),
    ("The capital of France?", "The capital of France is Paris.", "capitals"),
    ("Say after me: Good ships sail far.", "Good ships sail far.", "repeat"),
]
OPEN = ["The green hills are far away.", "He reads a long letter.", "Rain fell on the roof."]

OPEN_VAL = ["A lamp stood on the table.", "They came home late."]


def tone(seconds, rate=RATE, pitch=200.0):
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def write_corpus(root):
    """Parts `questions_test`, `questions_val`, `human` and `open` with a tone for each text: of the
    questions and sentences, the first are of the test, two of each of validation.
    """

    def record(n, text, rate, **fields):
        audio = (tone(2.6 + 0.05 * n, rate) * 32767).astype(np.int16)
        return {
            "id": f"r{n}",
            "text": text,
            "rate": rate,
            "split": "test",
            "voice": "someone",
            **fields,
        }, audio

    spoken = [record(n, q, 16_000, answer=a, family=f) for n, (q, a, f) in enumerate(QUESTIONS)]
    write_shard(root / "raw" / "questions_test", "00000-a", spoken)
    asked = [record(n, QUESTIONS[n][0], 16_000, family="x", split="val") for n in (1, 2)]
    write_shard(root / "raw" / "questions_val", "00000-a", asked)
    humans = [record(0, "Press one.", 16_000, answer="Press one.", family="human")]
    humans.append(
        record(
            1,
            "Now repeat what I say: Press one.",
            16_000,
            answer="Press one.",
            family="human repeat",
        )
    )
    write_shard(root / "raw" / "human", "00000-a", humans)
    write_shard(
        root / "raw" / "open",
        "00000-a",
        [
            *(record(n, text, RATE, family="open") for n, text in enumerate(OPEN)),
            *(
                record(len(OPEN) + n, text, RATE, family="open", split="val")
                for n, text in enumerate(OPEN_VAL)
            ),
        ],
    )
    write_datasets(root)


def write_release(folder, talker="t1", thinker_lora=None):
    """As much of a release's config.json as the evaluation reads."""
    parts = {
        "codec": {"sha256": "c1"},
        "talker": {"sha256": talker},
        "talker_ntp": {"sha256": "n1"},
        "adaptor": {"sha256": "a1"},
    }
    if thinker_lora:
        parts["thinker_lora"] = {"sha256": thinker_lora}
    about = {
        "name": "small",
        "thinker": "mind",
        "encoder": "ear",
        "system": "be kind",
        "parts": parts,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(about))


def small_codec():
    sizes = dict(
        encoder_dim=64,
        encoder_num_layers=1,
        encoder_reach=2,
        decoder_dim=64,
        decoder_num_layers=2,
        decoder_reach=2,
        frame_dim=32,
    )
    config = CompactCodecConfig(decoder_lookahead=(1,), head_dim=32, **sizes)
    return CompactCodec(config, jax.jit(CompactCodecModel(config).init)(jax.random.key(0)))


@dataclasses.dataclass
class FakeSpeech:
    text: str
    audio: np.ndarray
    tokens: np.ndarray
    stop_reason: str
    timeline: dict
    trace: Trace
    sample_rate: int = RATE


@dataclasses.dataclass
class FakeAudio:
    audio: np.ndarray
    sample_rate: int


@dataclasses.dataclass
class FakeEnd:
    reply: FakeSpeech


class FakeVoice:
    def __init__(self):
        self.codec = small_codec()


class FakeAssistant:
    """Types every answer; mishears the second question of the corpus. `spoken` counts calls of
    say_many.
    """

    talkers = ("mdm", "ntp")

    def __init__(self):
        self._answers = {q: a for q, a, _ in QUESTIONS}
        self._answers["Now repeat what I say: Press one."] = "Press one."
        self.spoken = []
        self._voice = None

    def voice(self, talker="mdm"):
        self._voice = self._voice or FakeVoice()
        return self._voice

    def answer_many(self, texts):
        return [self._answers.get(text, "I do not know.") for text in texts]

    def hear_many(self, waves, unheard=None):
        texts = [self._text(wave) for wave in waves]
        return [
            "Two plus two is four." if text == QUESTIONS[1][0] else self._answers[text]
            for text in texts
        ]

    def transcripts(self, waves, unheard=None):
        return [self._text(wave).lower() for wave in waves]

    def _text(self, wave):
        """The tones have the length of their number; only the human clips share one."""
        samples, rate = wave
        return QUESTIONS[round((len(samples) / rate - 2.6) / 0.05)][0]

    def say_many(self, texts, talker="mdm", steps=4, seed=0):
        self.spoken.append((talker, steps, len(texts)))
        return [self._speech(text) for text in texts]

    def _speech(self, text):
        stages = {
            "encoder": 0.01,
            "adaptor": 0.01,
            "thinker_prefill": 0.02,
            "thinker_decode": 0.1,
            "talker": 0.1,
            "codec": 0.05,
        }
        audio = tone(2.0)
        timeline = {
            **stages,
            "first_audio_s": 0.2,
            "audio_s": 2.0,
            "total_s": 0.5,
            "real_time_factor": 0.25,
        }
        steps = np.arange(50) % 4  # of blocks of 25, 4 forwards each
        trace = Trace(np.array([0, 25]), steps, np.zeros(50), np.zeros(2))
        return FakeSpeech(text, audio, np.zeros(50, np.int32), "length", timeline, trace)

    def stream(self, question, steps=4, talker="mdm"):
        speech = self._speech("Four.")
        yield FakeAudio(speech.audio[:RATE], RATE)
        yield FakeAudio(speech.audio[RATE:], RATE)
        yield FakeEnd(speech)

    def warm_up(self, talker="mdm"):
        pass


class FakeRecogniser:
    """Hears every text with its last word missing."""

    name = "fake"

    def transcribe(self, wave, rate=16_000):
        return FakeAssistant()._text((wave, rate)).rsplit(" ", 1)[0]

    def spoken_errors(self, waves, texts, rate=16_000, *, speakers=None, label=""):
        return score(texts, [text.rsplit(" ", 1)[0] for text in texts])
