"""A call that is refused has written nothing: for every verb that writes, names, contents and times
of all files are what they were.
"""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from small_speech import CODEC, TALKER

from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config, override
from mdmspeech.interop.parts import KINDS
from mdmspeech.interop.release import Part, Release, load_release, save_release

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
QUESTION = str(EXPERIMENTS.parent / "mdmspeech" / "assets" / "question.wav")
RUN = ["data.parts=random,", "train.steps=5"]


@pytest.fixture(scope="module")
def parts():
    kinds = {"codec": ("compact_codec", CODEC), "talker": ("talker_mdm", TALKER)}
    params = {
        name: jax.tree.map(
            lambda leaf: np.full(leaf.shape, 0.01, np.float32), KINDS[kind].shapes(sizes)
        )
        for name, (kind, sizes) in kinds.items()
    }
    return {name: Part(kind, sizes, params[name]) for name, (kind, sizes) in kinds.items()}


@pytest.fixture(scope="module")
def original(parts, tmp_path_factory):
    """A finished run (what its checkpoints say of it), a release, an import, results: what a user
    would be sorry to lose.
    """
    tmp_path = tmp_path_factory.mktemp("original")
    config = load_config(str(EXPERIMENTS / "compact_talker.py"))
    for assignment in RUN:
        override(config, assignment)
    about = tmp_path / "run" / "checkpoints" / "5" / "about"
    about.mkdir(parents=True)
    stored = json.loads(
        json.dumps({**config.to_dict(), "init_from": config.get("init_from", "")}, default=str)
    )
    (about / "metadata").write_text(json.dumps({"step": 5, "config": stored}))
    (tmp_path / "run" / "config.json").write_text(config.to_json_best_effort(indent=1))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 5}\n')
    save_release(tmp_path / "release", Release("tiny", parts), "card")
    for name in (
        "root/raw/own/00000-x.jsonl",
        "root/tokens/own.safetensors",
        "results/compact.json",
        "plan.json",
        "old.wav",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"id": "a", "rate": 8000, "samples": 0, "start": 0}\n')
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones(100), 16_000)
    (tmp_path / "bad.jsonl").write_text("{}\n")
    (tmp_path / "other.jsonl").write_text(
        json.dumps({"audio": "short.wav", "text": "Good."}) + "\n"
    )
    return tmp_path


@pytest.fixture
def place(original, tmp_path, monkeypatch):
    """A copy of it, in which the command is called."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDMSPEECH_HOME", str(tmp_path / "root"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return tmp_path


def snapshot(folder):
    """All that there is: folders, contents, times."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
        for p in [folder, *folder.rglob("*")]
    }


TRAIN = [
    "train",
    "--config",
    str(EXPERIMENTS / "compact_talker.py"),
    "--set",
    RUN[0],
    "--set",
    RUN[1],
]
REFUSED = {
    "train: other sizes": ([*TRAIN, "--workdir", "run", "--set", "talker.num_layers=2"],
        "is of another config"),
    "train: another rate": ([*TRAIN, "--workdir", "run", "--set", "optim.lr=0.5"],
        "is of another config"),
    "train: another batch": ([*TRAIN, "--workdir", "run", "--set", "data.batch=8"],
        "is of another config"),
    "train: no number": ([*TRAIN, "--workdir", "run", "--set", "optim.lr=nan"],
        "--set optim.lr=nan: optim.lr is nan"),
    "train: no steps": ([*TRAIN, "--workdir", "run", "--set", "train.steps=0"], "train.steps is 0"),
    "train: misspelt": ([*TRAIN, "--workdir", "run", "--set", "talker.layer=2"],
        "did you mean talker.num_layers"),
    "train: more devices than there are": ([*TRAIN, "--workdir", "run", "--set", "mesh.fsdp=64"],
        "needs 64 devices"),
    "train: no corpus, old run": ([*TRAIN[:3], "--workdir", "run"], "is of another config"),
    "train: no corpus, new run": ([*TRAIN[:3], "--workdir", "new/run"], "mdmspeech data --tokens"),
    "train: below a file": ([*TRAIN, "--workdir", "notes.txt/run"], "notes.txt is a file"),
    "train: no experiment": (["train", "--config", "no.py", "--workdir", "run"],
        "no experiment file"),
    "train: no system": ([*TRAIN, "--workdir", "run", "--system", "nowhere"], "no release"),
    "data: no good line": (["data", "--manifest", "bad.jsonl"], "line 1"),
    "data: another manifest": (["data", "--manifest", "other.jsonl"], "take another --name"),
    "data: no manifest": (["data", "--manifest", "no.jsonl"], "cannot be read"),
    "data: a table": (["data", "--manifest", "notes.csv"], "cannot be read"),
    "data: no such codec": (["data", "--manifest", "other.jsonl", "--name", "mine", "--codec",
        "nowhere"], "no release"),
    "data: a wrong name": (["data", "--manifest", "other.jsonl", "--name", "../own"], "--name"),
    "data: no such part": (["data", "--parts", "open,opne"], "no part 'opne'"),
    "data: no extra file": (["data", "--parts", "open", "--extra", "no.jsonl"],
        "no.jsonl cannot be read"),
    "data: tokens of what is not there": (["data", "--tokens", "--parts", "own,open", "--codec",
        "release"], "2.0.0 is missing; make it with: mdmspeech data"),
    "data: hours that are none": (["data", "--hours", "nan"], "--hours nan"),
    "data: root below a file": (["data", "--parts", "open", "--root", "notes.txt/root"],
        "$MDMSPEECH_HOME"),
    "release: of no run": (["release", "-o", "release", "--talker", "nowhere"], "no training run"),
    "release: of another stage": (["release", "-o", "release", "--codec", "run"], "not the codec"),
    "release: no card": (["release", "-o", "release", "--base", "release", "--card", "no.md"],
        "cannot read the card"),
    "release: no such part in 8 bits": (["release", "-o", "release", "--base", "release", "--int8",
        "thinker"], "--int8 thinker"),
    "release: below a file": (["release", "-o", "notes.txt/out", "--base", "release"],
        "notes.txt is a file"),
    "assemble: it is there": (["assemble", "-o", "release"], "exists already"),
    "assemble: no Thinker": (["assemble", "-o", "new", "--thinker", "./nowhere"], "nowhere"),
    "assemble: below a file": (["assemble", "-o", "notes.txt/new"], "notes.txt is a file"),
    "convert: it is there": (["convert", "smollm2-135m-instruct", "release"], "exists already"),
    "convert: no model folder": (["convert", "./nowhere", "root", "--force"],
        "no model folder and is not replaced"),
    "convert: shards of no size": (["convert", "whisper-base", "new", "--shard-gb", "inf"],
        "--shard-gb"),
    "convert: below a file": (["convert", "whisper-base", "notes.txt/new"], "notes.txt is a file"),
    "convert: no run": (["convert", "whisper-base", "new", "--lora", "nowhere"], "nowhere"),
    "voice: no recording": (["voice", "no.wav", "--codec", "release", "--campplus", "notes.txt",
        "-o", "v.safetensors"], "no.wav does not exist"),
    "voice: below a file": (["voice", "old.wav", "--codec", "release", "-o",
        "notes.txt/v.safetensors"], "in a folder that exists"),
    "voice: another codec": (["voice", "short.wav", "--codec", "release", "--campplus", "notes.txt",
        "-o", "v.safetensors"], ""),
    "say: no words": (["say", "...", "-o", "old.wav"], "nothing to say"),
    "say: no such model": (["say", "hello", "--model", "nowhere", "-o", "old.wav"], "no release"),
    "say: no such voice": (["say", "hello", "--model", "release", "--voice", "no.safetensors", "-o",
        "old.wav"], ""),
    "say: below a file": (["say", "hello", "-o", "notes.txt/a.wav"], "does not exist"),
    "chat: too short": (["chat", "short.wav", "-o", "old.wav"], "too short"),
    "chat: no such Thinker": (["chat", QUESTION, "--thinker", "./nowhere", "-o", "old.wav"],
        "no Thinker at ./nowhere"),
    "chat: a Thinker that is none": (["chat", QUESTION, "--thinker", "release", "-o", "old.wav"],
        "is a release (codec, talker), not a text LLM"),
    "chat: no model": (["chat", "short.wav", "--model", "nowhere", "-o", "old.wav"], ""),
    "plan: list into a file's place": (["plan", "--list", str(EXPERIMENTS / "plan_list.py"),
        "--out", "notes.txt/plan"], "notes.txt is a file"),
    "plan: no list": (["plan", "--list", "no.py", "--out", "new/plan"], "no experiment file"),
    "plan: json into a folder's place": (["plan", "--config", "x.py", "--topology", "v5p-8",
        "--json", "root"], "it is a folder"),
    "plan: no number": (["plan", "--config", TRAIN[2], "--topology", "v5e-4", "--set",
        "optim.lr=inf", "--json", "plan.json"], "optim.lr is inf"),
    "plan: a way of training": (["plan", "--config", TRAIN[2], "--topology", "v5e-4", "--way",
        "NTP", "--json", "plan.json"], "only --what decode has ways"),
    "plan: no such way": (["plan", "--config", TRAIN[2], "--topology", "v5e-4", "--what",
        "decode", "--way", "AR", "--json", "plan.json"], "way 'AR': choose one of NTP, MTP 3"),
    "plan: meshes of a talker": (["plan", "--config", TRAIN[2], "--topology", "v5e-4", "--what",
        "decode", "--sweep", "--json", "plan.json"], "--sweep is for training"),
    "eval: no such part": (["eval", "--model", "release", "--parts", "codex", "-o", "results"],
        "no part 'codex'"),
    "eval: no such model": (["eval", "--model", "nowhere", "-o", "results"], "no release"),
    "eval: none of them": (["eval", "--model", "release", "--count", "0", "-o", "results"],
        "--count 0"),
    "eval: below a file": (["eval", "--model", "release", "-o", "notes.txt/results"],
        "notes.txt is a file"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_call_has_written_nothing(case, place, capsys):
    argv, told = REFUSED[case]
    before = snapshot(place)
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert told in err and "Traceback" not in err
    assert snapshot(place) == before


def test_every_verb_that_writes_is_in_the_table():
    assert {case.partition(":")[0] for case in REFUSED} == {
        "train",
        "data",
        "release",
        "assemble",
        "convert",
        "voice",
        "say",
        "chat",
        "plan",
        "eval",
    }


@pytest.mark.parametrize(
    "damage", ["a value too large for 16 bits", "parameters of other sizes", "a full disk"]
)
def test_a_release_that_fails_midway_leaves_the_old_one(damage, place, parts, monkeypatch):
    """The second part fails when the first is written already."""
    release = place / "release"
    before = [snapshot(path) for path in sorted(release.iterdir())]
    params = jax.tree.map(np.array, parts["talker"].params)
    if damage == "parameters of other sizes":
        params["norm"]["scale"] = params["norm"]["scale"][:-1]
    elif damage.startswith("a value"):
        params["norm"]["scale"][0] = 1e6
    else:
        from mdmspeech.interop import release as module

        real = module.write_tensors
        monkeypatch.setattr(
            module,
            "write_tensors",
            lambda path, *args: _full(path) if "talker" in str(path) else real(path, *args),
        )
    with pytest.raises(ValueError, match=r"float16|shape|no space left"):
        save_release(
            place / "release",
            Release("new", {"codec": parts["codec"], "talker": Part("talker_mdm", TALKER, params)}),
            "new card",
        )
    assert [snapshot(path) for path in sorted(release.iterdir())] == before
    with pytest.raises(ValueError, match=r"float16|shape|no space left"):
        save_release(
            place / "a" / "new",
            Release("new", {"codec": parts["codec"], "talker": Part("talker_mdm", TALKER, params)}),
            "new card",
        )
    assert not (place / "a").exists()
    assert load_release(place / "release").name == "tiny"


def _full(path):
    Path(path).write_bytes(b"cut")
    raise OSError(28, os.strerror(28), str(path))
