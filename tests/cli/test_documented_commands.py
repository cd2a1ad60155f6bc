"""Every command that the documents show runs: here as far as its options, and training as far as
its first step; what ends in minutes is walked to its end in test_documented_walks.py. A command
that no table of documented_ways.py knows is a failure.
"""

import dataclasses
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from documented import ROOT, docstring_commands, experiments
from documented_ways import SHOWN, of_way, way_of, words

from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_lm import COSYVOICE2_LM
from mdmspeech.interop.release import Part, Release, save_release
from mdmspeech.models import talker
from mdmspeech.training import loop

sys.path.insert(0, str(ROOT / "launch"))

pytestmark = pytest.mark.usefixtures("quick_compilation")
VERBS = (
    "assemble",
    "bench",
    "chat",
    "convert",
    "cost",
    "data",
    "evaluate",
    "inspect_corpus",
    "ladder",
    "plan",
    "preflight",
    "release",
    "say",
    "serve",
    "talk",
    "train",
    "voice_file",
)


def test_the_documents_show_what_they_did():
    """Fewer would mean that this file no longer finds them."""
    assert len(SHOWN) > 80 and {way: len(of_way(way)) for way in ("launch", "published checkpoints",
        "talk", "own voice")} == {
        "launch": 8, "published checkpoints": 10, "talk": 3, "own voice": 2}  # fmt: skip
    assert all(docstring_commands(path) for path in experiments()), (
        "an experiment does not say its command"
    )


def test_a_command_of_a_new_kind_is_noticed():
    for command, block in (
        ("mdmspeech sing", False),
        ("curl x | sh", True),
        (".venv/bin/mdmspeech sing", True),
    ):
        with pytest.raises(AssertionError, match=r"say in \S+ how it is to be tried"):
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


@pytest.mark.parametrize("command", of_way("verb"))
def test_it_is_a_verb(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*words(command), "--help"])
    assert f"usage: {command} " in capsys.readouterr().out


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
        r"\.none(?:-\w+)?/bin/python -m (experiments\.\w+|pytest|sphinx)([^|;&\n]*)", recipe
    )
    scripts = re.findall(r"\.none/bin/python (\S+\.py)", recipe)
    assert found or modules or scripts
    assert all((ROOT / script).is_file() for script in scripts)
    for line in found:
        check_files(parsed(shlex.split(line)))
    for module, options in modules:
        if module == "sphinx":
            folder = shlex.split(options)[shlex.split(options).index("-c") + 1]
            assert (ROOT / folder / "conf.py").is_file()
        elif module == "pytest":
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
    """tests/interop/test_cosyvoice2_lm.py converts; here the line itself is run on a file of the
    wrong kind, which says so.
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
    if "dataflow" in script:
        assert "data --import" in printed and options[options.index("--project") + 1] in printed
        return
    assert "mdmspeech train" in printed and options[options.index("--config") + 1] in printed


# ---- As far as the first step: the config, what it starts from, its task, its data --------------


@pytest.mark.parametrize("command", of_way("train"))
def test_training_reaches_its_first_step(command, small_home, tmp_path, monkeypatch):
    reached = []
    monkeypatch.setattr(loop, "train", lambda config, task, workdir: reached.append((config, task)))
    monkeypatch.setenv("HOME", str(tmp_path))
    # random data are all that a first try needs
    monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path if "runlocal" in command else small_home))
    monkeypatch.chdir(tmp_path)
    argv = [word.replace("experiments/", f"{ROOT}/experiments/") for word in words(command)]
    for given, wanted in (
        ("DATA", str(small_home)),
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
