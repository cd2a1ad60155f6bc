"""`build`: every part, the datasets and the summary from one call; missing voices are named at the
end and stop nothing else.
"""

import json

import numpy as np
import pytest

from mdmspeech.data.datasets import corpus
from mdmspeech.data.recordings import human
from mdmspeech.data.storage import record_store
from mdmspeech.data.synthesis import build as building
from mdmspeech.data.synthesis import jobs, voices
from mdmspeech.data.synthesis.voices.base import Rendered
from mdmspeech.data.texts import questions as texts
from mdmspeech.data.texts.family import Question
from mdmspeech.data.texts.rare_words import RareSentence
from mdmspeech.errors import UserError

TRAIN = [
    Question(f"What is thing {w}?", f"It is {w}.", "things", "things/train0", w, split)
    for w, split in zip("abcdefgh", ["train"] * 7 + ["val"], strict=True)
]
TEST = [Question("Tell me about thing a.", "It is a.", "things", "things/test0", "a", "test")]


class Voice:
    def speak(self, job):
        fields = (
            {"symbols": [0, 1, 0], "frames": [2, 2, 2], "f0": [100] * 15}
            if job.voice == "heart"
            else {}
        )
        return Rendered(np.full(2400, 0.1, np.float32), 16_000, fields)


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    monkeypatch.setattr(voices, "load", lambda engine: Voice())
    monkeypatch.setattr(texts, "questions", lambda extra=None: TRAIN + TEST)
    monkeypatch.setattr(texts, "sources", lambda: {"things": "made up"})
    monkeypatch.setattr(
        jobs,
        "open_sentences",
        lambda: [{"id": f"open-{n}", "text": f"Sentence {n}.", "split": "train"} for n in range(9)],
    )
    words = (("asp", "train"), ("elm", "val"), ("yew", "test"))
    rare = [RareSentence(f"A rare {w}.", (w,), s) for w, s in words]
    monkeypatch.setattr(jobs, "rare_sentences", lambda: rare)
    monkeypatch.setattr(jobs, "KOKORO_TRAIN", 2)
    fields = {
        "id": "human-1",
        "text": "Hi.",
        "answer": "Hi.",
        "family": "human",
        "phrasing": "",
        "voice": "a",
        "engine": "human",
        "rate": 16_000,
        "split": "test",
    }
    monkeypatch.setattr(
        human,
        "import_human",
        lambda folder: record_store.write_shard(
            folder, "00000-human", [(fields, np.ones(1600, np.int16))]
        ),
    )


def test_everything_is_made_counted_and_readable(tmp_path, capsys):
    summary = building.build(tmp_path, workers=1)
    counts = {name: part["utterances"] for name, part in summary["parts"].items()}
    assert counts == {
        "open": 9,
        "answers": 8,
        "questions": 6,
        "kokoro": 2,
        "questions_test": 1,
        "human": 1,
        "rare": 2 * jobs.RARE_VOICES,
        "sentences": 9,
        "rare_val": 1,
        "questions_val": 1,
        "rare_test": 1,
    }
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["parts"]["questions_test"]["splits"].keys() == {"test"}
    assert all(
        engine["licence"]
        for part in summary["parts"].values()
        for engine in part["engines"].values()
    )
    assert "questions_test" in capsys.readouterr().out
    assert len(corpus.speech(tmp_path, ("open", "answers"), "train")) == 12
    assert len(corpus.whole(tmp_path, "recordings", "human")) == 1
    for part, asked in summary["parts"].items():
        assert len(corpus.whole(tmp_path, "recordings", part)) == asked["utterances"]
    (licences,) = {row["licence"] for row in corpus.whole(tmp_path, "recordings", "open")}
    assert "Apache" in licences


def test_a_missing_voice_is_named_and_the_rest_is_made(tmp_path, monkeypatch):
    def load(engine):
        if engine == "kokoro":
            raise UserError("kokoro is not installed: npm pack kokoro-js")
        return Voice()

    monkeypatch.setattr(voices, "load", load)
    with pytest.raises(UserError, match="kokoro: kokoro is not installed: npm pack"):
        building.build(tmp_path, workers=1)
    made = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert {"open", "answers", "human"} <= made.keys() and "kokoro" not in made


def test_hours_make_a_small_corpus(tmp_path):
    share = building.PARTS[0].full_hours / sum(p.full_hours for p in building.PARTS)
    summary = building.build(
        tmp_path, hours=3 * jobs.OPEN_SECONDS / 3600 / share, parts=("open",), workers=1
    )
    assert summary["parts"]["open"]["utterances"] == 3
    assert [r["id"] for r in record_store.RecordStore(tmp_path / "raw" / "open").fields] == [
        "open-0",
        "open-4",
        "open-8",
    ]


def test_a_leak_stops_the_build(tmp_path, monkeypatch):
    monkeypatch.setattr(
        texts,
        "questions",
        lambda extra=None: [
            *TRAIN,
            *TEST,
            Question("Tell me, about thing A", "x", "f", "p", "z", "train"),
        ],
    )
    with pytest.raises(UserError, match="leak"):
        building.build(tmp_path, workers=1)


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(UserError, match="no part 'answer'"):
        building.build(tmp_path, parts=("answer",))
