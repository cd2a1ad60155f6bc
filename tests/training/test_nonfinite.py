"""Updates that are not finite: the run stops, leaves them out, or goes back past their records."""

import json

import jax
import numpy as np
import pytest
from processes import start_together, steps_saved
from tiny import Numbers, TinyTask, tiny_config

from mdmspeech.training.loop import NonFiniteError, train
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.nonfinite import FILE, MOST_IN_A_ROW

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Bad(Numbers):
    """Batches (numbered from 1) of which some have a record that is no number."""

    def __init__(self, seed, size, bad, seen):
        super().__init__(seed, size)
        self.bad_batches, self.seen = bad, seen

    def __next__(self):
        number = self.position // self.size + 1
        self.bad = self.position if number in self.bad_batches else None
        self.seen.append(number)
        return super().__next__()


class BadTask(TinyTask):
    """`trained`: batches in the order in which they were made."""

    def __init__(self, *bad, noise=0.0):
        super().__init__(noise=noise)
        self.bad_batches, self.seen = bad, []

    def batches(self, split, seed):
        return Bad(seed, self.size, self.bad_batches, self.seen)


class Without(Bad):
    """The same stream without some batches."""

    def __next__(self):
        while self.position // self.size + 1 in self.bad_batches:
            self.position += self.size
        self.bad = None
        return Numbers.__next__(self)


class WithoutTask(BadTask):
    def batches(self, split, seed):
        return Without(seed, self.size, self.bad_batches, self.seen)


def run(tmp_path, task, on_nan, **settings):
    settings = dict(steps=8, eval_every=0, save_every=2, prefetch=1) | settings
    return train(tiny_config(on_nan=on_nan, **settings), task, tmp_path)


def told(tmp_path):
    path = tmp_path / FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(row["step"], row["what"]) for row in rows], rows


def params(state):
    return [np.asarray(x) for x in jax.tree.leaves(state.params)]


def steps_in(tmp_path):
    return [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in r]


FULL = pytest.mark.full


@pytest.mark.parametrize(
    "bad", [(1, 2, 8), (5,), *(pytest.param(b, marks=FULL) for b in ((1,), (8,), (3, 4)))]
)
def test_skip_leaves_the_update_out_and_names_its_records(bad, tmp_path, capsys):
    state = run(tmp_path, BadTask(*bad), "skip")
    assert int(state.step) == 8 and all(np.isfinite(x).all() for x in params(state))
    steps, rows = told(tmp_path)
    assert steps == [(n, "skip") for n in bad]
    first = 8 * (bad[0] - 1)
    assert rows[0]["records"] == [f"record-{first + i}" for i in range(8)]
    assert f"update {bad[0]} is not finite" in (err := capsys.readouterr().err)
    assert f"record-{first}" in err
    assert steps_in(tmp_path) == [n for n in range(1, 9) if n not in bad]


def test_a_skipped_update_changes_nothing_but_the_step(tmp_path):
    """Nor the moments and the average."""
    config = tiny_config(on_nan="skip", eval_every=0, save_every=2, steps=2)
    config.optim.schedule = "constant"
    one = train(config, BadTask(3), tmp_path / "a")
    config.train.steps = 3
    two = train(config, BadTask(3), tmp_path / "b")
    for a, b in zip(
        jax.tree.leaves((one.params, one.opt_state, one.ema)),
        jax.tree.leaves((two.params, two.opt_state, two.ema)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_without_such_an_update_skip_computes_the_same(tmp_path):
    stop, skip = (run(tmp_path / name, BadTask(noise=0.1), name) for name in ("stop", "skip"))
    for a, b in zip(params(stop), params(skip), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "lost"),
    [
        (5, (5, 6)),
        (1, (1, 2)),
        pytest.param(7, (7, 8), marks=FULL),
        pytest.param(6, (5, 6), marks=FULL),
    ],
)
def test_rollback_goes_on_from_the_checkpoint_past_those_records(bad, lost, tmp_path, capsys):
    """As if the stream had never had what was read since the checkpoint (one every 2 steps)."""
    task = BadTask(bad)
    state = run(tmp_path, task, "rollback", steps=10)
    assert int(state.step) == 10
    assert told(tmp_path)[0] == [(bad, "rollback")]
    assert task.seen == sorted(set(task.seen)), "no batch is read twice"
    gone = set(range(bad - (bad - 1) % 2, bad)) | set(lost)
    clean = run(tmp_path / "clean", WithoutTask(*gone), "stop", steps=10)
    for a, b in zip(params(state), params(clean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=f"{gone}")
    assert steps_in(tmp_path) == list(range(1, 11))
    assert "going back to the last checkpoint" in capsys.readouterr().err


def test_rollback_at_the_last_step(tmp_path):
    state = run(tmp_path, BadTask(8), "rollback", steps=8)
    assert int(state.step) == 8 and all(np.isfinite(x).all() for x in params(state))
    assert told(tmp_path)[0] == [(8, "rollback")]


def test_a_model_that_is_lost_is_not_gone_back_to_for_ever(tmp_path):
    for on_nan in ("skip", "rollback"):
        with pytest.raises(NonFiniteError, match=f"for the {MOST_IN_A_ROW + 1}th time in a row"):
            run(tmp_path / on_nan, BadTask(*range(4, 200)), on_nan, steps=100)
        assert told(tmp_path / on_nan)[0][-1][1] == "stop"


def test_stop_then_go_on_without_them(tmp_path):
    """Started again it meets the same records, until it is told to leave them out."""
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=r"at step 5 .*records record-32.*good \(step 4\)"):
            run(tmp_path, BadTask(5), "stop")
    state = run(tmp_path, BadTask(5), "skip")
    assert int(state.step) == 8
    assert told(tmp_path)[0] == [(5, "stop"), (5, "stop"), (5, "skip")]


def test_on_several_devices_all_decide_alike(tmp_path):
    """One row of one device is bad: the update is left out on all."""
    config = tiny_config(on_nan="skip", steps=4, eval_every=0, save_every=4)
    config.mesh.fsdp = 4
    state = train(config, BadTask(2), tmp_path)
    assert all(np.isfinite(x).all() for x in params(state))


@pytest.mark.full
@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_of_two_processes_one_has_a_bad_record(on_nan, tmp_path):
    """Both decide alike, and the lead names the records of both."""
    options = ("--steps", 6, "--bad", 36, "--on-nan", on_nan, "--eval-every", 0)
    processes = start_together(tmp_path / "run", 2, *options, devices=1)
    assert [process.ended() for process in processes] == [0, 0], processes[1].log
    steps, rows = told(tmp_path / "run")
    assert steps == [(5, on_nan)]
    assert rows[0]["records"] == [f"record-{n}" for n in range(32, 40)]
    assert steps_saved(tmp_path / "run")[-1] == 6
    assert "record-32" in processes[0].log and "is not finite" not in processes[1].log
