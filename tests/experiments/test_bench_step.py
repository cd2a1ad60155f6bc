"""The benchmark of a step runs, and compares the two precisions of products."""

import re

import pytest

from experiments import bench_step


@pytest.mark.usefixtures("quick_compilation")
def test_it_times_a_step_in_both_precisions(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        bench_step, "matmul_rate", lambda dtype, precision: asked.append((dtype, precision)) or 1e9
    )
    small = "--width 64 --layers 1 --batch 2 --length 32 --steps 3 --precision bfloat16"
    monkeypatch.setattr("sys.argv", ["bench_step", *small.split()])
    bench_step.main()
    told = capsys.readouterr().out
    assert "float32, bfloat16 precision of products" in told and "median of 3 pairs" in told
    assert re.search(r"default precision in turn: \d+\.\d+ s a step, \d+\.\d+ times as long", told)
    assert asked == [("float32", "bfloat16")] * 3


def test_the_rate_is_of_the_products_that_are_asked_for():
    rate = bench_step.matmul_rate("float32", "bfloat16", sizes=(64,))
    assert 0 < rate < 1e15 and bench_step.matmul_rate("float32", sizes=(64,)) > 0
