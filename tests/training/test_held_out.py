"""Held-out losses: the right average, the same numbers every time, shown by the loop."""

import json

import jax
import numpy as np
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.training import loop
from mdmspeech.training.held_out import HeldOut


class Seen(TinyTask):
    held_out = "test"

    def batches(self, split, seed):
        self.asked = (split, seed)
        return super().batches(split, seed)


def test_it_is_the_average_over_records_not_over_batches():
    task = Seen(noise=0.0)
    params = task.init(jax.random.key(0))
    found = HeldOut(task, task.init_frozen(None), lambda batch: batch, batches=3)(params)
    assert task.asked[0] == "test"
    data, above, below = task.batches("test", task.asked[1]), 0.0, 0.0
    for _ in range(3):
        batch = {k: v for k, v in next(data).items() if k != "id"}
        num, den = task.loss(params, task.init_frozen(None), batch, jax.random.key(0), 0)["mse"]
        above, below = above + float(num), below + float(den)
    assert found["held_out/mse"] == pytest.approx(above / below, rel=1e-5)


def test_the_same_noise_every_time():
    task = Seen(noise=0.5)
    params = task.init(jax.random.key(0))
    held_out = HeldOut(task, task.init_frozen(None), lambda batch: batch)
    assert held_out(params) == held_out(params)


def test_a_task_without_a_split_has_none():
    task = TinyTask()
    assert HeldOut(task, task.init_frozen(None), lambda batch: batch)(task.init(jax.random.key(0))) == {}


def test_the_loop_writes_them(tmp_path):
    loop.run(tiny_config(), Seen(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if any("held_out/mse" in key for key in line)]
    assert len(rows) == 2 and all(np.isfinite(next(v for k, v in row.items() if "held_out/mse" in k)) for row in rows)
