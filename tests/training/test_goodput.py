"""The tracker: every second belongs to one part, crashes turn steps into work done again, and real
runs fill it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.training.goodput import (
    PARTS,
    GoodputTracker,
    goodput,
    plot_goodput,
    read_goodput,
    table,
    totals,
)
from mdmspeech.training.loop import train
from mdmspeech.training.metrics import read_metrics


class Clock:
    """Moves only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


def spend(tracker, clock, **seconds):
    for part, value in seconds.items():
        with tracker.time(part):
            clock.pass_(value)


def test_the_parts_add_up_and_a_part_inside_another_is_its_own():
    clock = Clock()
    tracker = GoodputTracker(clock=clock)
    clock.pass_(3)
    tracker.begin(0)
    with tracker.time("eval"):
        clock.pass_(1)
        spend(tracker, clock, save=2)
        clock.pass_(4)
    spend(tracker, clock, step=10, data=0.5)
    clock.pass_(0.25)
    seconds = tracker.totals()
    assert seconds == dict.fromkeys(PARTS, 0.0) | dict(
        init=3, eval=5, save=2, step=10, data=0.5, other=0.25
    )
    assert sum(seconds.values()) == clock.now - 100
    assert tracker.goodput() == 10 / 20.75


def test_an_error_inside_a_part_ends_it():
    clock = Clock()
    tracker = GoodputTracker(clock=clock)
    tracker.begin(0)
    with contextlib.suppress(StopIteration), tracker.time("data"):
        clock.pass_(1)
        next(iter(()))
    clock.pass_(2)
    assert tracker.totals()["data"] == 1 and tracker.totals()["other"] == 2


def test_waiting_behind_a_step_is_step():
    clock = Clock()
    tracker = GoodputTracker(clock=clock)
    tracker.begin(0)
    spend(tracker, clock, data=1)
    since = tracker.snapshot()
    spend(tracker, clock, data=2, eval=4)
    clock.pass_(8)
    tracker.count_as_step(since)
    assert {k: v for k, v in tracker.totals().items() if v} == dict(data=1, step=10, eval=4)


def test_windows():
    clock = Clock()
    tracker = GoodputTracker(clock=clock)
    tracker.begin(0)
    spend(tracker, clock, step=1)
    assert tracker.window()["step"] == 1
    spend(tracker, clock, step=2, data=3)
    assert tracker.window() == dict.fromkeys(PARTS, 0.0) | dict(step=2, data=3)


def test_what_a_window_has_told_is_not_taken_back_from_the_next():
    clock = Clock()
    tracker = GoodputTracker(clock=clock)
    tracker.begin(0)
    since = tracker.snapshot()
    clock.pass_(4)
    assert tracker.window()["other"] == 4
    spend(tracker, clock, data=2, step=1)
    tracker.count_as_step(since)
    assert tracker.window() == dict.fromkeys(PARTS, 0.0) | dict(step=3)
    assert tracker.totals()["step"] == 7


def crash_after(path, clock, begin, saves, lost):
    """A start from step `begin` that saves at `saves`, a second a step, and dies `lost` steps after
    the last of them.
    """
    tracker = GoodputTracker(path, clock)
    clock.pass_(0.5)
    tracker.begin(begin)
    for save in saves:
        spend(tracker, clock, step=save - begin)
        begin = save
        tracker.saved(save)
    spend(tracker, clock, step=lost)
    tracker.write()


def test_steps_lost_in_a_crash_are_done_again(tmp_path):
    path, clock = tmp_path / "ledger.json", Clock()
    crash_after(path, clock, 0, [10, 20], 7)
    crash_after(path, clock, 20, [], 3)  # dies before it saved anything
    crash_after(path, clock, 20, [30], 0)
    last = GoodputTracker(path, clock)
    last.begin(30)
    assert {k: v for k, v in last.totals().items() if v} == dict(init=1.5, step=30, redone=10)
    assert [row["seconds"]["redone"] for row in read_goodput(path)["starts"]] == [7, 3, 0, 0]
    # The newest checkpoints cannot be read: even older ones are gone back to.
    last = GoodputTracker(path, clock)
    last.begin(10)
    assert {k: v for k, v in last.totals().items() if v} == dict(init=1.5, step=10, redone=30)
    last = GoodputTracker(path, clock)
    last.begin(0)
    assert last.totals()["redone"] == 40 and last.goodput() == 0


def test_a_damaged_ledger_stops_nobody(tmp_path):
    path = tmp_path / "ledger.json"
    for text in ("", "[]", "{", '{"starts": [{"seconds": 3}]}', '{"starts": [{}]}'):
        path.write_text(text)
        assert not read_goodput(path).get("starts")
        GoodputTracker(path).begin(5)
        assert len(read_goodput(path)["starts"]) == 1


def test_the_table_and_the_picture(tmp_path):
    seconds = dict.fromkeys(PARTS, 0.0)
    starts = [
        dict(began=0.0, ended=10.0, first=0, last=5, seconds=seconds | dict(step=8.0, init=2.0)),
        dict(began=15.0, ended=25.0, first=5, last=9, seconds=seconds | dict(step=10.0)),
    ]
    lines = table(starts).splitlines()
    assert lines[0] == "wall time 20.0 s in 2 starts, goodput 90.0 %"
    assert lines[1].split() == ["step", "18.0", "s", "90.0", "%"] and lines[2].split() == [
        "init",
        "2.0",
        "s",
        "10.0",
        "%",
    ]
    assert lines[-1].strip() == "not running between the starts: 5.0 s" and len(lines) == 4
    assert plot_goodput(tmp_path) is None
    (tmp_path / "ledger.json").write_text(json.dumps({"starts": starts}))
    assert plot_goodput(tmp_path).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
@pytest.mark.pictures
def test_a_real_run_accounts_for_its_wall_time(tmp_path, capsys):
    train(tiny_config(), TinyTask(), tmp_path)
    train(tiny_config(steps=12), TinyTask(), tmp_path)
    starts = read_goodput(tmp_path / "ledger.json")["starts"]
    assert [(row["first"], row["last"]) for row in starts] == [(0, 8), (8, 12)]
    for row in starts:
        # Two clocks: the parts are monotonic time, began and ended are the time of day.
        assert sum(row["seconds"].values()) == pytest.approx(row["ended"] - row["began"], abs=0.3)
        assert all(row["seconds"][part] > 0 for part in ("init", "compile", "step", "eval", "save"))
        assert row["seconds"]["redone"] == 0
    said = capsys.readouterr().err
    assert "in 2 starts, goodput" in said and "compiled in " in said
    assert (tmp_path / "ledger.png").exists()
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in row]
    assert len(rows) == 12
    for row in rows:
        assert (
            0 <= row["train/data_wait"] <= 1
            and 0 <= row["train/host"] <= 1
            and row["train/mfu"] > 0
        )
    assert rows[-1]["train/goodput"] == pytest.approx(goodput(totals(starts)), abs=0.3)


_CHILD = """
import sys
sys.path.insert(0, {here!r})
from tiny import TinyTask, tiny_config
from mdmspeech.training.loop import train
train(tiny_config(steps=1000000, save_every=1000000, eval_every=0, log_every=1), TinyTask(), {workdir!r})
"""


@pytest.mark.slow
def test_a_killed_run_leaves_badput(tmp_path, monkeypatch):
    code = _CHILD.format(here=str(Path(__file__).parent), workdir=str(tmp_path))
    code = "import mdmspeech.training.goodput as l; l._WRITE_EVERY_S = 0.0\n" + code
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": root},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        starts = read_goodput(tmp_path / "ledger.json").get("starts", [])
        if starts and starts[0]["last"] >= 5:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    state = train(tiny_config(steps=3), TinyTask(), tmp_path)
    assert int(jax.device_get(state.step)) == 3
    first, second = read_goodput(tmp_path / "ledger.json")["starts"]
    assert first["seconds"]["step"] == 0 < first["seconds"]["redone"]
    assert second["seconds"]["step"] > 0 == second["seconds"]["redone"]
