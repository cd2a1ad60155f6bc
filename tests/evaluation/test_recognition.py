"""Our ear beside Whisper-base on the same clips: over fakes, with wrong answers fed to it."""

import json

import fakes
import numpy as np
import pytest

from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.data.synthesis.build import write_datasets
from mdmspeech.errors import UserError
from mdmspeech.evaluation import recognition
from mdmspeech.evaluation.scoring import difference, score
from mdmspeech.evaluation.tables import write_tables

TEXTS = ["Who was Archimedes?", "A Kyrgyz yurt and a sitar."]
RARE = ["Archimedes", "Kyrgyz;yurt;sitar"]


class Ear:
    """Writes what it was told to write for each text of a clip."""

    name = "an ear"

    def __init__(self, said):
        self.said, self.heard = said, []

    def transcribe(self, wave, rate):
        texts = [*(q for q, _, _ in fakes.QUESTIONS), *TEXTS]
        number = round((len(wave) / rate - 2.6) / 0.05)
        self.heard.append(number)
        return self.said.get(texts[number], texts[number])

    def transcripts(self, waves, unheard=None):
        assert unheard == ""
        return [self.transcribe(*wave) for wave in waves]


@pytest.fixture
def root(tmp_path):
    fakes.write_corpus(tmp_path / "data")
    about = {"rate": 16_000, "engine": "kokoro", "voice": "af_nicole", "family": "rare words"}
    about |= {"phrasing": "rare words", "split": "test", "speed": 1.0, "seed": 0}
    records = [
        (
            about | {"id": f"r{n}", "text": text, "answer": rare},
            (fakes.tone(2.6 + 0.05 * (4 + n), 16_000) * 32767).astype(np.int16),
        )
        for n, (text, rare) in enumerate(zip(TEXTS, RARE, strict=True))
    ]
    write_shard(tmp_path / "data" / "raw" / "rare_test", "00000-a", records)
    write_datasets(tmp_path / "data")
    return tmp_path / "data"


def test_both_hear_the_same_clips_and_are_scored_alike(root, tmp_path):
    ours = Ear({TEXTS[0]: "Who was Archie Medes?", fakes.QUESTIONS[0][0]: "What is two plus?"})
    whisper = Ear({TEXTS[1]: "A curious yurt and a sitar."})
    theirs = recognition.written_by(whisper, root)
    assert ours.heard == [] and len(whisper.heard) == 4 + 1 + 2
    found = recognition.evaluate_recognition(ours, whisper, theirs, root)
    assert list(found["sets"]) == ["test voices", "real people", "rare words"]
    assert ours.heard[: 4 + 1 + 2] == whisper.heard[: 4 + 1 + 2]
    rare = found["sets"]["rare words"]
    assert rare["clips"] == 2
    # two of nine words wrong against one
    assert (rare["ours"]["wer"], rare["whisper"]["wer"]) == (22.22, 11.11)
    assert rare["difference"]["points"] == 11.11
    assert (rare["ours"]["rare_right"], rare["ours"]["rare"]) == (3, 4)
    assert (rare["whisper"]["rare_right"], rare["whisper"]["rare"]) == (3, 4)
    voices = found["sets"]["test voices"]
    assert voices["ours"]["wer"] > voices["whisper"]["wer"] == 0 and "rare" not in voices["ours"]
    assert {"set": "rare words", "text": TEXTS[0], "ours": "Who was Archie Medes?",
            "whisper": TEXTS[0]} in found["items"]  # fmt: skip
    path = write_tables({"name": "small", "recognition": found}, tmp_path)
    page = path.read_text()
    assert "| rare words, 2 | word errors, percent | 11.11 (" in page
    assert "|  | rare words right | 3 of 4 | 3 of 4 | - |" in page
    json.dumps(found)


def test_a_set_that_was_not_made_is_left_out(tmp_path):
    fakes.write_corpus(tmp_path)
    theirs = recognition.written_by(Ear({}), tmp_path, count=2)
    found = recognition.evaluate_recognition(Ear({}), Ear({}), theirs, tmp_path, count=2)
    assert {name: one["clips"] for name, one in found["sets"].items()} == {
        "test voices": 2,
        "real people": 1,
    }


def test_transcripts_of_other_clips_are_refused(root):
    theirs = recognition.written_by(Ear({}), root)
    theirs["sets"]["rare words"]["texts"][1] = "Another."
    with pytest.raises(UserError, match=r"other clips .* --split test --parts recognition --force"):
        recognition.evaluate_recognition(Ear({}), Ear({}), theirs, root)


def test_a_difference_is_of_pairs():
    """Where both err alike on every clip there is none, however uneven the clips; swapped, it turns
    its sign.
    """
    said = ["one two three four", "five six", "seven"]
    wrong = ["one two three", "five six six six", "seven"]
    a, b = score(said, wrong), score(said, said)
    assert difference(a, a) == {"points": 0, "points_95": [0, 0]}
    there, back = difference(a, b), difference(b, a)
    assert there["points"] == round(100 * 3 / 7, 2) == -back["points"]
    assert there["points_95"] == [-x for x in back["points_95"][::-1]]
    assert there["points_95"][0] < there["points"] < there["points_95"][1]
