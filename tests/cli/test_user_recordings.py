"""`mdmspeech data --manifest`: from a folder of recordings to records and speech tokens, told in a
few lines, and nothing is done twice.
"""

import json

import jax
import numpy as np
import pytest
import soundfile
from small_speech import CODEC

from mdmspeech.cli import main, user_recordings
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.data.datasets import corpus
from mdmspeech.data.recordings.align import Alignment
from mdmspeech.data.storage.record_store import RecordStore
from mdmspeech.interop.release import Part, Release, save_release
from mdmspeech.preprocessing import precompute


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    part = Part("compact_codec", CODEC, jax.jit(CompactCodecModel(CODEC).init)(jax.random.key(0)))
    save_release(folder, Release("tiny", {"codec": part}), "card")
    return str(folder)


@pytest.fixture
def manifest(tmp_path):
    for n in range(6):
        wave = 0.2 * np.sin(2 * np.pi * 140 * np.arange(int((1.5 + n / 10) * 16_000)) / 16_000)
        soundfile.write(tmp_path / f"{n}.wav", wave, 16_000)
    # the last has no file
    lines = [{"audio": f"{n}.wav", "text": f"Number {n}."} for n in range(7)]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(path)


@pytest.fixture
def quick_aligner(monkeypatch):
    """Aligning for real takes the speech encoder, see tests/data/test_align.py."""

    def one(wave, symbols):
        cuts = np.linspace(0, -(-len(wave) // 400), len(symbols) + 1).astype(int)
        return Alignment(np.diff(cuts).astype(np.int32), -0.5, int(cuts[1]), int(cuts[-2]))

    monkeypatch.setattr(
        user_recordings,
        "make_aligner",
        lambda: lambda waves, symbols: [one(*row) for row in zip(waves, symbols, strict=True)],
    )


def test_from_a_folder_to_tokens(manifest, codec, quick_aligner, tmp_path, capsys, monkeypatch):
    command = [
        "data",
        "--manifest",
        manifest,
        "--name",
        "mine",
        "--root",
        str(tmp_path / "root"),
        "--codec",
        codec,
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "mine: 6 recordings, 0.2 minutes, 2 of them held out" in told
    assert (
        "1 left out" in told
        and "manifest.jsonl, line 7: " in told
        and "6.wav does not exist" in told
    )
    assert "little to learn a voice from" in told
    train, val, test = (
        corpus.tokens(tmp_path / "root", ("mine",), split) for split in ("train", "val", "test")
    )
    assert (len(train), len(val), len(test)) == (3, 1, 2)
    for row in (train[0], val[0], test[0]):
        # 25 ms units, 40 ms tokens
        assert row["frames"].sum() * 0.625 == pytest.approx(len(row["tokens"]), abs=1)

    def again(*args):
        raise AssertionError("the tokens are there already")

    monkeypatch.setattr(precompute, "speech_tokens", again)
    assert main(command) == 0
    assert capsys.readouterr().out == told


@pytest.mark.full  # the shipped codec is compiled
def test_without_a_codec_the_shipped_talker_says_the_texts(
    manifest, quick_aligner, tmp_path, capsys
):
    assert (
        main(["data", "--manifest", manifest, "--name", "mine", "--root", str(tmp_path / "root")])
        == 0
    )
    assert "mine: 6 recordings" in capsys.readouterr().out
    store = corpus.tokens(tmp_path / "root", ("mine",), "train")
    for record in RecordStore(tmp_path / "root" / "raw" / "mine"):
        assert len(record["tokens"]) == -(-len(record["audio"]) // 960)
    assert sum(len(store[i]["tokens"]) for i in range(len(store))) > 100


@pytest.mark.parametrize("name", ["open", "my voice", "../raw", "", "random", "datasets"])
def test_names_that_cannot_be(manifest, name, tmp_path, capsys):
    assert (
        main(["data", "--manifest", manifest, "--name", name, "--root", str(tmp_path / "root")])
        == 2
    )
    assert "--name" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_a_manifest_that_is_not_there(tmp_path, capsys):
    assert (
        main(
            [
                "data",
                "--manifest",
                str(tmp_path / "no.jsonl"),
                "--name",
                "mine",
                "--root",
                str(tmp_path / "root"),
            ]
        )
        == 2
    )
    assert "no.jsonl cannot be read" in capsys.readouterr().err
