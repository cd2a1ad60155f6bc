"""Sound and tokens of other people's corpora that cannot be used: told when they are asked for."""

import io

import corpora
import numpy as np
import pytest
from corpora import encoded, put, read, shard

from mdmspeech.data.importers import BadItem

SOUNDS = [
    ("cut off", encoded(0)[:-6000], "was cut off: 0.1", "audio cut off"),
    ("a text", b"hello there", "not readable audio", "audio not readable"),
    (
        "a pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
        "git lfs pull",
        "audio not readable",
    ),
    ("silence", None, "holds only silence", "only silence"),
    ("too short", encoded(0, seconds=0.05), "too short: 0.050 s", "audio too short"),
    ("too long", encoded(0, seconds=31, rate=8000), "too long: 31.0 s", "audio too long"),
    ("no samples", encoded(0, seconds=0), "holds no samples", "audio of length 0"),
    ("half a header", encoded(0)[:30], "not readable audio", "audio not readable"),
    ("an archive", b"PK\x03\x04" + bytes(90), "zip archive", "audio not readable"),
]


@pytest.mark.parametrize("row", SOUNDS, ids=lambda row: row[0])
@pytest.mark.parametrize("shape", ["file", "shard"])
def test_sound_that_cannot_be_used_is_told_when_it_is_asked_for(row, shape, tmp_path):
    _, content, words, kind = row
    if content is None:
        out = io.BytesIO()
        corpora.soundfile.write(out, np.full(16_000, 900, np.int16), 16_000, format="WAV")
        content = out.getvalue()
    if shape == "file":
        put(tmp_path, "a.wav", content)
        put(tmp_path, "m.jsonl", '{"audio": "a.wav", "text": "A word."}')
    else:
        put(tmp_path, "a.tar", shard([("a.txt", "A word."), ("a.wav", content)]))
    (item,), _ = read(tmp_path)
    with pytest.raises(BadItem) as problem:
        item.load()
    assert words in problem.value.reason and problem.value.kind == kind
    assert problem.value.where == item.where


def test_a_file_that_went_away_and_tokens_that_are_none(tmp_path):
    corpora.vocalnet(tmp_path)
    good, _ = read(tmp_path)
    folder = tmp_path / "VoiceAssistant-430K-vocalnet"
    (folder / "audios/0.wav").unlink()
    for ask in (good[0].load, good[0].raw):
        with pytest.raises(BadItem, match=r"0\.wav does not exist"):
            ask()
    (folder / "cosyvoice2_tokens/0.npy").unlink()
    np.save(folder / "cosyvoice2_tokens/1.npy", np.array([0.5]))
    np.save(folder / "cosyvoice2_tokens/2.npy", np.array([{}], object), allow_pickle=True)
    for item, words in zip(
        good, ("No such file", "float64, not integers", "allow_pickle"), strict=True
    ):
        with pytest.raises(BadItem, match=words):
            item.units.load()
