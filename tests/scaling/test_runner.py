"""One run at a constant rate and a decay from it for each budget: as good as a run for each; and a
ladder that was stopped goes on.
"""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.scaling.ladder import RESULTS, Rung, rungs
from mdmspeech.scaling.runner import newest, run_ladder
from mdmspeech.training import loop
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.warm_start import load_params

STEPS = {8.0: 8, 16.0: 16}


def config_of(width, layers, budget, **train):
    config = tiny_config(**{"steps": STEPS[budget], "eval_every": 0, "save_every": 100, **train})
    config.optim.update(schedule="wsd", decay_share=0.5, warmup=1, ema=0.0)
    config.talker = dict(dim=width, num_layers=layers)
    config.data = dict(batch=8)
    return config


def ladder(budgets=(16.0, 8.0), **train):
    made = lambda width, layers, budget: config_of(width, layers, budget, **train)
    return rungs(made, (64,), (4,), budgets)


class Counting:
    """Makes tasks and measures runs, and notes which."""

    def __init__(self, stop_at=""):
        self.tasks, self.measured, self.stop_at = [], [], stop_at

    def task(self, config, folder):
        if str(folder).endswith(self.stop_at) and self.stop_at:
            raise KeyboardInterrupt
        self.tasks.append(folder.name)
        return TinyTask()

    def measure(self, config, folder):
        self.measured.append(folder.name)
        return {"norm": float(np.abs(load_params(folder)["in"]["kernel"]).sum())}


def run(workdir, found, counting=None):
    counting = counting or Counting()
    return run_ladder(found, workdir, counting.task, counting.measure, lambda line: None), counting


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ladder")
    with pytest.MonkeyPatch.context() as patch:  # before `few_pictures`, which is of each test
        for name in ("plot_curves", "plot_goodput"):
            patch.setattr(f"mdmspeech.training.observer.{name}", lambda *args: None)
        return workdir, *run(workdir, ladder())


@pytest.mark.slow
def test_each_budget_is_the_run_that_it_would_be_alone(done, tmp_path):
    workdir, rows, counting = done
    assert [row["rung"] for row in rows] == ["w64-l4/8", "w64-l4/16"]
    assert counting.tasks == ["stable", "8", "stable", "16"] and counting.measured == ["8", "16"]
    alone = loop.train(config_of(64, 4, 16.0), TinyTask(), tmp_path / "alone")
    for a, b in zip(
        jax.tree.leaves(alone.params),
        jax.tree.leaves(load_params(workdir / "w64-l4/16")),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    lines = read_metrics(workdir / "w64-l4/16/metrics.jsonl")
    assert [row["train/lr"] for row in lines if "train/lr" in row] == [
        row["train/lr"]
        for row in read_metrics(tmp_path / "alone/metrics.jsonl")
        if "train/lr" in row
    ]


def test_what_is_done_is_not_done_again(done):
    workdir, rows, _ = done
    again, counting = run(workdir, ladder())
    assert again == rows and not counting.tasks and not counting.measured


@pytest.mark.slow
def test_a_stopped_ladder_goes_on(done, tmp_path):
    """After any of its parts: the same rows, and nothing trained twice."""
    rows = done[1]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ladder(), Counting(stop_at="w64-l4/8"))
    (tmp_path / "w64-l4/8.new/checkpoints/3").mkdir(parents=True)  # a copy that was cut short
    assert newest(tmp_path / "w64-l4/stable") == 4 == newest(tmp_path / "w64-l4/8")
    shutil.rmtree(tmp_path / "w64-l4/8")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ladder(), first := Counting(stop_at="w64-l4/16"))
    assert first.tasks == ["8", "stable"]
    found, second = run(tmp_path, ladder())
    assert second.tasks == ["16"] and second.measured == ["16"]
    assert found == rows
    (tmp_path / RESULTS).unlink()  # measured again, not trained
    found, third = run(tmp_path, ladder())
    assert found == rows and not third.tasks and third.measured == ["8", "16"]


def test_other_settings_and_smaller_budgets_are_refused(done, monkeypatch):
    workdir = done[0]
    with pytest.raises(UserError, match="w64-l4/8 of other settings"):
        run(workdir, ladder(seed=5))
    monkeypatch.setitem(STEPS, 6.0, 6)
    with pytest.raises(UserError, match="cannot go back; give a larger budget"):
        run(workdir, ladder((6.0, 8.0, 16.0)))
    run(workdir, ladder(log_every=3, keep=1))  # settings that decide nothing


def test_a_run_of_another_config_is_not_measured(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "copy")
    (tmp_path / "copy" / RESULTS).unlink()
    with pytest.raises(UserError, match=r"is of another config \(train\.seed: 0 -> 5"):
        run(tmp_path / "copy", ladder(seed=5), counting := Counting())
    assert not counting.measured and not counting.tasks


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"rung": 1}\n', '"a"\n'])
def test_damaged_results_are_named(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(UserError, match="is damaged: remove it"):
        run(tmp_path, ladder())


def test_a_rung_knows_where_it_branches_off():
    rung = ladder()[1]
    assert (rung.steps, rung.stable_steps, rung.name) == (16, 8, "w64-l4/16")
    assert rung.stable_config().optim.decay_share == 0.0
    assert rung.config.optim.decay_share == 0.5  # its own is left as it was
    json.dumps(rung.settings())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c, b: c.optim.update(schedule="cosine"), "needs optim.schedule wsd"),
        (lambda c, b: c.optim.update(decay_share=0.0), "a decay_share between 0 and 1"),
        (lambda c, b: c.optim.update(decay_share=1.0), "a decay_share between 0 and 1"),
        (lambda c, b: c.data.update(batch=int(b)), "have different data"),
        (lambda c, b: c.optim.update(warmup_share=0.1), "set optim.warmup_share"),
        (lambda c, b: c.train.update(epochs=2.0), "and train.epochs to 0"),
        (lambda c, b: c.optim.update(warmup=4), "no more than those of"),
        (lambda c, b: c.train.update(steps=8), "no more than those of"),
    ],
)
def test_what_is_no_ladder(change, told):
    def made(width, layers, budget):
        config = config_of(width, layers, budget)
        change(config, budget)
        return config

    with pytest.raises(UserError, match=told):
        rungs(made, (64,), (4,), (8.0, 16.0))


@pytest.mark.parametrize(
    "numbers", [((), (4,), (8.0,)), ((64, 64), (4,), (8.0,)), ((64,), (4,), ())]
)
def test_none_or_one_twice(numbers):
    with pytest.raises(UserError, match="each once"):
        rungs(config_of, *numbers)


def test_digests_tell_settings_apart():
    def digest(**optim):
        config = config_of(64, 4, 16.0)
        config.optim.update(optim)
        return Rung(16.0, config).settings()

    assert len({digest(), digest(lr=0.5), digest(decay_share=0.25), digest(warmup=2)}) == 4
    assert digest() == digest()
