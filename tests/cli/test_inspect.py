"""`mdmspeech data inspect`: what it prints and draws, and with which code it ends."""

import json

import corpora
import pytest
from corpora import encoded, put

from mdmspeech.cli import main
from mdmspeech.data.importers import survey


@pytest.fixture
def corpus(tmp_path):
    """Six good recordings, two bad ones."""
    folder = tmp_path / "corpus"
    corpora.librispeech(folder)
    chapter = folder / "LibriSpeech/dev-clean/84/121"
    put(chapter, "84-121.trans.txt", "84-121-0000 ONE\n84-121-0001 TWO\n84-121-0002 THREE\n")
    put(chapter, "84-121-0003.flac", encoded(9, "flac"))
    return folder


def test_it_says_what_is_there_and_what_would_be_rejected(corpus, capsys):
    assert main(["data", "inspect", str(corpus)]) == 0
    told = capsys.readouterr().out
    for line in (
        "librispeech, 3 parts",
        "6 of 8 records can be used, 3.0 s",
        "    0-2 s          6 ########################################",
        "sample rates: 16000 (6)",
        "licences: CC BY 4.0 (6)",
        "splits: train: 2 (1.0 s), val: 2 (1.0 s), test: 2 (1.0 s)",
        "speakers: 3; largest: 103: 2 (1.0 s)",
        "recordings that stand in the training split as well: 0 of val, 0 of test",
        "rejected: 2:",
        "  1 x no audio file",
        "    dev-clean/84/121/84-121.trans.txt, line 3: its audio dev-clean/84/121/84-121-0002.wav is not there",
        "  1 x no text",
    ):
        assert line in told


def test_as_json_with_a_picture_and_a_limit(corpus, tmp_path, capsys):
    picture = tmp_path / "p.png"
    command = ["data", "inspect", str(corpus), "--json", "--limit", "5", "--plot", str(picture)]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["records"], report["usable"]) == ("librispeech", 5, 3)
    assert report["splits"]["val"]["records"] == 2 and not report["stopped"]
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 5000


def test_one_speaker_and_an_option_of_the_format(corpus, tmp_path, capsys):
    assert main(["data", "inspect", str(corpus), "--speaker", "84"]) == 0
    assert "2 of 4 records can be used" in capsys.readouterr().out
    corpora.vctk(tmp_path / "vctk")
    assert main(["data", "inspect", str(tmp_path / "vctk"), "--option", "mic=mic2"]) == 0
    assert "3 of 3 records" in capsys.readouterr().out


def test_an_interruption_says_what_is_known_so_far(corpus, capsys, monkeypatch):
    add, count = survey.Survey.add, []

    def interrupted(self, *record):
        add(self, *record)
        count.append(record)
        if len(count) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(survey.Survey, "add", interrupted)
    assert main(["data", "inspect", str(corpus)]) == 130
    told = capsys.readouterr().out
    assert "stopped after 5 records; so far:" in told and "3 of 5 records can be used" in told


def test_bad_records_alone_are_told_and_end_with_2(tmp_path, capsys):
    put(tmp_path, "m.jsonl", '{"audio": "gone.wav", "text": "A word."}\n' * 3)
    assert main(["data", "inspect", str(tmp_path), "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["rejected"]["no audio file"]["records"] == 3
    assert "none of the 3 records" in told.err and "gone.wav is not there" in told.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--limit", "0"], "--limit 0"),
        (["--longest", "nan"], "--longest nan"),
        (["--longest", "-1"], "--longest -1"),
        (["--plot", "a.wav"], "--plot a.wav: name it .png"),
        (["--plot", "/proc/none/a.png"], "cannot write /proc/none/a.png"),
        (["--option", "mic"], "write NAME=VALUE"),
        (["--option", "mic=mic2"], "librispeech has no option mic"),
        (["--format", "kaldi"], "the formats are manifest"),
        (["--format", "vctk"], "is no vctk corpus"),
        (["--speaker", "nobody"], "nothing by a speaker called 'nobody'; some of its speakers: 103, 367, 84"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(options, told, corpus, capsys):
    assert main(["data", "inspect", str(corpus), *options]) == 2
    assert told in capsys.readouterr().err


def test_the_other_jobs_of_data_are_as_they_were(capsys):
    assert main(["data", "--hours", "0"]) == 2
    assert "--hours 0" in capsys.readouterr().err
