"""`mdmspeech chat --thinker`, and `mdmspeech.load(..., thinker=...)`: a release that hears and speaks
by text with another LLM between its ear and its voice; whoever cannot be one is told so first.
"""

import json
import re

import pytest
import soundfile
from chat_llm import write_llm
from small_published import ENCODER
from small_speech import question, spelling

import mdmspeech
from mdmspeech import programs
from mdmspeech.cli import main
from mdmspeech.inference.session_events import ResponseEnded, Transcript
from mdmspeech.interop import converted
from mdmspeech.interop.release import Part, Release, load_release, save_release
from mdmspeech.text.prompts import SYSTEM


@pytest.fixture(scope="module")
def hears(published, tmp_path_factory):
    """A small random release that writes down what it hears, with examples of its own."""
    config, params = spelling()
    parts = {**load_release(published / "speaks").parts}
    parts["adaptor"] = Part("spelling_adaptor", config, params)
    assert config.encoder_dim == ENCODER.dim
    folder = tmp_path_factory.mktemp("hears")
    release = Release(
        "hears",
        parts,
        thinker=str(published / "thinker"),
        encoder=str(published / "whisper"),
        examples=(("Hi.", "Hello."),),
    )
    save_release(folder, release, "card")
    return folder


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return write_llm(tmp_path_factory.mktemp("llm") / "qwen", "qwen3", shards=2)


@pytest.fixture
def wave(tmp_path):
    soundfile.write(tmp_path / "q.wav", question(), 16_000)
    return str(tmp_path / "q.wav")


@pytest.fixture(autouse=True)
def nothing_kept():
    """By other tests."""
    yield
    programs.keep(None)
    converted.keep(None)


@pytest.mark.slow
def test_it_is_put_between_ear_and_voice(hears, llm, wave, tmp_path, capsys):
    argv = ["chat", wave, "--model", str(hears), "--thinker", str(llm), "--steps", "1", "--cold"]
    assert main([*argv, "-o", str(tmp_path / "a.wav")]) == 0
    out = capsys.readouterr().out
    assert soundfile.info(tmp_path / "a.wav").frames > 1000
    tokens = int(re.search(r"^Thinker +[\d.]+ tokens a second, (\d+) tokens$", out, re.M)[1])
    assert 1 <= tokens <= 96
    assert 0.1 < float(re.search(r"^peak memory +([\d.]+) GB", out, re.M)[1]) < 60

    model = mdmspeech.load(hears, thinker=llm)
    assert model.thinker.prompt.system == SYSTEM and not model.thinker.prompt.examples
    asked = model.thinker.tokenizer.decode(model.thinker.before)
    assert "Hello." not in asked and SYSTEM in asked
    assert out.startswith(model.hear(wave)) and out.splitlines()[0]

    with model.session(turn_detection=None, warm_up=False, steps=1, context=640) as session:
        for text in ("What is it?", "And that?"):
            session.push_text(text)
            session.commit()
        ended = []
        for event in session.events:
            assert not isinstance(event, Transcript) or event.text
            if isinstance(event, ResponseEnded):
                ended.append(event)
                if len(ended) == 2:
                    break
    assert [event.reason for event in ended] == ["completed"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("thinker", "told"),
    [
        ("me/nothing", "no such repository in the local Hugging Face cache"),
        ("nothing", "no Thinker at nothing"),
        ("RELEASE", "is a release (codec, talker), not a text LLM"),
        ("", "no Thinker at ''"),
    ],
)
def test_what_cannot_be_one_is_told_before_anything_is_opened(
    published, wave, tmp_path, capsys, monkeypatch, thinker, told
):
    monkeypatch.chdir(tmp_path)
    given = thinker.replace("RELEASE", str(published / "speaks"))
    assert main(["chat", wave, "--thinker", given, "-o", "a.wav"]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and not (tmp_path / "a.wav").exists()


@pytest.mark.slow
def test_a_release_whose_ear_makes_vectors_takes_no_other(system, llm, wave, tmp_path, capsys):
    argv = ["chat", wave, "--model", str(system), "--thinker", str(llm), "--quiet"]
    assert main([*argv, "-o", str(tmp_path / "a.wav")]) == 2
    assert "with the states of their own Thinker" in capsys.readouterr().err


@pytest.mark.slow
def test_it_can_be_measured(hears, llm, tmp_path, capsys):
    argv = ["bench", "thinker", "--model", str(hears), "--thinker", str(llm), "--rounds", "1"]
    assert main([*argv, "--out", str(tmp_path / "b")]) == 0
    result = json.loads((tmp_path / "b.json").read_text())
    told = [row["what"] for row in result["rows"]]
    assert [what for what in told if what.startswith("read a question of ")] == told[:3]
    for how in ("without drafts", "with drafts", "with room for"):
        assert sum(how in what for what in told[3:]) == 1 + (how == "without drafts"), how
    assert len(told) == 6 and 0.1 < result["peak_memory_gb"] < 60
    assert f"weights included: {result['peak_memory_gb']} GB" in capsys.readouterr().out
