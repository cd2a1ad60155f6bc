"""What is seen and measured of a run: nothing before it starts, then lines, rates, MFU and scores,
in the files and on the terminal.
"""

import json
import re
from types import SimpleNamespace

import pytest
from etils import epath

from mdmspeech.training import observer as observers
from mdmspeech.training.config import base
from mdmspeech.training.goodput import read_goodput
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.observer import RunObserver

PEAK = 20.0  # FLOP/s of a device


def make(workdir, **settings):
    config = base().train
    config.update(dict(steps=10, log_every=2, peak_flops=PEAK) | settings)
    mesh = make_mesh()
    return RunObserver(epath.Path(workdir), config, "a title", "tokens", mesh), mesh


def values(loss):
    return {"loss": loss, "grad_norm": 1.0, "lr": 0.5}


def files(workdir):
    return {path.name for path in workdir.iterdir()}


def test_before_its_start_it_writes_nothing_and_can_speak(tmp_path, capsys):
    observer, _ = make(tmp_path)
    observer.say("a checkpoint cannot be read")
    with observer.goodput.time("data"):
        pass
    observer.close()
    assert not files(tmp_path) and capsys.readouterr().err == "a checkpoint cannot be read\n"


def test_a_line_has_means_rates_and_mfu_of_the_updates_since_the_last(tmp_path, capsys):
    observer, mesh = make(tmp_path)
    observer.start(0)
    for step, loss in ((1, 8.0), (2, 4.0), (3, 2.0), (4, 1.0)):
        with observer.trace(step):
            pass
        observer.step(step, values(loss), units=100, flops=80)
    observer.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["train/loss"], row["train/lr"]) for row in rows] == [
        (1, 8.0, 0.5),
        (2, 4.0, 0.5),
        (4, 1.5, 0.5),
    ]
    for row, updates in zip(rows, (1, 1, 2), strict=True):
        since_s = row["train/s_per_step"] * updates
        assert row["train/tokens_per_s"] == pytest.approx(100 * updates / since_s)
        assert row["train/mfu"] == pytest.approx(80 * updates / since_s / (PEAK * mesh.size))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "step 1/10",
        "step 2/10",
        "step 4/10",
    ] and all("lr" not in line for line in lines)
    assert read_goodput(tmp_path / "ledger.json")["starts"][0]["last"] == 4


def test_after_a_restart_the_first_line_is_shown_and_not_written(tmp_path, capsys):
    observer, _ = make(tmp_path, log_every=4)
    observer.start(5, 60.0, [values(6.0)])
    observer.step(6, values(2.0), units=1, flops=1)
    assert observer.window == [values(6.0), values(2.0)] and not read_metrics(
        tmp_path / "metrics.jsonl"
    )
    assert re.match(
        r"step 6/10  grad_norm 1  loss 4 |step 6/10  loss 4  grad_norm 1 ", capsys.readouterr().err
    )
    observer.step(7, values(2.0), units=1, flops=1)
    observer.step(8, values(2.0), units=1, flops=1)
    assert [row["train/loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [
        3.0
    ] and not observer.window
    assert observer.seconds() >= 60.0
    observer.close()


def test_without_a_known_peak_there_is_no_mfu(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(observers, "peak_flops", lambda *given: asked.append(given[1:]) or 0.0)
    observer, _ = make(tmp_path, matmul_precision="bfloat16")
    observer.start(0)
    assert asked == [(PEAK, "bfloat16")]
    observer.step(1, values(1.0), units=1, flops=80)
    observer.close()
    assert "train/mfu" not in read_metrics(tmp_path / "metrics.jsonl")[0]


@pytest.mark.pictures
def test_evaluations_are_written_and_are_no_training_time(tmp_path, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(observers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    observer, _ = make(tmp_path)
    observer.start(0)
    now[0] += 5
    with observer.evaluation(4) as scores:
        now[0] += 70
        scores["held_out/token"] = 0.25
    with observer.saving(4):
        now[0] += 2
    assert observer.seconds() == 7.0
    assert "eval at step 4: held_out/token 0.25  (1:10)" in capsys.readouterr().err
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 4, "eval/held_out/token": 0.25}]
    assert files(tmp_path) >= {"curves.png", "ledger.png"} and list(
        read_goodput(tmp_path / "ledger.json")["saved"]
    ) == ["4"]
    observer.finish("tiny: done at step 4/10")
    assert capsys.readouterr().err.splitlines()[-1] == "tiny: done at step 4/10 after 0:07"
    observer.close()


@pytest.mark.pictures
def test_a_save_or_an_evaluation_that_fails_is_none(tmp_path):
    observer, _ = make(tmp_path)
    observer.start(0)
    with pytest.raises(OSError, match="full"), observer.saving(2):
        raise OSError("the disk is full")
    with pytest.raises(ValueError, match="no sound"), observer.evaluation(2):
        raise ValueError("no sound")
    observer.close()
    stored = json.loads((tmp_path / "ledger.json").read_text())
    assert (
        not stored["saved"]
        and not read_metrics(tmp_path / "metrics.jsonl")
        and "curves.png" not in files(tmp_path)
    )
