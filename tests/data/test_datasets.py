"""TFDS builders: round trip without TensorFlow, users' data, bad records."""

import json
import sys

import numpy as np
import pytest
import soundfile
from mdmspeech.data.datasets.store import RawSource

from mdmspeech.data.datasets import open_dataset, prepare
from mdmspeech.data.recordings.manifests import read_manifest, read_vocalnet
from mdmspeech.data.storage import record_store
from mdmspeech.errors import UserError


def tone(seconds=0.5, rate=16_000):
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


def raw_part(folder):
    records = [
        (
            {
                "id": f"r{n}",
                "text": f"Word {n}.",
                "voice": "v",
                "family": "f",
                "split": "test" if n == 2 else "train",
                "rate": 24_000,
                "symbols": [0, n + 1, 0],
                "frames": [1, 2, 1],
                "f0": [0, 120],
            },
            np.full(100 + n, n, np.int16),
        )
        for n in range(3)
    ]
    record_store.write_shard(folder, "00000-a", records)


def test_raw_store_to_array_record_and_back(tmp_path):
    raw_part(tmp_path / "raw")
    prepared = prepare("speech", RawSource([tmp_path / "raw"]), tmp_path / "tfds")
    assert dict(prepared.examples) == {"train": 2, "test": 1} and not prepared.problems
    record = open_dataset("speech", tmp_path / "tfds", "test")[0]
    assert record["id"] == "r2" and record["text"] == "Word 2." and record["rate"] == 24_000
    np.testing.assert_array_equal(record["audio"], np.full(102, 2, np.int16))
    assert (
        record["audio"].dtype == np.int16
        and record["symbols"].tolist() == [0, 3, 0]
        and record["f0"].tolist() == [0, 120]
    )
    assert list((tmp_path / "tfds").rglob("*.array_record*"))


def test_no_tensorflow_is_imported(tmp_path):
    raw_part(tmp_path / "raw")
    prepare("speech", RawSource([tmp_path / "raw"]), tmp_path / "tfds")
    assert len(open_dataset("speech", tmp_path / "tfds", "train")) == 2
    assert "tensorflow" not in sys.modules


def test_unprepared_dataset_names_the_cure(tmp_path):
    with pytest.raises(UserError, match="mdmspeech data"):
        open_dataset("speech", tmp_path, "train")


@pytest.fixture
def manifest(tmp_path):
    """One good recording and one of each kind of bad one."""
    soundfile.write(tmp_path / "good.wav", tone(), 16_000)
    soundfile.write(tmp_path / "long.wav", tone(3.0), 16_000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "noise.wav").write_bytes(b"not audio at all")
    lines = [
        json.dumps({"audio": f"{name}.wav", "text": "Hi.", "answer": "Hello."})
        for name in ("good", "missing", "empty", "noise", "long")
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join([*lines, '{"audio": "good.wav"}', "{broken", ""]))
    return path


def test_bad_records_are_named_skipped_and_counted(manifest, tmp_path):
    prepared = prepare(
        "questions",
        read_manifest(manifest, 16_000, needs_answer=True, max_seconds=2.0),
        tmp_path / "tfds",
    )
    assert dict(prepared.examples) == {"train": 1}
    assert len(prepared.problems) == 6
    for problem, word in zip(
        prepared.problems,
        ["missing.wav", "empty.wav", "noise.wav", "long.wav", "line 6", "line 7"],
        strict=True,
    ):
        assert word in problem
    record = open_dataset("questions", tmp_path / "tfds", "train")[0]
    assert record["answer"] == "Hello." and abs(len(record["audio"]) - 8000) <= 1


def test_strict_stops_at_the_first_bad_record(manifest, tmp_path):
    with pytest.raises(UserError, match=r"missing\.wav"):
        prepare(
            "questions",
            read_manifest(manifest, 16_000, needs_answer=True),
            tmp_path / "tfds",
            strict=True,
        )


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"audio": "nope.wav", "text": "x"}\n')
    with pytest.raises(UserError, match=r"nope\.wav"):
        prepare("speech", read_manifest(tmp_path / "m.jsonl", 24_000), tmp_path / "tfds")


def test_the_same_id_twice_is_a_bad_record(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "x"}\n' * 2)
    prepared = prepare("speech", read_manifest(tmp_path / "m.jsonl", 16_000), tmp_path / "tfds")
    assert dict(prepared.examples) == {"train": 1} and "before" in prepared.problems[0]


def test_vocalnet_layout(tmp_path):
    folder = tmp_path / "set"
    (folder / "audios").mkdir(parents=True)
    soundfile.write(folder / "audios" / "7.wav", tone(), 16_000)
    np.save(folder / "7.npy", np.array([[5, 6, 7]]))
    talk = [{"from": "human", "value": "<speech>"}, {"from": "gpt", "value": "Yes."}]
    entries = [
        {"id": "7", "speech": "set/audios/7.wav", "conversations": talk, "units": "set/7.npy"},
        {"id": "8", "speech": "set/audios/7.wav"},
    ]
    (folder / "set.json").write_text(json.dumps(entries))
    prepared = prepare("questions", read_vocalnet(folder / "set.json", 16_000), tmp_path / "tfds")
    assert dict(prepared.examples) == {"train": 1} and "entry 2" in prepared.problems[0]
    record = open_dataset("questions", tmp_path / "tfds", "train")[0]
    assert (
        record["id"] == "7"
        and record["answer"] == "Yes."
        and record["text"] == ""
        and record["units"].tolist() == [5, 6, 7]
    )


def test_vocalnet_pickled_units_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    talk = [{"from": "human", "value": "<speech>"}, {"from": "gpt", "value": "Yes."}]
    (tmp_path / "s.json").write_text(
        json.dumps([{"id": "1", "speech": "a.wav", "conversations": talk, "units": "a.npy"}])
    )
    with pytest.raises(UserError, match="1:"):
        prepare(
            "questions",
            read_vocalnet(tmp_path / "s.json", 16_000, folder=tmp_path),
            tmp_path / "tfds",
            strict=True,
        )
