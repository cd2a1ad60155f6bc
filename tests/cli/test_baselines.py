"""A release with next-token and multi-token baselines: what `talker=` takes, says and is measured as."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_speech

from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.evaluation.speed import talkers
from mdmspeech.inference.factory import open_assistant
from mdmspeech.interop.release import Part, Release, load_release, save_release
from mdmspeech.text.pronounce import pronouncer

pytestmark = pytest.mark.slow

TEXT = "It is a red apple, and very good. What is it?"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The next-token Talker is the trunk of the multi-token one."""
    symbols = pronouncer().vocabulary_size
    config = dataclasses.replace(small_speech.TALKER, symbols=symbols)
    several = dataclasses.replace(config, mtp_modules=2)
    params = small_speech.talker_params(several, seed=1)
    trunk = {name: leaf for name, leaf in params.items() if not name.startswith("mtp_")}
    parts = {
        "codec": Part("compact_codec", small_speech.CODEC, small_speech.codec_params()),
        "talker": Part("talker_mdm", config, small_speech.talker_params(config)),
        "talker_ntp": Part("talker_ntp", config, trunk),
        "talker_mtp": Part("talker_mtp", several, params),
    }
    folder = tmp_path_factory.mktemp("releases") / "baselines"
    save_release(folder, Release("baselines", parts), "# A card\n")
    return folder


@pytest.fixture(scope="module")
def assistant(release):
    return open_assistant(load_release(release), None, None)


def test_what_is_verified_is_what_the_next_token_head_says(assistant):
    assert assistant.talkers == ("mdm", "ntp", "mtp", "mtp_verified")
    for temperature in (0.0, 0.8):
        said = {
            name: assistant.say(TEXT, talker=name, temperature=temperature).tokens.tolist()
            for name in ("ntp", "mtp", "mtp_verified")
        }
        assert said["mtp_verified"] == said["ntp"] != said["mtp"]
    modes = {name: assistant.voice(name).engine.options for name in ("mtp", "mtp_verified")}
    assert [modes[name].mtp_verify for name in modes] == [False, True]


def test_a_command_takes_them(release, tmp_path):
    out = tmp_path / "a.wav"
    argv = ["say", TEXT, "--model", str(release), "-o", str(out), "--quiet"]
    assert main([*argv, "--talker", "mtp_verified"]) == 0 and out.stat().st_size > 1000


def agreeing(loaded):
    """Its parts, with modules that always say what head 0 says next: every token is the same."""
    part = loaded.part("talker_mtp")
    params = {**part.params, "outputs": jax.tree.map(np.zeros_like, part.params["outputs"])}
    return {**loaded.parts, "talker_mtp": dataclasses.replace(part, params=params)}


def test_its_talkers_are_measured_with_their_own_weights(release, tmp_path, capsys):
    folder = tmp_path / "agreeing"
    save_release(folder, Release("baselines", agreeing(load_release(release))), "# A card\n")
    argv = ["bench", "--size", "release", "--model", str(folder), "--rounds", "1"]
    assert main([*argv, "--blocks", "2", "--out", str(tmp_path / "b")]) == 0
    rows = {row["way"]: row for row in json.loads((tmp_path / "b.json").read_text())["rows"]}
    assert list(rows) == [
        "NTP", "MTP 3", "MTP 3 verified", "S=1", "S=2", "S=4", "S=8", "S=16"
    ]  # fmt: skip
    assert {row["size"] for row in rows.values()} == {"baselines, trained"}
    forwards = {way: row["forwards"] for way, row in rows.items()}
    assert forwards["NTP"] == 16 and forwards["MTP 3"] == 6 and forwards["S=4"] == 4
    assert forwards["MTP 3 verified"] == 6  # every draft is right
    assert "## baselines, trained, batch 1" in capsys.readouterr().out


def test_drafts_that_are_always_right_save_forwards(release):
    loaded = load_release(release)
    for parts, most in ((loaded.parts, 16), (agreeing(loaded), 6)):
        one = talkers.release_talkers(dataclasses.replace(loaded, parts=parts), blocks=2)
        way = talkers.VERIFIED
        run = talkers._job(one.engines[way.mode], one.texts[way.mode], way, 1, 2)
        assert 2 * 12 < run() <= 2 * 16 if most == 16 else run() == 2 * most


def test_a_release_without_them_is_told(release):
    loaded = load_release(release)
    lacking = {name: part for name, part in loaded.parts.items() if name != "talker_ntp"}
    with pytest.raises(UserError, match="no talker_ntp with paced anchors"):
        talkers.release_talkers(dataclasses.replace(loaded, parts=lacking))
