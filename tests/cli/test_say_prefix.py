"""A release whose Talker reads its text in front of the speech: it stores the tokenizer, and `say`
speaks with it.
"""

import dataclasses
import json

import numpy as np
import pytest
import small_speech
import soundfile
from small_published import arguments
from small_speech import PREFIX

import mdmspeech
from mdmspeech.cli import main
from mdmspeech.cli.release import _with_tokenizer
from mdmspeech.data.pipelines.random_source import byte_tokenizer
from mdmspeech.errors import UserError
from mdmspeech.inference.factory import open_assistant
from mdmspeech.inference.prefix_synthesizer import COSYVOICE2_SAMPLING
from mdmspeech.interop.release import Part, Release, load_part, load_release, save_release

WRITTEN = small_speech.text_tokenizer().tokenizer.to_str()


@pytest.fixture(scope="module")
def parts():
    params = small_speech.ending_params(PREFIX, likely=12)
    return {
        "codec": Part("compact_codec", small_speech.CODEC, small_speech.codec_params()),
        "talker": Part("talker_mdm", PREFIX, params, tokenizer=WRITTEN),
        "talker_ntp": Part("talker_ntp", PREFIX, params, tokenizer=WRITTEN),
    }


@pytest.fixture
def folder(parts, tmp_path):
    save_release(tmp_path / "release", Release("prefix", parts, silence=(1, 2)), "# A card\n")
    return tmp_path / "release"


@pytest.mark.slow
def test_it_says(folder, tmp_path, monkeypatch):
    assistant = open_assistant(load_release(folder), None, None)
    assert assistant.talkers == ("mdm", "ntp")
    monkeypatch.setattr(mdmspeech, "load", lambda name, voice=None: assistant)
    out, text = tmp_path / "out.wav", "It is a red apple. And so on."
    how = ["--steps", "2", "--temperature", "0.5", "--seed", "3"]
    assert main(["say", text, "--model", str(folder), "-o", str(out), "--quiet", *how]) == 0
    heard, rate = soundfile.read(out)
    speech = assistant.say(text, steps=2, temperature=0.5, seed=3)
    assert rate == speech.sample_rate and len(heard) == len(speech.audio) > 0
    np.testing.assert_allclose(heard, np.clip(speech.audio, -1, 1), atol=2e-3)


def test_only_its_next_token_talker_draws_as_cosyvoice2_does(folder):
    assistant = open_assistant(load_release(folder), None, None)
    of = lambda talker: dataclasses.asdict(assistant.voice(talker).engine.options)
    changed = {name for name, value in of("ntp").items() if value != of("mdm")[name]}
    assert changed == {"top_k", "top_p", "repetition_window"}
    assert COSYVOICE2_SAMPLING.items() <= of("ntp").items()


def test_the_tokenizer_is_stored_and_checked(parts, folder):
    stored = load_release(folder)
    assert {n: part.tokenizer for n, part in stored.parts.items()} == {
        "codec": None, "talker": WRITTEN, "talker_ntp": WRITTEN
    }  # fmt: skip
    file = folder / "talker.tokenizer.json"
    whole = file.read_bytes()
    for damage, told in ((whole[:-9], "talker.tokenizer.json"), (None, "is missing")):
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(UserError, match=told):
            load_part(folder, "talker")
    about = json.loads((folder / "config.json").read_text())
    about["parts"]["talker"]["tokenizer"]["file"] = "../release/config.json"
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="is missing"):
        load_part(folder, "talker")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(tokenizer=None), "does not say of which tokenizer"),
        (dict(tokenizer=byte_tokenizer().tokenizer.to_str()), "this tokenizer has 259"),
        (dict(tokenizer="{}"), "tokenizer of talker is broken"),
        (dict(tokenizer='{"model": 3}'), "tokenizer of talker is broken"),
    ],
)
def test_a_tokenizer_that_cannot_be(parts, change, told):
    talker = dataclasses.replace(parts["talker"], **change)
    release = Release("prefix", {**parts, "talker": talker})
    with pytest.raises(UserError, match=told):
        open_assistant(release, None, None).say("Yes.")


def test_a_run_gives_the_tokenizer_that_it_was_trained_with(parts, tmp_path):
    part = dataclasses.replace(parts["talker"], tokenizer=None)
    taken = _with_tokenizer(part, {"weights": {"tokenizer": "random"}}, tmp_path)
    assert taken.tokenizer == byte_tokenizer().tokenizer.to_str()
    (tmp_path / "tokenizer.json").write_text(WRITTEN)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    taken = _with_tokenizer(part, {"weights": {"tokenizer": str(tmp_path)}}, tmp_path)
    assert json.loads(taken.tokenizer) == json.loads(WRITTEN)
    for weights, told in (
        ({}, "does not say with which tokenizer"),
        ({"tokenizer": 3}, "does not say with which tokenizer"),
        ({"tokenizer": ""}, "weights.tokenizer is empty"),
        ({"tokenizer": str(tmp_path / "gone")}, "write where it is now into weights.tokenizer"),
    ):
        with pytest.raises(UserError, match=told):
            _with_tokenizer(part, {"weights": weights}, tmp_path)
    with pytest.raises(UserError, match="does not say with which tokenizer"):
        _with_tokenizer(part, {}, tmp_path)
    codec = parts["codec"]  # reads no text
    assert _with_tokenizer(codec, {}, tmp_path) is codec


def test_a_system_takes_a_language_model_that_writes_the_next_token(parts, published, tmp_path):
    """As CosyVoice2's is converted: a release with nothing but that."""
    alone = Release("lm", {"talker_ntp": parts["talker_ntp"]})
    save_release(tmp_path / "lm", alone, "card", "bfloat16")
    argv = arguments(published, tmp_path / "system", talker=tmp_path / "lm")
    assert main(argv) == 0
    system = load_release(tmp_path / "system")
    assert system.untrained == ("adaptor",) and "talker" not in system.parts
    assert system.part("talker_ntp").tokenizer == WRITTEN
    assert "| talker_ntp | talker_ntp |" in (tmp_path / "system" / "README.md").read_text()
    assert open_assistant(system, None, None).talkers == ("ntp",)
