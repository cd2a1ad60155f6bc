"""What `mdmspeech data --import` refuses, before anything is read long or written."""

import argparse
import json
import sys

import numpy as np
import pytest
import soundfile

from mdmspeech.cli import data, prepare
from mdmspeech.data.beam import stages
from mdmspeech.errors import UserError


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.sin(np.arange(16_000) / 9) / 2, 16_000)
    line = {"audio": "a.wav", "text": "one two three"}
    (folder / "train.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def asked(*argv):
    parser = argparse.ArgumentParser()
    data.add(parser.add_subparsers())
    return parser.parse_args(["data", *map(str, argv)])


def refused(given):
    data.check(given)
    prepare.make_plan(given)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--name", "open"], "--name open"),
        (["--name", "a/b"], "--name a/b"),
        (["--name", "datasets"], "none of the corpus's own names"),
        (["--shards", "0"], "--shards 0: give 1 or more"),
        (["--shards", "-3"], "--shards -3"),
        (["--workers", "0"], "--workers 0"),
        (["--beam-args", "--a 'b"], "--beam-args .*quote it"),
        (["--option", "speaker"], "write NAME=VALUE"),
        (["--option", "mic=2"], "no option mic"),
        (["--format", "nothing"], "the formats are"),
        (["--format", "vctk"], "is no vctk corpus"),
        (["--runner", "DataflowRunner"], "give --root a bucket"),
        (["--runner", "FlinkRunner"], "give --root a bucket"),
        (["--voice", "nobody"], "no speech engine"),
        (["--voice", "command:x"], "needs {out}"),
        (["--tokens", "--codec", "/no/such/release"], "/no/such/release"),
        (["--root", "gs:/bucket/x"], "lost a slash"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(options, told, corpus, tmp_path):
    root = tmp_path / "root"
    given = asked("--import", corpus, "--root", root, *options)
    with pytest.raises(UserError, match=told):
        refused(given)
    assert not root.exists()


@pytest.mark.parametrize("source", ["", " ", "\t"])
def test_an_empty_name_of_a_corpus(source, tmp_path):
    with pytest.raises(UserError, match="--import is empty"):
        prepare.make_plan(asked("--import", source, "--root", tmp_path / "root"))


def test_without_beam_it_says_what_to_install(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "mdmspeech.data.beam.pipeline", raising=False)
    with pytest.raises(UserError, match=r'pip install "mdmspeech\[beam\]"'):
        data.run(asked("--import", corpus, "--root", tmp_path / "root"))
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("names", "options", "carved"),
    [
        (["train.jsonl"], [], True),
        (["train.jsonl", "test.jsonl"], [], False),
        (["train.jsonl", "dev.jsonl"], [], False),
        (["all.jsonl"], [], True),
        (["all.jsonl", "said.jsonl"], [], False),
        (["all.jsonl", "said.jsonl"], ["--splits", "text"], True),
        (["all.jsonl"], ["--splits", "own"], False),
        (["test-set/../all.jsonl"], [], True),
    ],
)
def test_a_corpus_without_held_out_records_gets_some(names, options, carved, corpus, tmp_path):
    entry = json.loads((corpus / "train.jsonl").read_text())
    (corpus / "train.jsonl").unlink()
    (corpus / "test-set").mkdir()
    for name in names:
        said = {"split": "dev", "id": "b"} if name == "said.jsonl" else {}
        (corpus / name).write_text(json.dumps(entry | said) + "\n")
    plan, _ = prepare.make_plan(asked("--import", corpus, "--root", tmp_path / "root", *options))
    assert plan.stages[0].carve == carved


def test_what_is_asked_for_becomes_stages(corpus, tmp_path):
    given = ["--import", corpus, "--root", tmp_path / "root", "--shards", "3", "--voice", "hibari"]
    plan, arguments = prepare.make_plan(asked(*given, "--beam-args=--a=1 --b='x y'"))
    assert [type(stage) for stage in plan.stages] == [stages.Clean, stages.Synthesise]
    assert arguments == ["--a=1", "--b=x y"] and plan.target.units == 3
    assert not plan.stages[0].needs_sound and "hibari" in plan.target.settings
