"""A run by epochs: its steps are those after which every record has come so many times."""

import math

import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny import Numbers, TinyTask, tiny_config

from mdmspeech.cli.experiment import load_config, override
from mdmspeech.data.packing.plan import COUNTED_WINDOWS, PackPlan
from mdmspeech.data.packing.position import CheckedBatches
from mdmspeech.data.pipelines.random_source import RandomSpeech
from mdmspeech.data.pipelines.talker_joined import talker_batches
from mdmspeech.errors import UserError
from mdmspeech.training.config import base
from mdmspeech.training.epochs import FILLED, planned_steps, row_seconds, steps_of
from mdmspeech.training.loop import train
from mdmspeech.training.optim import make_schedule
from mdmspeech.training.ranges import check_duration

SIZES = np.random.default_rng(0).integers(1, 60, (500, 1))


def plan(sizes, **changes):
    settings = {"capacities": {"tokens": 100}, "batch": 4, "seed": 3, "say": lambda line: None}
    return PackPlan(sizes, **settings | changes)


@pytest.mark.parametrize("epochs", [0.1, 0.5, 1, 2.5, 5, 8])
@pytest.mark.parametrize("window", [0, 300, 500, 1000])
@pytest.mark.parametrize("weights", [None, {"a": 1.0, "b": 3.0}])
def test_the_first_batch_at_which_all_records_have_come_so_often(epochs, window, weights):
    packed = plan({"a": SIZES, "b": SIZES[:120]}, window=window, weights=weights)
    steps = packed.batches_of(epochs)

    def drawn(batch):
        passes = packed.passes(batch, packed.anchor(batch))
        return passes["a"] * 500 + passes["b"] * 120

    assert drawn(steps) >= epochs * 620 - 1.01 > drawn(steps - 1) - 1.01
    if weights is None and window == 0:
        assert packed.passes(steps, packed.anchor(steps))["a"] == pytest.approx(epochs, abs=0.04)


def test_what_is_too_long_for_a_row_is_in_no_epoch():
    some = np.concatenate([SIZES, np.full((400, 1), 101)])
    assert plan({"a": some}).batches_of(2) == plan({"a": SIZES}).batches_of(2)


def test_of_many_windows_some_are_packed_and_the_rest_is_told_from_them():
    packed = plan({"a": SIZES}, window=100)
    epochs = 5 * COUNTED_WINDOWS * 100 / 500
    exact = sum(len(packed._rows(w)) for w in range(5 * COUNTED_WINDOWS)) / 4
    assert packed.batches_of(epochs) == pytest.approx(exact, rel=2e-3)


def test_it_does_not_move_the_stream():
    packed, other = plan({"a": SIZES}, window=300), plan({"a": SIZES}, window=300)
    packed.batches_of(3)
    assert [packed[k] for k in range(30)] == [other[k] for k in range(30)]


def test_joined_rows_and_rows_of_states_tell_it_too():
    source = RandomSpeech(60, words=1.0)
    sizes = dict(length=64, symbols=64, block=16, eos=6563, pad=6564, token_seconds=0.04)
    batches = talker_batches(source, batch=4, seed=0, **sizes)
    assert batches.batches_of(2) == math.ceil(2 * len(source) / 5 / 4)
    assert CheckedBatches(iter(()), "", 12).batches_of(2.5) == 30
    assert CheckedBatches(iter(()), "").batches_of(1) is None


@pytest.mark.parametrize("data", [object(), CheckedBatches(iter(()), "")])
def test_data_without_an_end_need_steps(data):
    train = base().train
    train.update(steps=0, epochs=2.0)
    with pytest.raises(UserError, match=r"train.epochs is 2, but .*--set train\.steps=N"):
        steps_of(train, data)
    train.update(steps=7, epochs=0.0)
    assert steps_of(train, data) == (7, "")


@pytest.mark.parametrize(
    ("steps", "epochs", "told"),
    [
        (0, 0.0, "train.steps is 0 and so is train.epochs"),
        (5, 0.5, "train.steps is 5 and train.epochs 0.5: a run ends by one of them"),
        (5, 0.0, ""),
        (0, 0.5, ""),
        (1, 1e-6, "ends by one of them"),
        (10**6, 8.0, "ends by one of them"),
        (0, 1e6, ""),
    ],
)
def test_a_run_ends_by_one_of_two(steps, epochs, told):
    if not told:
        check_duration(steps, epochs)
        return
    with pytest.raises(UserError, match=told):
        check_duration(steps, epochs)


@pytest.mark.parametrize(
    ("before", "assignment", "after"),
    [
        (dict(steps=750, epochs=0.0), "train.epochs=3", dict(steps=0, epochs=3.0)),
        (dict(steps=0, epochs=8.0), "train.steps=200", dict(steps=200, epochs=0.0)),
        (dict(steps=0, epochs=8.0), "train.epochs=0.5", dict(steps=0, epochs=0.5)),
        (dict(steps=750, epochs=0.0), "train.steps=1", dict(steps=1, epochs=0.0)),
    ],
)
def test_the_last_that_is_set_counts(before, assignment, after):
    config = base()
    config.train.update(before)
    override(config, assignment)
    assert {name: config.train[name] for name in after} == after


@pytest.mark.parametrize("key", ["train.steps", "train.epochs"])
def test_none_of_either_is_refused(key):
    with pytest.raises(UserError, match=f"{key} is 0: give a number above 0, or train"):
        override(base(), f"{key}=0")


def test_a_warm_up_given_in_steps_replaces_the_share():
    config = base()
    config.optim.update(warmup=0, warmup_share=0.03)
    override(config, "optim.warmup=7")
    assert config.optim.warmup == 7 and config.optim.warmup_share == 0
    override(config, "optim.warmup=0")
    override(config, "optim.warmup_share=0.1")
    assert config.optim.warmup == 0 and config.optim.warmup_share == 0.1


def test_a_share_is_as_so_many_steps():
    optim = base().optim
    optim.update(warmup=0, warmup_share=0.03)
    by_share = make_schedule(optim, 1000)
    optim.update(warmup=30, warmup_share=0.0)
    by_steps = make_schedule(optim, 1000)
    for step in (0, 1, 29, 30, 500, 999):
        assert float(by_share(step)) == float(by_steps(step)) > 0


class Counted(Numbers):
    def batches_of(self, epochs):
        return math.ceil(epochs * 40 / self.size)


class CountedTask(TinyTask):
    def batches(self, split, seed):
        return Counted(seed, self.size)


def test_the_loop_runs_that_many_and_the_rate_ends_with_them(tmp_path, capsys):
    """By epochs as by the same number of steps, from the first update to the last."""
    by_steps = train(tiny_config(steps=10, save_every=10), CountedTask(), tmp_path / "steps")
    config = tiny_config(steps=0, epochs=2.0, save_every=10)
    by_epochs = train(config, CountedTask(), tmp_path / "epochs")
    assert int(by_epochs.step) == 10
    for a, b in zip(*(s.params["in"].values() for s in (by_steps, by_epochs)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "train.epochs 2: 10 steps, 5 a pass" in capsys.readouterr().err
    # and the run's own config stays as it was given, so that it resumes
    config.train.epochs = 3.0
    assert int(train(config, CountedTask(), tmp_path / "epochs").step) == 15


@pytest.mark.parametrize(
    ("name", "rows", "seconds"),
    [
        ("talker_8b", 512, 1024 / 25),
        ("talker_isd_8b", 256, 1024 / 25),
        ("thinker_8b", 128, 60.0),
        ("talker_1b", 512, 1024 / 25),
        ("talker_isd_06b", 256, 1024 / 25),
    ],
)
def test_what_is_planned_for_hours(name, rows, seconds):
    config = load_config(f"experiments/{name}.py")
    assert row_seconds(config) == pytest.approx(seconds)
    steps = planned_steps(config, 6000.0)
    wanted = config.train.epochs * 6000 * 3600 / (rows * seconds * FILLED)
    assert steps == math.ceil(wanted)
    assert planned_steps(config, 3000.0) == pytest.approx(steps / 2, rel=1e-3)
    config.train.update(steps=9, epochs=0.0)
    assert planned_steps(config) == 9


def test_a_plan_without_hours_is_refused():
    config = base()
    config.train.update(steps=0, epochs=1.0)
    config.data = ConfigDict(dict(length=100, token_seconds=0.04, batch=2))
    with pytest.raises(UserError, match="hours is not set"):
        planned_steps(config)
    del config.data.length
    with pytest.raises(UserError, match=r"data.length or data.frames is not"):
        planned_steps(config, 5.0)
