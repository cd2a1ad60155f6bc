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
def test_what_cannot_work_is_told_before_anything_is_written(options, told, corpus, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam") if "beam" not in sys.modules else None
    root = tmp_path / "root"
    given = asked("--import", corpus, "--root", root, *options)
    with pytest.raises(UserError, match=told):
        data.run(given)
    assert not root.exists()
