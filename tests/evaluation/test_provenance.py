"""What made a result is recorded whole, from a clean tree and from a changed one."""

import subprocess
import sys

import pytest
from provenance_problems import AFTERWARDS, FIELDS, problems

from mdmspeech.evaluation import provenance


def git(folder, *words):
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "code.py").write_text("one = 1\n")
    (tmp_path / "experiments/results").mkdir(parents=True)
    (tmp_path / "experiments/results/old.json").write_text("{}")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_record_is_whole(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "pytest", "-q"])
    made = provenance.provenance(sizes={"clips": 7}, seeds={"speech": 3})
    assert not set(FIELDS) - set(made)
    assert made["sizes"] == {"clips": 7} and made["seeds"] == {"speech": 3}
    assert "jax" in made["versions"] and made["command"] == "python -m pytest -q"
    words = provenance.line({**made, "commit": "c" * 40, "clean": False}, also="; and more")
    for wanted in (
        "clips: 7",
        "seed of speech: 3",
        "c" * 12,
        "changed tree",
        made["command"],
        made["date"],
        "; and more",
    ):
        assert wanted in words


def test_the_tree_is_clean_until_something_but_a_result_changes(checkout):
    commit, clean = provenance.tree(checkout)
    assert len(commit) == 40 and clean
    (checkout / "experiments/results/old.json").write_text("[]")
    (checkout / "experiments/results/new.json").write_text("[]")
    assert provenance.tree(checkout) == (commit, True)
    (checkout / "new.py").write_text("")
    assert provenance.tree(checkout) == (commit, False)
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "second")
    assert provenance.tree(checkout)[0] != commit
    assert provenance.tree(checkout)[1]
    (checkout / "code.py").write_text("one = 2\n")
    assert provenance.tree(checkout)[1] is False


def test_a_package_below_anothers_checkout_has_no_commit(checkout):
    (checkout / "site-packages").mkdir()
    assert provenance.tree(checkout / "site-packages") == (None, None)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (
            ["python3", "-m", "mdmspeech", "eval", "--parts", "codec"],
            "python -m mdmspeech eval --parts codec",
        ),
        (
            ["/venv/bin/python", "-u", "-m", "experiments.llada_curve"],
            "python -m experiments.llada_curve",
        ),
        (["/venv/bin/python3.11", "/venv/bin/mdmspeech", "eval"], "mdmspeech eval"),
        (["/venv/bin/python", "-c", "import x"], "python -c ..."),
        (["python", "{cwd}/a.py", "--data={home}/data"], "a.py --data=~/data"),
        (["python"], "python"),
    ],
)
def test_the_command_is_what_was_typed(typed, kept, monkeypatch, tmp_path):
    from pathlib import Path

    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(
        sys, "orig_argv", [word.format(cwd=Path.cwd(), home=home) for word in typed]
    )
    assert provenance.command() == kept


WHOLE = {
    **dict.fromkeys(FIELDS, "x"),
    "date": "2026-11-28 11:20 UTC", "commit": "0" * 40, "clean": True, "sizes": {"n": 1},
    "seeds": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"commit": None},
        {"commit": "main"},
        {"clean": None},
        {"date": "yesterday"},
        {"command": ""},
        {"versions": {}},
        {"sizes": {}},
        {"seeds": 0},
    ],
)
def test_what_is_missing_is_said(change):
    assert problems(WHOLE) == []
    assert problems({**WHOLE, **change})
    afterwards = {**WHOLE, "clean": None, "recorded": AFTERWARDS}
    assert problems(afterwards) == []
    assert "at or before commit" in provenance.line(
        {**afterwards, "versions": {"jax": "1"}, "sizes": {}, "seeds": {}}
    )
    for field in FIELDS:
        assert problems({key: value for key, value in WHOLE.items() if key != field})
