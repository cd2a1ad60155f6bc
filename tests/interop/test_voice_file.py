"""Voice files come back as they were written; anything else is one clear line. And both parts of
CosyVoice2 in a release.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "codec" / "cosyvoice2"))

from small_cosyvoice2 import CONFIG, small_params, small_voice

from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.codec.cosyvoice2.codec import CosyVoice2Codec
from mdmspeech.errors import UserError
from mdmspeech.inference.factory import open_codec
from mdmspeech.interop.release import Part, Release, config_from, load_release, save_release
from mdmspeech.interop.tensors import read_metadata, read_tensors, write_tensors
from mdmspeech.interop.voice_file import load_voice, save_voice, voice_part, with_voice


@pytest.fixture
def path(tmp_path):
    return tmp_path / "voice.safetensors"


@pytest.fixture(scope="module")
def release():
    return Release(
        "speaks",
        {
            "codec": Part("cosyvoice2_codec", CONFIG, small_params()),
            "voice": voice_part(small_voice()),
        },
    )


def same(one, other):
    for name in ("ids", "mel", "speaker"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_out_and_in_again(path):
    voice = small_voice(75)
    assert save_voice(path, voice, {"recording": "me.wav"}) < 60_000
    again, about = load_voice(path)
    same(again, voice)
    assert about == {"recording": "me.wav"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, about: about.update(format="pt"), "is no voice file"),
        (
            lambda tensors, about: about.update(version="2"),
            "has voice format 2, this program reads 1",
        ),
        (lambda tensors, about: tensors.pop("mel"), "its mel cannot be a voice's"),
        (lambda tensors, about: tensors.update(extra=np.ones(1)), "its extra cannot"),
        (
            lambda tensors, about: tensors.update(ids=tensors["ids"].astype(np.float32)),
            "its ids cannot",
        ),
        (
            lambda tensors, about: tensors.update(speaker=tensors["speaker"][None]),
            "its speaker cannot",
        ),
        (
            lambda tensors, about: tensors.update(mel=tensors["mel"] * np.float32(np.nan)),
            "its mel cannot",
        ),
    ],
)
def test_files_that_are_refused(path, change, message):
    save_voice(path, small_voice())
    tensors, about = read_tensors(path), read_metadata(path)
    change(tensors, about)
    write_tensors(path, tensors, about)
    with pytest.raises(UserError, match=message):
        load_voice(path)


def test_other_files(path):
    with pytest.raises(UserError, match=r"does not exist; make a voice with `mdmspeech voice`"):
        load_voice(path)
    path.write_bytes(b"RIFF")
    with pytest.raises(UserError, match="corrupt or no safetensors"):
        load_voice(path)
    with pytest.raises(UserError, match="cannot write"):
        save_voice(path / "voice.safetensors", small_voice())


def test_a_release_with_codec_and_voice(release, tmp_path):
    save_release(tmp_path, release, "card", "float16")
    opened = load_release(tmp_path)
    assert opened.part("codec").config == CONFIG
    codec = open_codec(opened)
    assert isinstance(codec, CosyVoice2Codec)
    np.testing.assert_array_equal(codec.voice.ids, small_voice().ids)
    np.testing.assert_allclose(codec.voice.mel, small_voice().mel, atol=3e-3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        opened.part("codec").params,
        release.part("codec").params,
    )


def test_another_voice_for_a_release(release, path):
    save_voice(path, small_voice(4, seed=5))
    same(open_codec(with_voice(release, path)).voice, small_voice(4, seed=5))
    save_voice(
        path,
        small_voice(4).__class__(
            small_voice(4).ids, small_voice(4).mel[:-1], small_voice(4).speaker
        ),
    )
    with pytest.raises(
        UserError, match=r"voice\.safetensors has a mel of \[7, 80\], its tokens need \[8, 80\]"
    ):
        with_voice(release, path)
    save_voice(path, small_voice(4))
    with pytest.raises(UserError, match="has a codec with one voice of its own"):
        with_voice(
            Release("compact", {"codec": Part("compact_codec", CompactCodecConfig(), {})}), path
        )


def test_a_release_without_a_voice_says_how_to_make_one(release):
    with pytest.raises(
        UserError, match=r"has no voice to speak in: make one with `mdmspeech voice recording\.wav`"
    ):
        open_codec(Release("mute", {"codec": release.part("codec")}))


def test_sizes_inside_sizes_are_checked():
    sizes = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert config_from("cosyvoice2_codec", sizes, "here") == CONFIG
    del sizes["flow"]["encoder"]["dim"]
    sizes["flow"]["encoder"]["width"] = 3
    with pytest.raises(
        UserError,
        match=(
            r"here: flow: encoder: its sizes are those of another model \(missing "
            r"dim; unknown width\)"
        ),
    ):
        config_from("cosyvoice2_codec", sizes, "here")
