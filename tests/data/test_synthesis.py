"""The raw store and the synthesis driver: resumable, safe against a kill, one bad text does not
stop the run.
"""

import dataclasses

import numpy as np
import pytest

from mdmspeech.data.storage import record_store
from mdmspeech.data.synthesis import render, voices
from mdmspeech.data.synthesis.voices.base import Job, Rendered
from mdmspeech.errors import UserError


class Beeper:
    """A voice for tests: as long as the text, at the pitch of the speed."""

    said: list[str] = []

    def speak(self, job):
        self.said.append(job.id)
        if not job.text:
            raise ValueError("empty text")
        return Rendered(np.full(100 * len(job.text), 0.5, np.float32), 16_000, {"frames": [1]})


@pytest.fixture(autouse=True)
def beeper(monkeypatch):
    Beeper.said = []
    monkeypatch.setattr(voices, "load", lambda engine: Beeper())
    monkeypatch.setattr(render, "JOBS_PER_SHARD", 4)


def jobs(texts):
    return [
        Job(f"j{n}", text, "beeper", "b", record={"split": "train"}) for n, text in enumerate(texts)
    ]


def speak(made, folder, **options):
    return render.synthesise(made, folder, rate=16_000, workers=1, **options)


def test_records_come_back_as_spoken(tmp_path):
    outcome = speak(jobs(["ab", "abcd"] * 5), tmp_path)
    records = record_store.RecordStore(tmp_path)
    assert outcome.utterances == len(records) == 10 and outcome.failures == []
    assert [len(r["audio"]) for r in records] == [200, 400] * 5
    assert (
        records[1]["text"] == "abcd"
        and records[1]["frames"] == [1]
        and records[1]["split"] == "train"
    )
    assert records[1]["audio"].max() == round(0.5 * 32767)
    assert outcome.hours == pytest.approx(3000 / 16_000 / 3600)


def test_a_second_run_speaks_only_what_is_missing_or_changed(tmp_path):
    speak(jobs(["ab"] * 10), tmp_path)
    Beeper.said.clear()
    speak(jobs(["ab"] * 10), tmp_path)
    assert Beeper.said == []
    speak(jobs(["ab"] * 9 + ["new"]), tmp_path)
    assert Beeper.said == ["j8", "j9"]
    assert [r["text"] for r in record_store.RecordStore(tmp_path).fields] == ["ab"] * 9 + ["new"]


def test_a_text_that_is_read_otherwise_than_before_is_spoken_again(tmp_path, monkeypatch):
    """Only its shard, and only by voices that we read for."""
    texts = ["One word."] * 4 + ["My answer is no."] + ["One word."] * 7
    ours = [dataclasses.replace(job, engine="hibari") for job in jobs(texts)]
    speak(ours, tmp_path / "ours")
    speak(jobs(texts), tmp_path / "theirs")
    Beeper.said.clear()
    now, other = render.pronouncer(), {"My answer is no.": "My answer is number."}
    render._symbols.cache_clear()
    monkeypatch.setattr(render, "pronouncer", lambda: Misreading(now, other))
    speak(ours, tmp_path / "ours")
    speak(jobs(texts), tmp_path / "theirs")
    assert Beeper.said == ["j4", "j5", "j6", "j7"]
    render._symbols.cache_clear()
    monkeypatch.undo()


class Misreading:
    """Our pronouncer as of another day: some texts are read as others."""

    def __init__(self, pronounce, other):
        self.pronounce, self.other, self.phonemes = pronounce, other, pronounce.phonemes

    def __call__(self, text):
        return self.pronounce(self.other.get(text, text))


def test_a_run_killed_while_writing_leaves_no_half_shard(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record_store.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            speak(jobs(["ab"] * 4), tmp_path)
    assert record_store.shard_names(tmp_path) == []
    assert speak(jobs(["ab"] * 4), tmp_path).utterances == 4


def test_a_text_that_fails_is_named_and_skipped(tmp_path):
    outcome = speak(jobs(["ab", "", "cd"]), tmp_path)
    assert (
        outcome.utterances == 2
        and len(outcome.failures) == 1
        and "j1" in outcome.failures[0]
        and "empty text" in outcome.failures[0]
    )


def test_a_missing_engine_stops_the_run(tmp_path, monkeypatch):
    def missing(engine):
        raise UserError("beeper is not installed: pip install beeper")

    monkeypatch.setattr(voices, "load", missing)
    with pytest.raises(UserError, match="pip install beeper"):
        speak(jobs(["ab"]), tmp_path)


def test_two_jobs_with_one_id_are_refused(tmp_path):
    with pytest.raises(UserError, match="share one id"):
        speak([jobs(["a"])[0], dataclasses.replace(jobs(["a"])[0], text="b")], tmp_path)


def test_truncated_audio_is_named(tmp_path):
    speak(jobs(["abcd"]), tmp_path)
    pcm = next(tmp_path.glob("*.pcm"))
    pcm.write_bytes(pcm.read_bytes()[:-100])
    with pytest.raises(UserError, match=pcm.name):
        record_store.RecordStore(tmp_path)[0]


def test_an_empty_folder_names_the_cure(tmp_path):
    with pytest.raises(UserError, match="mdmspeech data"):
        record_store.RecordStore(tmp_path)


def test_loud_audio_is_scaled_and_not_clipped():
    samples = render.to_int16(np.array([0.0, 2.0, -1.0], np.float32))
    assert samples.tolist() == [0, round(0.99 * 32767), -round(0.495 * 32767)]
    assert render.to_int16(np.array([0.25], np.float32)).tolist() == [round(0.25 * 32767)]
