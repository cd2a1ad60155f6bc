"""The compiled step: compiling is told and timed, waits hidden behind a step are no waits; and the profiler window."""

import jax
import jax.numpy as jnp
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training import loop, stepper
from mdmspeech.training.goodput import GoodputTracker
from mdmspeech.training.profiler import ProfileWindow
from mdmspeech.training.stepper import Stepper


class Clock:
    """Moves a second each time it is read."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def make(clock=None, **kwargs):
    said = []
    step = jax.jit(lambda state, frozen, batch: (state + batch["x"].sum(), {"loss": state * 1.0}))
    ledger = GoodputTracker(clock=clock or Clock())
    ledger.begin(0)
    return Stepper(step, ledger, lambda state, frozen, batch: 10 * batch["x"].size, said.append, **kwargs), ledger, said


def test_each_shape_is_compiled_once_and_told():
    step, ledger, said = make()
    state = jnp.float32(0)
    for size in (4, 4, 6, 4, 6):
        state, metrics = step(state, {}, {"x": jnp.ones((size, 2))})
        step.wait(metrics)
    assert float(state) == 2 * (4 + 4 + 6 + 4 + 6)
    assert [line.split(" ")[0] for line in said] == ["compiling", "compiled", "compiling", "compiled"]
    assert "x [4, 2]" in said[1] and "x [6, 2]" in said[3] and "80" in said[1] and "compiled again in" in said[3]
    assert ledger.totals()["compile"] > 0


def test_mfu_of_what_was_seen():
    step, _, _ = make(devices=2, peak_flops=20.0)
    state, first = step(jnp.float32(0), {}, {"x": jnp.ones((4, 2))})
    state, second = step(state, {}, {"x": jnp.ones((4, 2))})
    step.wait(first)
    seconds, shown = step.window()
    assert shown["mfu"] == pytest.approx(80 / seconds / 40)
    step.wait(second)
    assert step.window()[1]["mfu"] > 0 == step.window()[1]["mfu"]
    assert "mfu" not in make()[0].window()[1]


def test_numbers_come_in_order():
    step, _, _ = make()
    state, _ = step(jnp.float32(0), {}, {"x": jnp.ones((4, 2))})
    _, second = step(state, {}, {"x": jnp.ones((4, 2))})
    with pytest.raises(ValueError, match="in the order"):
        step.wait(second)


@pytest.mark.parametrize(("ready", "waited"), [(True, 1.0), (False, 0.0)])
def test_a_wait_behind_a_running_step_is_no_wait(monkeypatch, ready, waited):
    monkeypatch.setattr(stepper, "_ready", lambda metrics: ready)
    step, ledger, _ = make()
    state, _ = step(jnp.float32(0), {}, {"x": jnp.ones((4, 2))})
    before = ledger.totals()
    with ledger.time("data"):
        pass
    step(state, {}, {"x": jnp.ones((4, 2))})
    after = ledger.totals()
    assert after["data"] - before["data"] == waited
    assert sum(after.values()) > sum(before.values())


def test_numbers_are_looked_at_one_step_late(tmp_path, monkeypatch):
    events = []

    class Watched(Stepper):
        def __call__(self, state, frozen, batch):
            events.append("start")
            return super().__call__(state, frozen, batch)

        def wait(self, metrics):
            events.append("numbers")
            return super().wait(metrics)

    monkeypatch.setattr(loop, "Stepper", Watched)
    loop.run(tiny_config(steps=5, eval_every=0, save_every=100), TinyTask(), tmp_path)
    assert events == ["start", "start", "numbers", "start", "numbers", "start", "numbers", "start", "numbers", "numbers"]


def test_a_profile_of_the_updates_asked_for(tmp_path, capsys):
    loop.run(tiny_config(steps=4, eval_every=0, profile=(2, 2)), TinyTask(), tmp_path)
    assert "profile of updates 2 to 3 is in" in capsys.readouterr().err
    names = [p.name for p in (tmp_path / "profile").rglob("*") if p.is_file()]
    assert any(name.endswith(".xplane.pb") for name in names) and any(name.endswith(".trace.json.gz") for name in names)


def test_a_window_without_an_end_is_closed(tmp_path):
    window = ProfileWindow((1, 100), tmp_path, print)
    with window.step(1):
        jnp.ones(3).block_until_ready()
    window.close()
    window.close()
    assert any(tmp_path.rglob("*.xplane.pb"))


@pytest.mark.parametrize("window", [(0, 3), (1, -1), (1,), 5, "now"])
def test_a_wrong_window_is_named(tmp_path, window):
    with pytest.raises(UserError, match=r"train\.profile is"):
        ProfileWindow(window, tmp_path)
