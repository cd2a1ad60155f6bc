"""The loop end to end on a tiny real task, on eight fake devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny import Numbers, TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training import loop
from mdmspeech.training.checkpoint import best_step
from mdmspeech.training.loop import NonFiniteError, train
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.optim import ParamRule
from mdmspeech.training.stopping import StopSignal, why_stopped
from mdmspeech.training.warm_start import load_params


def leaves(state):
    return [
        np.asarray(x)
        for x in jax.tree.leaves((state.step, state.params, state.opt_state, state.ema))
    ]


def losses(workdir):
    return [
        row["train/loss"] for row in read_metrics(workdir / "metrics.jsonl") if "train/loss" in row
    ]


def ends_after(batches):
    """The task with data that ends early, as if the run had been killed there."""

    class Short(Numbers):
        def __next__(self):
            if self.position >= batches * self.size:
                raise StopIteration
            return super().__next__()

    task = TinyTask()
    task.batches = lambda split, seed: Short(seed, task.size)
    return task


@pytest.mark.pictures
def test_it_learns_and_leaves_its_files(tmp_path):
    task = TinyTask(size=32)
    state = train(
        tiny_config(steps=120, log_every=10, eval_every=50, save_every=60), task, tmp_path
    )
    curve = losses(tmp_path)
    assert curve[-1] < 0.3 * curve[0]
    assert int(state.step) == 120
    assert task.evaluations == [50, 100, 120]
    for name in (
        "metrics.jsonl",
        "curves.png",
        "config.json",
        "tensorboard",
        "eval/0000120/sample.txt",
        "checkpoints/120",
    ):
        assert (tmp_path / name).exists(), name
    assert "eval/norm" in read_metrics(tmp_path / "metrics.jsonl")[-1]


def test_resumed_equals_uninterrupted(tmp_path):
    whole = train(tiny_config(), TinyTask(), tmp_path / "whole")

    first = train(tiny_config(), ends_after(5), tmp_path / "parts")
    assert int(first.step) == 5
    second = train(tiny_config(), TinyTask(), tmp_path / "parts")
    assert int(second.step) == 8
    for a, b in zip(leaves(whole), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_one_and_eight_devices_agree(tmp_path):
    one, eight, fsdp = tiny_config(), tiny_config(), tiny_config()
    one.mesh.data, eight.mesh.data, fsdp.mesh.fsdp = 1, 8, 4
    for name, config in dict(one=one, eight=eight, fsdp=fsdp).items():
        train(config, TinyTask(), tmp_path / name)
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "eight"), rtol=1e-5)
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "fsdp"), rtol=1e-5)


def test_a_checkpoint_moves_between_meshes(tmp_path):
    first = tiny_config()
    first.mesh.data = 1
    train(first, TinyTask(), tmp_path)
    second = tiny_config(steps=10)
    assert int(train(second, TinyTask(), tmp_path).step) == 10


def test_non_finite_names_step_and_record_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(NonFiniteError, match=r"at step 6 .*record-44.*last checkpoint is good"):
        # 8 records a step: record 44 is in the 6th
        train(tiny_config(), TinyTask(bad=44), tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    assert int(train(tiny_config(), TinyTask(), tmp_path).step) == 8


def test_the_best_state_is_saved_when_it_is_found(tmp_path):
    class Judged(TinyTask):
        def evaluate(self, params, step, outdir):
            return {"score": {3: 3.0, 6: 1.0, 8: 2.0}[step]}

    train(
        tiny_config(steps=8, eval_every=3, save_every=8, keep=1, keep_best="score"),
        Judged(),
        tmp_path,
    )
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["6", "8"]
    best, latest = load_params(tmp_path, "best"), load_params(tmp_path)
    assert not np.array_equal(best["in"]["kernel"], latest["in"]["kernel"])
    assert best_step(tmp_path) == 6


class Order:
    """A task, and what the loop does with each state, in its order."""

    def __init__(self, monkeypatch, batches=10**6, terminated_in=0):
        events = self.events = []
        self.task = ends_after(batches)

        class Step(loop.CompiledStep):
            def __call__(self, state, frozen, batch):
                events.append(("update", int(state.step) + 1))
                if int(state.step) + 1 == terminated_in:
                    signal.raise_signal(signal.SIGTERM)
                return super().__call__(state, frozen, batch)

        class Evaluator(loop.Evaluator):
            def __call__(self, params, step):
                events.append(("evaluate", step))
                return super().__call__(params, step)

        class Checkpoints(loop.Checkpoints):
            def save(self, state, *args):
                events.append(("save", int(state.step)))
                super().save(state, *args)

        for replaced in (Step, Evaluator, Checkpoints):
            monkeypatch.setattr(loop, replaced.__mro__[1].__name__, replaced)


def updates(*steps):
    return [("update", step) for step in steps]


def test_a_state_is_evaluated_then_saved_then_left(tmp_path, monkeypatch):
    order = Order(monkeypatch)
    train(tiny_config(steps=5, eval_every=2, save_every=4), order.task, tmp_path)
    assert order.events == [
        *updates(1, 2),
        ("evaluate", 2),
        *updates(3, 4),
        ("evaluate", 4),
        ("save", 4),
        # the last state is evaluated and saved whatever `eval_every` and `save_every` say
        *updates(5),
        ("evaluate", 5),
        ("save", 5),
    ]


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_where_the_data_end_the_state_is_evaluated_once_and_saved(
    batches, tmp_path, monkeypatch, capsys
):
    order = Order(monkeypatch, batches)
    assert (
        int(train(tiny_config(steps=8, eval_every=4, save_every=100), order.task, tmp_path).step)
        == batches
    )
    assert order.events == [
        *updates(*range(1, batches + 1)),
        ("evaluate", batches),
        ("save", batches),
    ]
    assert f"tiny: the data ended at step {batches}/8 after" in capsys.readouterr().err
    order.events.clear()
    # at once: none are left
    train(tiny_config(steps=8, eval_every=4, save_every=100), order.task, tmp_path)
    assert order.events == []


def test_a_signal_saves_and_does_not_evaluate(tmp_path, monkeypatch, capsys):
    order, before = Order(monkeypatch, terminated_in=3), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        train(tiny_config(steps=8, eval_every=2, save_every=100), order.task, tmp_path)
    assert left.value.code == 0 and signal.getsignal(signal.SIGTERM) is before
    assert order.events == [*updates(1, 2), ("evaluate", 2), *updates(3), ("save", 3)]
    assert "tiny: SIGTERM: saved, start again to go on, at step 3/8" in capsys.readouterr().err
    saved = json.loads((tmp_path / "checkpoints" / "3" / "about" / "metadata").read_text())
    # the fourth batch was made, and is not lost
    assert saved["data"] == {"json": {"position": 3 * order.task.size}}


def test_of_several_reasons_to_stop_the_largest_is_told():
    told = [
        why_stopped(max(reasons), "SIGINT", 0.5)
        for reasons in ([0], [0, 1], [2, 1], [2, 3], [3, 1, 0], [4, 3])
    ]
    assert [words.split(":")[0] for words in told] == [
        "done",
        "the data ended",
        "train.minutes=0.5 used up",
        "SIGINT",
        "SIGINT",
        "train.max_hours=0 used up",
    ]
    assert why_stopped(3, "", 0.0).startswith("a signal to another process: saved")


def test_sigterm_may_come_twice():
    with StopSignal() as stop:
        try:
            for number in (signal.SIGTERM, signal.SIGTERM):
                signal.raise_signal(number)
        except KeyboardInterrupt:
            pytest.fail("the second one is no sign of impatience")
        assert stop.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):  # whoever presses Ctrl-C does not want to wait
            signal.raise_signal(signal.SIGINT)


def test_a_restart_adds_no_line_and_keeps_the_means(tmp_path):
    """Saved between two lines of the log: the numbers since the last one go along."""
    config = tiny_config(log_every=5, eval_every=0)
    train(config, TinyTask(), tmp_path / "whole")
    assert int(train(config, ends_after(4), tmp_path / "parts").step) == 4
    train(config, TinyTask(), tmp_path / "parts")
    lines = {
        n: [r for r in read_metrics(tmp_path / n / "metrics.jsonl") if "train/loss" in r]
        for n in ("whole", "parts")
    }
    whole, parts = (
        [(r["step"], r["train/loss"], r["train/mse"]) for r in rows] for rows in lines.values()
    )
    assert whole == parts
    assert [r["step"] for r in lines["whole"]] == [1, 5]


def test_minutes_stop_the_run(tmp_path):
    state = train(
        tiny_config(steps=10**6, minutes=0.02, save_every=10**6, eval_every=0), TinyTask(), tmp_path
    )
    assert 0 < int(state.step) < 10**6
    assert (tmp_path / "checkpoints" / str(int(state.step))).exists()


def test_hours_of_all_starts_end_the_run(tmp_path):
    """Lost ones count as well, which `train.minutes` does not see; a run that is done is done."""
    run = lambda steps, hours: train(
        tiny_config(steps=steps, max_hours=hours, eval_every=0), TinyTask(), tmp_path
    )
    run(3, 1.0)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    lost = {"began": 0.0, "ended": 3600.0, "first": 3, "last": 9, "seconds": {"redone": 3600.0}}
    ledger["starts"].append(lost)
    (tmp_path / "ledger.json").write_text(json.dumps(ledger))
    assert int(run(3, 1.0).step) == 3
    with pytest.raises(UserError, match=r"used up its 1 hours at step 3/9: .*--max-hours") as told:
        run(9, 1.0)
    assert told.value.exit_code == 2
    assert int(run(5, 1.1).step) == 5, "more hours go on"


def test_warm_start_gives_the_first_parameters(tmp_path):
    class Warm(TinyTask):
        optimizer = (ParamRule(".*", frozen=True),)

        def warm_start(self, params):
            return jax.tree.map(lambda x: np.full(x.shape, 0.25, np.float32), params)

    state = train(tiny_config(steps=2), Warm(), tmp_path)
    assert all((np.asarray(x) == 0.25).all() for x in jax.tree.leaves((state.params, state.ema)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(size=12), "first axis must divide by the 8"),
        (dict(optimizer=(ParamRule("in/.*"),)), "out/bias"),
        (dict(batches=lambda split, seed: iter([])), "get_state"),
    ],
)
def test_wrong_tasks_are_named(tmp_path, change, message):
    task = TinyTask()
    for name, value in change.items():
        setattr(task, name, value)
    with pytest.raises(UserError, match=message):
        train(tiny_config(), task, tmp_path)


_CHILD = """
import sys, time
sys.path.insert(0, {here!r})
from tiny import TinyTask, Numbers, tiny_config
from mdmspeech.training.loop import train

class Slow(Numbers):
    def __next__(self):
        time.sleep(0.05)
        return super().__next__()

class SlowTask(TinyTask):
    def batches(self, split, seed):
        return Slow(seed, self.size)

train(tiny_config(steps=100000, save_every=100000, eval_every=0), SlowTask(), {workdir!r})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_zero(tmp_path, number):
    code = _CHILD.format(here=str(Path(__file__).parent), workdir=str(tmp_path))
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    deadline = time.monotonic() + 120
    while (
        not read_metrics(tmp_path / "metrics.jsonl")
        and time.monotonic() < deadline
        and child.poll() is None
    ):
        time.sleep(0.1)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert f"{number.name}: saved" in err
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert int(saved.name) >= 1


# ---- What is refused has written nothing; what is no number is never saved ----------------------


def files_of(folder):
    return {
        p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
        for p in folder.rglob("*")
    }


def test_a_run_that_is_refused_has_written_nothing(tmp_path):
    """Each before the first step is compiled: a new folder is not made, an old one stays as it is."""

    class NoWeights(TinyTask):
        def load_frozen(self, abstract):
            raise UserError("no such weights")

    class NoStart(TinyTask):
        def warm_start(self, params):
            raise UserError("no earlier run")

    wrong = [
        (tiny_config(), TinyTask(size=12), "must divide by the 8"),
        (tiny_config(), NoWeights(), "no such weights"),
        (tiny_config(), NoStart(), "no earlier run"),
        (tiny_config(steps=0), TinyTask(), "steps is 0"),
        (tiny_config(seed=-1), TinyTask(), "seed is -1"),
    ]
    for config, task, told in wrong:
        with pytest.raises(UserError, match=told):
            train(config, task, tmp_path / "run")
        assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file, not a folder"):
        train(tiny_config(), TinyTask(), tmp_path / "file" / "run")


def test_parameters_that_are_no_numbers_are_never_saved(tmp_path):
    """A rate of nan leaves loss and gradient of the first step finite, and its parameters not; then
    an older run is refused another config, untouched.
    """

    class Broken(TinyTask):
        optimizer = (
            ParamRule("in/.*"),
            ParamRule("out/kernel", lr=float("nan")),
            ParamRule("out/bias"),
        )

    with pytest.raises(
        NonFiniteError,
        match=r"not finite at step 1 \(parameters after the update.*nothing was saved",
    ):
        train(tiny_config(steps=1), Broken(), tmp_path)
    assert (
        not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
        and not (tmp_path / "eval").exists()
    )
    train(tiny_config(steps=1), TinyTask(), tmp_path)
    before = files_of(tmp_path)
    other = tiny_config(steps=1)
    other.optim.b1 = 0.5
    with pytest.raises(UserError, match="is of another config"):
        train(other, TinyTask(), tmp_path)
    with pytest.raises(UserError, match="must divide by the 8"):
        train(tiny_config(steps=2), TinyTask(size=12), tmp_path)
    assert files_of(tmp_path) == before


class _Misshapen(TinyTask):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def init(self, rng):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("integer division"),
        ValueError("Incompatible shapes"),
        TypeError("reshape"),
        AssertionError("odd"),
        UserError("sizes"),
    ],
)
def test_sizes_that_make_no_model_are_told_before_anything_is_written(error, tmp_path):
    with pytest.raises(UserError, match="sizes"):
        train(tiny_config(), _Misshapen(error), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("window", [(5,), (), (0, 1), (1, -1), 5, "5", ("a", "b"), (1, 2, 3)])
def test_a_malformed_profile_is_told_before_anything_is_written(window, tmp_path):
    config = tiny_config()
    with config.unlocked():
        del config.train["profile"]
        config.train.profile = window
    with pytest.raises(UserError, match=r"train\.profile"):
        train(config, TinyTask(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_place_that_takes_no_folder_is_told():
    with pytest.raises(UserError, match="name another --workdir"):
        train(tiny_config(), TinyTask(), "/proc/no-such-place/run")


class _Changed(TinyTask):
    """Its data are others than those of the checkpoint."""

    def batches(self, split, seed):
        data = super().batches(split, seed)

        def refuse(state):
            raise UserError("the data have changed")

        data.set_state = refuse
        return data


def test_other_data_on_resume_only_if_asked_for(tmp_path, capsys):
    config = tiny_config()
    config.train.steps = 2
    config.data = ConfigDict({"parts": ("a",)})
    loop.train(config, TinyTask(), tmp_path)
    config.train.steps, config.data.parts = 4, ("a", "b")
    with pytest.raises(
        UserError, match=r"of another config \(data\.parts.*--set train\.new_data=True"
    ):
        loop.train(config, _Changed(), tmp_path)
    config.data.parts = ("a",)
    with pytest.raises(UserError, match="the data have changed"):
        loop.train(config, _Changed(), tmp_path)
    config.train.new_data, config.data.parts = True, ("a", "b")
    state = loop.train(config, _Changed(), tmp_path)
    assert int(state.step) == 4
    assert "resumed at step 2, on other data, from their beginning" in capsys.readouterr().err
