"""Documented commands from end to end, in small: talking, own voice, Python; and the pages' way
from published checkpoints to a talking system, as it is written there, on tiny random models.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import small_cosyvoice2
import soundfile
from campplus_graph import write_campplus
from documented import MARKDOWN, ROOT, blocks, lines_of, markdown_commands
from documented_ways import of_way, words

from mdmspeech.cli import main, user_recordings
from mdmspeech.data.datasets.corpus import is_there
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.recordings.align import Alignment
from mdmspeech.interop.release import Part, Release, read_about, save_release
from mdmspeech.text.prompts import PLAIN

pytestmark = pytest.mark.usefixtures("quick_compilation")


WITH_TESTS_OF_THEIR_OWN = {
    "docs/serving.md": "tests/serving/test_documented_server.py",
    "docs/realtime.md": "tests/serving/realtime/test_openai_client.py",
    "docs/sessions.md": "tests/inference/test_documented_session.py",
    "docs/hub.md": "tests/cli/test_pretrained.py",
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The current directory of a user with recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    time = np.arange(24_000) / 16_000
    speech = (
        0.1 * np.random.default_rng(0).normal(size=len(time)) * (1 + np.sin(2 * np.pi * 3 * time))
    )
    for name in ("your.wav", "question.wav"):
        soundfile.write(tmp_path / name, speech, 16_000)
    (tmp_path / "book.txt").write_text("It was read aloud. It had an end.\n", encoding="utf-8")
    return tmp_path


def test_two_commands(small_model, desk, monkeypatch):
    for command in of_way("talk"):
        argv, _, given = command.partition(" < ")
        with open(given or os.devnull, encoding="utf-8") as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert main(words(argv)) == 0
    assert {"answer.wav", "answer.png", "talk.wav", "book.wav"} <= {
        path.name for path in desk.iterdir()
    }


def test_a_look_through_a_folder(desk, capsys):
    (inspect,) = [
        c for c in of_way("parse") if c.startswith("mdmspeech data inspect FOLDER --plot")
    ]
    (desk / "FOLDER").mkdir()
    soundfile.write(desk / "FOLDER" / "a.wav", 0.1 * np.sin(np.arange(16_000) / 9), 16_000)
    line = json.dumps({"audio": "a.wav", "text": "It is said."})
    (desk / "FOLDER" / "manifest.jsonl").write_text(line + "\n")
    assert main(words(inspect)) == 0
    assert "1 " in capsys.readouterr().out and (desk / "lengths.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        block
        for path in MARKDOWN
        if path not in WITH_TESTS_OF_THEIR_OWN
        for block in markdown_commands(path)["python"]
    ],
)
def test_python(block, small_model, desk):
    if "tensorflow_datasets" in block:
        folder = desk / "datasets" / "recordings" / "open" / "2.0.0"
        record = {"id": "a", "rate": 24_000, "audio": np.arange(9, dtype=np.int16)}
        write_dataset(folder, "recordings", {"train": [record]})
        found: dict = {}
        exec(compile(block.replace("ROOT", str(desk)), "docs/data.md", "exec"), found)
        assert found["source"][0]["audio"].tolist() == list(range(9))
        return
    exec(compile(block, "README.md", "exec"), {})
    assert (desk / "answer.wav").stat().st_size > 1000


def test_the_others_are_where_it_says():
    for page, test in WITH_TESTS_OF_THEIR_OWN.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert page in text and "exec(" in text, test


@pytest.mark.slow
def test_own_voice(published, desk, monkeypatch):
    """Aligning for real takes the speech encoder, see tests/data/test_align.py; the Talker that
    says the texts is the shipped one unless --codec names another.
    """
    entry = json.loads(next(command for command in of_way("data") if command.startswith("{")))
    (desk / "my" / "wavs").mkdir(parents=True)
    lines = []
    for n in range(1, 7):
        wave = 0.2 * np.sin(2 * np.pi * 140 * np.arange(int((1.5 + n / 10) * 16_000)) / 16_000)
        soundfile.write(desk / "my" / "wavs" / f"{n:04d}.wav", wave, 16_000)
        lines.append(json.dumps(entry | {"audio": f"wavs/{n:04d}.wav"}))
    (desk / "my" / "manifest.jsonl").write_text("\n".join(lines) + "\n")

    def one(wave, symbols):
        cuts = np.linspace(0, -(-len(wave) // 400), len(symbols) + 1).astype(int)
        return Alignment(np.diff(cuts).astype(np.int32), -0.5, int(cuts[1]), int(cuts[-2]))

    monkeypatch.setattr(
        user_recordings,
        "make_aligner",
        lambda: lambda waves, symbols: [one(*row) for row in zip(waves, symbols, strict=True)],
    )
    monkeypatch.delenv("MDMSPEECH_HOME", raising=False)
    data, say = of_way("own voice")
    assert main([*words(data), "--codec", str(published / "release")]) == 0
    cache = desk / "home" / ".cache" / "mdmspeech"
    assert is_there(cache, "tokens", "mine") and is_there(cache, "recordings", "mine")
    assert words(say)[words(say).index("--model") + 1] == "~/.cache/mdmspeech/runs/mine"
    (cache / "runs").mkdir()
    (cache / "runs" / "mine").symlink_to(published / "speaks")
    assert main(words(say)) == 0
    assert (desk / "mine.wav").is_file()


@pytest.fixture(scope="module")
def downloads(published, tmp_path_factory):
    """A directory with the folders of the page's names, tiny and random, and a recording."""
    folder = tmp_path_factory.mktemp("downloads")
    (folder / "whisper-large-v3").symlink_to(published / "whisper")
    (folder / "Qwen3-0.6B").symlink_to(published / "thinker")
    codec = folder / "CosyVoice2-0.5B"
    save_release(
        codec,
        Release(
            "codec",
            {
                "codec": Part(
                    "cosyvoice2_codec", small_cosyvoice2.CONFIG, small_cosyvoice2.small_params()
                )
            },
        ),
        "card",
    )
    write_campplus(codec / "campplus.onnx")
    golden = np.load(ROOT / "tests" / "fixtures" / "golden" / "waveform.npz")["in.wav_24k"]
    soundfile.write(folder / "me.wav", np.tile(golden, 2), 24_000)
    soundfile.write(folder / "question.wav", golden[:24_000], 24_000)
    return folder


SMALL = {  # what the sizes of the page's experiments are replaced by
    "thinker": ["data.batch=2", "data.length=768", "data.frames=600", "data.threads=1"],
    "talker": ["data.batch=2", "data.length=64", "data.text=768", "data.threads=1"],
    "all": [
        "train.steps=1",
        "train.eval_every=1",
        "optim.warmup=1",
        "mesh.data=1",
        "train.dtype=float32",
    ],
}
SIZES = {
    "assemble": [
        "--talker-sizes",
        "dim=64,num_layers=1,num_heads=2,ffn_dim=64",
        "--dtype",
        "float32",
    ]
}


@pytest.mark.full  # three stages, each with its step compiled: three minutes of processor time
def test_from_published_checkpoints_to_a_talking_system(downloads, small_home, monkeypatch, capsys):
    """The block of docs/checkpoints.md, line after line, with only its sizes changed."""
    monkeypatch.chdir(downloads)
    monkeypatch.setenv("MDMSPEECH_HOME", str(small_home))
    (block,) = [
        block
        for block in blocks((ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8"))
        if "$M voice" in block
    ]
    commands = lines_of(block)
    assert (
        set(commands) == set(of_way("published checkpoints"))
        and commands[0] == "M=.venv/bin/mdmspeech"
    )
    told = {}
    for command in commands[1:]:
        argv = [
            str(ROOT / word) if word.startswith("experiments/") else word for word in words(command)
        ]
        if argv[0] == "train":
            stage = "thinker" if "thinker" in command else "talker"
            argv += [f"--set={setting}" for setting in (*SMALL[stage], *SMALL["all"])]
        assert main([*argv, *SIZES.get(argv[0], [])]) == 0, command
        told[command] = capsys.readouterr()
    final = read_about("final")
    assert final.prompt == PLAIN and final.trained_after == {"talker": PLAIN, "adaptor": PLAIN}
    for run in ("runs/1", "runs/2", "runs/3"):
        assert json.loads(Path(run, "config.json").read_text())["prompt"] == {
            "system": PLAIN.system,
            "examples": [],
        }
    assert (
        read_about("small").untrained == ("talker", "adaptor")
        and read_about("heard").untrained == ("talker",)
        and final.untrained == ()
    )
    stage_2, chat = (
        told[next(command for command in commands if key in command)]
        for key in ("talker_06b", "$M chat")
    )
    assert (
        "heard is untrained: this stage starts from random parameters" in stage_2.err
        and "untrained" not in chat.err
    )
    assert Path("answer.wav").is_file() or "nothing was spoken" in chat.out

    # Without the last --set the system's random Talker would be the teacher.
    stage_3 = next(command for command in commands if "talker_isd" in command)
    argv = [
        str(ROOT / word) if word.startswith("experiments/") else word
        for word in words(stage_3.replace(" --set init_from=runs/2", ""))
    ]
    assert main([*argv[:-1], "runs/4"]) == 2
    assert (
        "is untrained and would be the teacher" in capsys.readouterr().err
        and not Path("runs/4").exists()
    )
