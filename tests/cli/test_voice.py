"""`mdmspeech voice`: a recording in, a voice file out that the model then speaks with."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "codec" / "cosyvoice2"))

from campplus_graph import write_campplus
from small_cosyvoice2 import CONFIG, small_params, small_voice

from mdmspeech.cli import main
from mdmspeech.inference.factory import open_codec
from mdmspeech.interop.release import Part, Release, load_release, save_release
from mdmspeech.interop.voice_file import load_voice, voice_part, with_voice

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model, and beside it what a user has."""
    folder = tmp_path_factory.mktemp("model")
    parts = {
        "codec": Part("cosyvoice2_codec", CONFIG, small_params()),
        "voice": voice_part(small_voice()),
    }
    save_release(folder, Release("speaks", parts), "card")
    write_campplus(folder / "campplus.onnx")
    speech = np.tile(np.load(GOLDEN / "waveform.npz")["in.wav_24k"], 2)
    soundfile.write(folder / "me.wav", speech, 24_000)
    soundfile.write(folder / "short.wav", speech[:24_000], 24_000)
    return folder


def refused(capsys, *argv):
    assert main(["voice", *map(str, argv)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.slow
def test_from_a_recording_to_speech(model, tmp_path, capsys):
    path = tmp_path / "me.safetensors"
    assert main(["voice", str(model / "me.wav"), "-o", str(path), "--codec", str(model)]) == 0
    prompt, about = load_voice(path)
    assert f"{len(prompt.ids)} tokens" in capsys.readouterr().out
    assert (
        about["recording"] == "me.wav"
        and len(about["recording_sha256"]) == len(about["speaker_encoder_sha256"]) == 64
    )
    codec = open_codec(with_voice(load_release(model), path))
    np.testing.assert_array_equal(codec.voice.ids, prompt.ids)


def test_what_is_refused(model, tmp_path, capsys):
    recording, out = model / "me.wav", ("-o", tmp_path / "v.safetensors")
    assert "name a .safetensors file" in refused(capsys, recording, "-o", "v.wav", "--codec", model)
    assert "give --campplus FILE" in refused(capsys, recording, *out, "--codec", tmp_path)
    campplus = ("--campplus", model / "campplus.onnx")
    assert "nobody.wav does not exist" in refused(
        capsys, model / "nobody.wav", *out, "--codec", model
    )
    assert "has no speech_tokenizer_v2.onnx and is no model folder" in refused(
        capsys, recording, *out, "--codec", tmp_path, *campplus
    )
    assert "s of speech; a voice needs 3 to 30 s" in refused(
        capsys, model / "short.wav", *out, "--codec", model
    )
    assert not (tmp_path / "v.safetensors").exists()
