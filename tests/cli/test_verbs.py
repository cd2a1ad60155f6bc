"""The other verbs: help is instant and complete, `say` speaks, damaged releases are one line,
`release` and `data` pass on what they are told.
"""

import importlib
import io
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
from small_speech import CODEC, TALKER, talker_params

from mdmspeech.cli import look_for_no_tpu, main
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.interop.release import Part, Release, load_release, save_release

VERBS = (
    "chat",
    "say",
    "talk",
    "serve",
    "bench",
    "voice",
    "data",
    "train",
    "plan",
    "cost",
    "ladder",
    "preflight",
    "eval",
    "release",
    "assemble",
    "convert",
)


@pytest.fixture(scope="module")
def release_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    codec = Part("compact_codec", CODEC, jax.jit(CompactCodecModel(CODEC).init)(jax.random.key(0)))
    save_release(
        folder,
        Release("tiny", {"codec": codec, "talker": Part("talker_mdm", TALKER, talker_params())}),
        "card",
    )
    return folder


def copy(folder, to):
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def refused(capsys, *argv):
    assert main([*argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_explains_and_loads_nothing_heavy(verb):
    code = (
        "import sys\nfrom mdmspeech.cli import main\n"
        f"try:\n    main({[verb] if verb else []} + ['--help'])\nexcept "
        "SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'jax', 'numpy', 'librosa', 'matplotlib', 'flax'} & "
        "set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: mdmspeech" in done.stdout
    assert all(v in done.stdout for v in VERBS) if not verb else "--" in done.stdout


@pytest.mark.parametrize(
    ("packages", "device", "chosen"),
    [
        ({"libtpu"}, None, "cpu"),
        ({"libtpu"}, "accel0", None),
        ({"libtpu", "jax_cuda12_plugin"}, None, None),
        (set(), None, None),
    ],
)
def test_a_tpu_is_looked_for_where_there_may_be_one(
    packages, device, chosen, tmp_path, monkeypatch
):
    for name in ("JAX_PLATFORMS", "TPU_NAME", "TPU_WORKER_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in packages else None)
    if device:
        (tmp_path / device).touch()
    look_for_no_tpu(tmp_path)
    assert os.environ.get("JAX_PLATFORMS") == chosen
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    look_for_no_tpu(tmp_path)
    assert os.environ["JAX_PLATFORMS"] == "cuda"


@pytest.mark.parametrize(("verb", "extra"), [("data", "data"), ("eval", "eval")])
def test_a_package_that_is_not_installed_is_named_with_its_extra(verb, extra, capsys, monkeypatch):
    def run(args):
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere.part")

    module = importlib.import_module(
        {"eval": "mdmspeech.cli.evaluate"}.get(verb, f"mdmspeech.cli.{verb}")
    )
    monkeypatch.setattr(module, "run", run)
    assert main([verb, *(["--model", "compact"] if verb == "eval" else [])]) == 2
    told = capsys.readouterr().err
    assert "the package nowhere is not installed" in told and f"mdmspeech[{extra}]" in told

    def broken(args):
        raise ModuleNotFoundError("ours", name="mdmspeech.nothing")

    monkeypatch.setattr(module, "run", broken)
    with pytest.raises(ModuleNotFoundError):
        main([verb, *(["--model", "compact"] if verb == "eval" else [])])


def test_an_unknown_verb_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["sing"])
    assert end.value.code == 2


@pytest.mark.slow
def test_say_writes_speech(small_model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "say.flac"
    assert main(["say", "it is good", "-o", str(out)]) == 0
    assert "real-time factor" in capsys.readouterr().out
    whole = soundfile.info(out).frames
    assert whole == len(small_model.say("it is good").audio)
    monkeypatch.setattr(sys, "stdin", io.StringIO("it is good\n"))
    assert main(["say", "-", "-o", str(out), "--quiet"]) == 0
    assert soundfile.info(out).frames == whole


def test_say_nothing(no_model, tmp_path, capsys):
    assert "nothing to say" in refused(capsys, "say", " ... ", "-o", str(tmp_path / "a.wav"))


def test_no_such_model(tmp_path, capsys):
    assert "no release 'no_such_model'" in refused(
        capsys, "say", "hello", "--model", "no_such_model", "-o", str(tmp_path / "a.wav")
    )


@pytest.mark.parametrize("damage", ["truncated", "corrupt", "another model"])
def test_damaged_releases(release_folder, tmp_path, capsys, damage):
    folder = copy(release_folder, tmp_path)
    path = folder / "talker.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "corrupt":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    told = refused(capsys, "say", "hello", "--model", str(folder), "-o", str(tmp_path / "a.wav"))
    assert (
        "config of another model" if damage == "another model" else "talker.safetensors has SHA-256"
    ) in told


def test_release_puts_runs_together(release_folder, tmp_path, capsys, monkeypatch):
    from mdmspeech.training import warm_start

    run = tmp_path / "run"
    run.mkdir()
    sizes = {
        "dim": 64,
        "num_layers": 2,
        "num_heads": 2,
        "ffn_dim": 64,
        "symbols": 40,
        "symbol_lookahead": [2, 1],
    }
    (run / "config.json").write_text(
        json.dumps({"stage": "talker", "mode": "mdm", "talker": sizes})
    )
    monkeypatch.setattr(
        warm_start,
        "load_params",
        lambda workdir: jax.tree.map(lambda x: np.asarray(x) * 0.5, talker_params()),
    )
    out = tmp_path / "out"
    assert (
        main(
            [
                "release",
                "-o",
                str(out),
                "--base",
                str(release_folder),
                "--talker",
                str(run),
                "--name",
                "new",
            ]
        )
        == 0
    )
    made, base = load_release(out), load_release(release_folder)
    assert made.name == "new" and list(made.parts) == ["codec", "talker"] and made.silence
    np.testing.assert_allclose(
        made.part("talker").params["norm"]["scale"],
        0.5 * base.part("talker").params["norm"]["scale"],
    )
    assert "talker_mdm" in (out / "README.md").read_text()
    assert "MB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"stage": "codec", "codec": {}}, "trained codec, not the talker"),
        ({"stage": "talker", "mode": "ntp", "talker": {}}, "--talker-ntp"),
        (
            {"stage": "talker", "mode": "mdm", "talker": {"experts": 3}},
            "sizes that no talker_mdm has",
        ),
    ],
)
def test_release_refuses_the_wrong_run(tmp_path, capsys, config, told):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert told in refused(
        capsys, "release", "-o", str(tmp_path / "out"), "--talker", str(tmp_path)
    )


def test_release_of_nothing(tmp_path, capsys):
    assert "no part is given" in refused(capsys, "release", "-o", str(tmp_path / "out"))


def test_data_passes_on_what_it_is_told(monkeypatch):
    from mdmspeech.data.synthesis import build

    told = []
    monkeypatch.setattr(build, "build", lambda *args: told.append(args))
    assert main(["data", "--root", "somewhere", "--hours", "0.5", "--parts", "open,answers"]) == 0
    assert told == [("somewhere", 0.5, ("open", "answers"), 2, None)]


def test_data_tokens_takes_the_codec_of_a_release(release_folder, monkeypatch, capsys):
    from mdmspeech.preprocessing import precompute

    def tokens(root, codec, known_as, parts):
        assert codec.model.config == CODEC and len(known_as) == 12
        return dict.fromkeys(parts, 7)

    monkeypatch.setattr(precompute, "speech_tokens", tokens)
    assert main(["data", "--tokens", "--codec", str(release_folder), "--parts", "open"]) == 0
    assert capsys.readouterr().out == "open: 7 tokens\n"


def test_a_setting_misspelt_is_told_its_neighbours(tmp_path, capsys):
    told = refused(
        capsys,
        "train",
        "--config",
        "experiments/talker_06b.py",
        "--workdir",
        str(tmp_path),
        "--set",
        "optim.warmpu=3",
    )
    assert (
        "--set optim.warmpu: the experiment has no such setting; did you mean optim.warmup" in told
    )


def test_train_names_a_missing_experiment(tmp_path, capsys):
    assert "no experiment file" in refused(
        capsys, "train", "--config", str(tmp_path / "no.py"), "--workdir", str(tmp_path)
    )
