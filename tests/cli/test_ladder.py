"""`mdmspeech ladder`: what is asked for wrongly is told before anything is trained or written; a fit
from a file to a page.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scaling"))

from provenance_problems import problems

from mdmspeech.cli import main
from mdmspeech.cli.experiment import load_config
from mdmspeech.errors import UserError

LADDER = Path(__file__).parents[2] / "experiments" / "ladder.py"


def told(capsys, *words):
    assert main(["ladder", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--widths", "64", "--budgets", "0"), "--budgets '0': give numbers from 1"),
        (("--widths", "64,x", "--budgets", "1e6"), "--widths '64,x': give numbers with commas"),
        (("--widths", "64.5", "--budgets", "1e6"), "--widths '64.5': give whole numbers"),
        (("--widths", "", "--budgets", "1e6"), "--widths ''"),
        (("--widths", "64,64", "--budgets", "1e6"), "--widths: give numbers with commas between"),
        (("--widths", "63", "--budgets", "1e6"), "width=63 with heads of 31"),
        (("--widths", "64", "--budgets", "nan"), "--budgets 'nan'"),
        (("--widths", "64", "--budgets", "1e99"), "--budgets '1e99'"),
        (("--widths", "64", "--budgets", "1e4"), "updates before the decay are no more than"),
        (("--widths", "64", "--budgets", "1e7", "--layers", "0"), "--layers '0'"),
        (("--widths", "64", "--budgets", "1e7", "--speak", "-1"), "--speak -1"),
        (("--widths", "64", "--budgets", "1e7", "--set", "optim.schedule=cosine"), "needs optim.s"),
        (("--widths", "64", "--budgets", "1e7", "--set", "optim.decay_share=1"), "decay_share"),
        (("--widths", "64", "--budgets", "1e7", "--set", "optim.lrr=1"), "did you mean optim.lr"),
        (("--widths", "64", "--budgets", "1e7", "--workdir", ""), "--workdir is empty"),
        (("--widths", "64", "--budgets", "1e7", "--workdir", "gs://b/r"), "a folder on a disk"),
        (("--widths", "64", "--budgets", "1e7", "--config", "none.py"), "no experiment file"),
    ],
)
def test_a_ladder_that_cannot_be(tmp_path, capsys, words, error):
    given = ["run", "--config", str(LADDER), "--workdir", str(tmp_path / "runs")]
    assert error in told(capsys, *given, *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("none.jsonl",), "no results none.jsonl"),
        (("R", "--count", "all"), "--count all: give non_embedding or total"),
        (("R", "--target", "0.4"), "has no loss '0.4': give --target 0.5, mean"),
        (("R", "--predict", "5e8"), "--predict '5e8': give N:D"),
        (("R", "--predict", "5e8:-1"), "both are numbers above 0"),
        (("R", "--predict", "a:b"), "give N:D"),
        (("R", "--out", "/proc/none/x"), "cannot write /proc/none/x.json"),
    ],
)
def test_a_fit_that_cannot_be(tmp_path, capsys, words, error):
    from test_results import ladder, write

    results = str(write(tmp_path / "ladder.jsonl", ladder()))
    assert error in told(capsys, "fit", *(results if word == "R" else word for word in words))
    assert [path.name for path in tmp_path.iterdir()] == ["ladder.jsonl"]


def test_a_fit_from_a_file_to_a_page(tmp_path, capsys):
    from test_results import ladder, write

    results = write(tmp_path / "small.jsonl", ladder(scatter=0.002))
    assert main(["ladder", "fit", str(results), "--target", "0.5", "--predict", "1e8:1e9"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"small.jsonl", "small.json", "small.md", "small.png"}
    found = json.loads((tmp_path / "small.json").read_text())
    assert set(found["law"]) == {"E", "A", "alpha", "B", "beta"} and len(found["held_out"]) == 3
    assert not problems(found["made"])
    assert (tmp_path / "small.md").read_text().strip() == capsys.readouterr().out.strip()


def test_more_settings_may_follow_the_file(tmp_path, capsys):
    given = ["run", "--widths", "64", "--budgets", "1e5", "--workdir", str(tmp_path / "runs")]
    assert "takes width, tokens" in told(capsys, *given, "--config", f"{LADDER}:batches=3")
    assert "of layers" not in told(capsys, *given, "--config", f"{LADDER}:epochs=0,batch=256")


@pytest.mark.parametrize(
    ("settings", "head", "layers", "steps", "unique"),
    [
        ("", 128, 4, 30518, 0),
        ("width=4096,tokens=1e9", 128, 4, 15259, 0),
        ("width=256,layers=8", 128, 8, 30518, 0),
        ("width=128,tokens=1e6,batch=8", 64, 4, 489, 0),
        ("width=192,head=32,tokens=1e6,batch=8,epochs=4", 32, 4, 489, 250_000),
        ("width=64,tokens=1e6,batch=8,unique=3e5", 32, 4, 489, 300_000),
        ("runlocal", 32, 1, 20, 0),
    ],
)
def test_the_family(settings, head, layers, steps, unique):
    config = load_config(f"{LADDER}{':' * bool(settings)}{settings}")
    sizes = config.talker
    assert (sizes.dim // sizes.num_heads, sizes.num_layers) == (head, layers)
    assert (config.train.steps, config.data.unique) == (steps, unique)
    assert settings == "runlocal" or sizes.ffn_dim == 4 * sizes.dim
    assert config.optim.schedule == "wsd" and sizes.base_dim == 256


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ("depth=3", "takes width"),
        ("width=abc", "width is a number"),
        ("width=100.5", "width is a whole number"),
        ("width=32", "a width of 64 or more"),
        ("width=256,head=96", "an even head divides"),
        ("width=99,head=33", "an even head divides"),
        ("tokens=nan", "give a number from 1"),
        ("tokens=-5", "give a number from 1"),
        ("batch=0", "give a number from 1"),
        ("part=", "name parts of the corpus"),
        ("part=open+", "name parts of the corpus"),
        ("unique=5,epochs=2", "say the same thing"),
    ],
)
def test_settings_that_cannot_be(settings, error):
    with pytest.raises(UserError, match=error):
        load_config(f"{LADDER}:{settings}")
