"""Every command that the documents show runs: in small where it computes, as far as the computing
where that takes hours. One that this test does not know fails it.

The README's way from published checkpoints to a talking system is walked from end to end as it is
written there, on tiny random models.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_cosyvoice2
import soundfile
from campplus_graph import write_campplus
from documented import (
    MARKDOWN,
    ROOT,
    blocks,
    docstring_commands,
    experiments,
    lines_of,
    markdown_commands,
)

from mdmspeech.cli import main, user_recordings
from mdmspeech.cli.experiment import load_config
from mdmspeech.data.datasets.corpus import folder_of
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.recordings.align import Alignment
from mdmspeech.data.storage.record_store import write_shard
from mdmspeech.data.synthesis.build import write_datasets
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_lm import COSYVOICE2_LM
from mdmspeech.interop.release import Part, Release, read_about, save_release
from mdmspeech.models import talker
from mdmspeech.text.prompts import PLAIN
from mdmspeech.training import loop

sys.path.insert(0, str(ROOT / "launch"))

pytestmark = pytest.mark.usefixtures("quick_compilation")
VERBS = (
    "assemble",
    "chat",
    "convert",
    "data",
    "evaluate",
    "inspect_corpus",
    "plan",
    "release",
    "say",
    "train",
    "voice_file",
)
WAY = re.compile(r"^\$M |^M=")
# Ways of the README's blocks; the way from published checkpoints has lines of its own.
BLOCKS = {
    "16 kHz wave -> Whisper encoder": "data",
    '{"audio": "wavs/0001.wav"': "data",
    "make ": "make",
    ".venv/bin/mdmspeech chat your.wav ": "talk",
    '.venv/bin/mdmspeech say "Masked diffusion can talk." ': "talk",
    ".venv/bin/mdmspeech say - ": "talk",
    ".venv/bin/mdmspeech data --manifest my/manifest.jsonl --name mine": "own voice",
    '.venv/bin/mdmspeech say "This is my voice now." ': "own voice",
    ".venv/bin/mdmspeech train --config experiments/": "train",
    ".venv/bin/mdmspeech plan ": "plan",
    "python launch/": "launch",
    "mdmspeech ": "parse",  # docs/data.md
    "gcloud storage cp ": "not ours",
    "$M ": "published checkpoints",
    "M=.venv/bin/mdmspeech": "published checkpoints",
}
# Ways of the commands in running text and in docstrings: some are incomplete, some not ours.
OTHERS = {
    r"make [\w-]+( \w+=\S+)*": "make",
    r"mdmspeech --help": "parse",
    (
        r"mdmspeech train --config experiments/\w+\.py(:\w+)?( --workdir \S+)?( "
        r"--data \S+)?( --set \S+)*"
    ): "train",
    r"(python -m )?mdmspeech (eval|data|release|convert|plan|train)( .*)?": "parse",
    r"python -m experiments\.\w+( .*)?": "module",
    r"python -c .*convert_lm.*": "convert_lm",
    r"(hf download|pip install) .*": "not ours",
}


def way_of(command: str, block: bool) -> str:
    """How a command is tried. A new kind of command has to be put into a table above."""
    if block:
        ways = {way for start, way in BLOCKS.items() if command.startswith(start)}
    else:
        ways = {
            next((way for pattern, way in OTHERS.items() if re.fullmatch(pattern, command)), "")
        } - {""}
    assert len(ways) == 1, (
        f"{command!r} is documented and tried in {len(ways)} ways: say in this file "
        "how it is to be tried"
    )
    return ways.pop()


def shown() -> dict[str, str]:
    """Every documented command -> its way."""
    found = {}
    for path in MARKDOWN:
        commands = markdown_commands(path)
        found |= {command: way_of(command, True) for command in commands["block"]}
        found |= {
            command: way_of(command, False)
            for command in commands["inline"]
            if command != "mdmspeech data --manifest"
        }
    for path in experiments():
        found |= {command: way_of(command, False) for command in docstring_commands(path)}
    return found


SHOWN = shown()
of_way = lambda *ways: sorted(command for command, way in SHOWN.items() if way in ways)


def words(command: str) -> list[str]:
    """The arguments after the program."""
    return shlex.split(command.removeprefix("python -m ").replace("[", "").replace("]", ""))[1:]


def test_the_documents_show_what_they_did():
    """Fewer would mean that this file no longer finds them."""
    assert len(SHOWN) > 80 and {way: len(of_way(way)) for way in ("launch", "published checkpoints",
        "talk", "own voice")} == {
        "launch": 7, "published checkpoints": 10, "talk": 3, "own voice": 2}  # fmt: skip
    assert all(docstring_commands(path) for path in experiments()), (
        "an experiment does not say its command"
    )


def test_a_command_of_a_new_kind_is_noticed():
    for command, block in (
        ("mdmspeech sing", False),
        ("curl x | sh", True),
        (".venv/bin/mdmspeech sing", True),
    ):
        with pytest.raises(AssertionError, match="say in this file how it is to be tried"):
            way_of(command, block)


# ---- As far as the options ----------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch):
    """A function argv -> options, by the real parsers; no verb runs."""
    seen = []
    for name in VERBS:
        monkeypatch.setattr(importlib.import_module(f"mdmspeech.cli.{name}"), "run", seen.append)

    def parse(argv):
        seen.clear()
        if argv == ["--help"]:
            with pytest.raises(SystemExit, match="0"):
                main(argv)
            return None
        assert main(argv) == 0, argv
        return seen[0]

    return parse


def check_files(options):
    """What a command reads of this repository is there."""
    for name in ("config", "list", "card"):
        given = getattr(options, name, None)
        if given and "..." not in given:
            assert (ROOT / given.split(":")[0]).is_file(), given


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in of_way("parse", "plan", "published checkpoints")
        if not command.startswith("M=")
    ],
)
def test_its_options_exist(command, parsed):
    check_files(parsed(words(command)))


@pytest.mark.parametrize("command", of_way("make"))
def test_make_has_the_target_and_its_recipe_parses(command, parsed):
    told = subprocess.run(
        ["make", "-n", *command.split()[1:], "VENV=.none", "PARITY_VENV=.none-parity",
            "PYTHON=python3"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    recipe = re.sub(r"\s*\\\n\s*", " ", told.stdout)
    stages = (re.search(r"for stage in ([\w ]+);", recipe) or ["", ""])[1].split() or [""]
    found = [
        line.replace("$stage", stage)
        for line in re.findall(r"\.none/bin/mdmspeech ([^|;&\n]*)", recipe)
        for stage in stages
    ]
    modules = re.findall(
        r"\.none(?:-parity)?/bin/python -m (experiments\.\w+|pytest)([^|;&\n]*)", recipe
    )
    scripts = re.findall(r"\.none/bin/python (\S+\.py)", recipe)
    assert found or modules or scripts
    assert all((ROOT / script).is_file() for script in scripts)
    for line in found:
        check_files(parsed(shlex.split(line)))
    for module, options in modules:
        if module == "pytest":
            assert all(
                (ROOT / word).exists() for word in shlex.split(options) if word.startswith("tests/")
            )
        else:
            documented_module(module, options)


def documented_module(name, options):
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).read_text()
    assert '__name__ == "__main__"' in text
    assert all(f'"{option}"' in text for option in re.findall(r"--[\w-]+", options)), options


@pytest.mark.parametrize("command", of_way("module"))
def test_the_module_is_there_and_has_its_options(command):
    name, options = re.fullmatch(r"python -m (\S+)(.*)", command).groups()
    documented_module(name, options)


def test_cosyvoice2s_language_model_is_converted_by_what_is_written(monkeypatch, tmp_path):
    """tests/interop/test_cosyvoice2_lm.py converts; here the line itself is run on a file of the wrong
    kind, which says so.
    """
    (command,) = of_way("convert_lm")
    (tmp_path / "CosyVoice2-0.5B").mkdir()
    (tmp_path / "CosyVoice2-0.5B" / "llm.pt").write_bytes(b"not a checkpoint")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"llm\.pt"):
        exec(shlex.split(command)[2], {})


@pytest.mark.parametrize("command", of_way("launch"))
def test_a_launcher_prints_its_script(command, capsys, monkeypatch):
    script, *options = words(command.replace("BUCKET", "bucket"))
    monkeypatch.setattr(subprocess, "Popen", None)
    assert importlib.import_module(Path(script).stem).main(options) == 0
    printed = capsys.readouterr().out
    assert "mdmspeech train" in printed and options[options.index("--config") + 1] in printed


# ---- As far as the first step: the config, what it starts from, its task, its data --------------


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A corpus of few recordings, and encoder states of questions."""
    root = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for part, rate in (
        ("open", 24_000),
        ("answers", 24_000),
        ("mine", 24_000),
        ("questions", 16_000),
    ):
        rows = []
        for n in range(24):
            record = {
                "id": f"{part}-{n}",
                "text": f"It is number {n}.",
                "question": f"What is {n}?",
                "answer": f"It is {n}.",
                "rate": rate,
            }
            record |= {
                "split": "test"
                if n % 8 == 0
                else "val"
                if part == "questions" and n % 8 == 1
                else "train"
            }
            record |= {"symbols": [0, 5, 6, 0], "frames": [4, 12, 12, 4], "f0": [120] * 80}
            rows.append((record, (3000 * rng.normal(size=int(0.8 * rate))).astype(np.int16)))
        write_shard(root / "corpus" / "raw" / part, "00000-0", rows)
    write_datasets(root / "corpus")
    spoken = [
        {"id": str(n), "text": "One.", "states": rng.normal(size=(60, 512)).astype(np.float16)}
        for n in range(40)
    ]
    folder = folder_of(root / "corpus", "states", "questions")
    write_dataset(folder, "states", {"train": spoken, "val": spoken}, width=512)
    return root / "corpus"


@pytest.mark.parametrize("command", of_way("train"))
def test_training_reaches_its_first_step(command, home, tmp_path, monkeypatch):
    reached = []
    monkeypatch.setattr(loop, "train", lambda config, task, workdir: reached.append((config, task)))
    monkeypatch.setenv("HOME", str(tmp_path))
    # random data are all that a first try needs
    monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path if "runlocal" in command else home))
    monkeypatch.chdir(tmp_path)
    argv = [word.replace("experiments/", f"{ROOT}/experiments/") for word in words(command)]
    for given, wanted in (
        ("DATA", str(home)),
        ("DIR", str(tmp_path / "run")),
        ("/tmp/try", str(tmp_path / "try")),
    ):
        argv = [wanted if word == given else word for word in argv]
    if "--workdir" not in argv:
        argv += ["--workdir", "in_small"]
    if "init_from=cosyvoice2_lm" in argv:
        as_convert_lm_writes(Path("cosyvoice2_lm"))
    elif (start := load_config(argv[argv.index("--config") + 1]).get("init_from")) not in (
        None,
        "",
        "random",
        "compact",
    ):
        earlier = (
            Path(argv[argv.index("--workdir") + 1]).expanduser().parent / start
        )  # the run of the stage before, which is all that is looked at
        (earlier / "checkpoints").mkdir(parents=True)
        (earlier / "config.json").write_text(
            load_config(f"{ROOT}/experiments/{start}.py").to_json_best_effort()
        )
    assert main(argv) == 0
    ((config, task),) = reached
    assert task.batch_spec() and task.held_out == "val"
    if "runlocal" in command:
        assert len(next(iter(next(iter(task.batches("train", 0))).values()))) == config.data.batch


def as_convert_lm_writes(folder):
    """A folder of which only the config is looked at here."""
    tiny = dataclasses.replace(
        COSYVOICE2_LM,
        dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=16,
        text_vocab_size=8,
    )
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        jax.eval_shape(lambda: talker.init(tiny, jax.random.key(0))),
    )
    save_release(
        folder,
        Release("cosyvoice2_lm", {"talker_ntp": Part("talker_ntp", tiny, params)}),
        "card",
        "bfloat16",
    )


@pytest.mark.full
@pytest.mark.parametrize(
    "command", [command for command in of_way("train") if "runlocal" in command]
)
def test_it_trains_in_small(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path))
    argv = [word for word in words(command) if word not in ("--workdir", "/tmp/try")]
    settings = ("train.steps=2", "train.eval_every=0", "optim.warmup=1", "mesh.data=1")
    assert (
        main([*argv, "--workdir", str(tmp_path / "run"), *(f"--set={one}" for one in settings)])
        == 0
    )
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.full
@pytest.mark.parametrize("command", of_way("plan"))
def test_it_plans(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(
        [*words(command), "--quick", "--tries", "1"]
        if "--quick" not in command
        else [*words(command), "--tries", "1"]
    ) in (0, 1)


# ---- To the end, in small -----------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "block", [block for path in MARKDOWN for block in markdown_commands(path)["python"]]
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


def test_own_voice(published, desk, monkeypatch):
    """Aligning for real takes the speech encoder, see tests/data/test_align.py; the Talker that says
    the texts is the shipped one unless --codec names another.
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
    assert (cache / "tokens" / "mine.safetensors").is_file()
    assert words(say)[words(say).index("--model") + 1] == "~/.cache/mdmspeech/runs/mine"
    (cache / "runs").mkdir()
    (cache / "runs" / "mine").symlink_to(published / "speaks")
    assert main(words(say)) == 0
    assert (desk / "mine.wav").is_file()


@pytest.fixture(scope="module")
def downloads(published, tmp_path_factory):
    """A directory with the folders of the README's names, tiny and random, and a recording."""
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


SMALL = {  # what the sizes of the README's experiments are replaced by
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
def test_from_published_checkpoints_to_a_talking_system(downloads, home, monkeypatch, capsys):
    """The README's block, line after line, with only its sizes changed."""
    monkeypatch.chdir(downloads)
    monkeypatch.setenv("MDMSPEECH_HOME", str(home))
    (block,) = [
        block
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))
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
