"""The compiled step: compiling is told and timed, waits hidden behind a step are no waits; and the
profiler window.
"""

import jax
import jax.numpy as jnp
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training import compiled_step, loop
from mdmspeech.training.compiled_step import CompiledStep
from mdmspeech.training.goodput import GoodputTracker
from mdmspeech.training.profiler import ProfileWindow


class Clock:
    """Moves a second each time it is read."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def make():
    said = []
    step = jax.jit(lambda state, frozen, batch: (state + batch["x"].sum(), {"loss": state * 1.0}))
    tracker = GoodputTracker(clock=Clock())
    tracker.begin(0)
    return (
        CompiledStep(step, tracker, lambda state, frozen, batch: 10 * batch["x"].size, said.append),
        tracker,
        said,
    )


def test_each_shape_is_compiled_once_and_told():
    step, tracker, said = make()
    state = jnp.float32(0)
    for size in (4, 4, 6, 4, 6):
        state, metrics = step(state, {}, {"x": jnp.ones((size, 2))})
        step.wait(metrics)
    assert float(state) == 2 * (4 + 4 + 6 + 4 + 6)
    assert [line.split(" ")[0] for line in said] == [
        "compiling",
        "compiled",
        "compiling",
        "compiled",
    ]
    assert (
        "x [4, 2]" in said[1]
        and "x [6, 2]" in said[3]
        and "80" in said[1]
        and "compiled again in" in said[3]
    )
    assert tracker.totals()["compile"] > 0
    assert [step.flops({"x": jnp.ones((size, 2))}) for size in (4, 6)] == [80, 120]


def test_numbers_come_in_order():
    step, _, _ = make()
    state, _ = step(jnp.float32(0), {}, {"x": jnp.ones((4, 2))})
    _, second = step(state, {}, {"x": jnp.ones((4, 2))})
    with pytest.raises(ValueError, match="in the order"):
        step.wait(second)


@pytest.mark.parametrize(("ready", "waited"), [(True, 1.0), (False, 0.0)])
def test_a_wait_behind_a_running_step_is_no_wait(monkeypatch, ready, waited):
    monkeypatch.setattr(compiled_step, "_ready", lambda metrics: ready)
    step, tracker, _ = make()
    state, _ = step(jnp.float32(0), {}, {"x": jnp.ones((4, 2))})
    before = tracker.totals()
    with tracker.time("data"):
        pass
    step(state, {}, {"x": jnp.ones((4, 2))})
    after = tracker.totals()
    assert after["data"] - before["data"] == waited
    assert sum(after.values()) > sum(before.values())


def test_numbers_are_looked_at_one_step_late(tmp_path, monkeypatch):
    events = []

    class Watched(CompiledStep):
        def __call__(self, state, frozen, batch):
            events.append("start")
            return super().__call__(state, frozen, batch)

        def wait(self, metrics):
            events.append("numbers")
            return super().wait(metrics)

    monkeypatch.setattr(loop, "CompiledStep", Watched)
    loop.train(tiny_config(steps=5, eval_every=0, save_every=100), TinyTask(), tmp_path)
    assert events == [
        "start",
        "start",
        "numbers",
        "start",
        "numbers",
        "start",
        "numbers",
        "start",
        "numbers",
        "numbers",
    ]


def test_a_profile_of_the_updates_asked_for(tmp_path, capsys):
    loop.train(tiny_config(steps=4, eval_every=0, profile=(2, 2)), TinyTask(), tmp_path)
    assert "profile of updates 2 to 3 is in" in capsys.readouterr().err
    names = [p.name for p in (tmp_path / "profile").rglob("*") if p.is_file()]
    assert any(name.endswith(".xplane.pb") for name in names) and any(
        name.endswith(".trace.json.gz") for name in names
    )


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
