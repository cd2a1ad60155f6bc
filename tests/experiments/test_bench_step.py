"""The benchmark of a step runs, and compares the two precisions of products."""

import re

import jax
import jax.numpy as jnp
import pytest

from experiments import bench_step
from mdmspeech.nn.matmul_precision import matmul
from mdmspeech.training import mfu


@pytest.mark.usefixtures("quick_compilation")
def test_it_times_a_step_in_both_precisions(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench_step, "matmul_rate", lambda *given: asked.append(given[:2]) or 1e9)
    small = "--width 64 --layers 1 --batch 2 --length 32 --steps 3 --precision bfloat16"
    monkeypatch.setattr("sys.argv", ["bench_step", *small.split()])
    bench_step.main()
    told = capsys.readouterr().out
    assert "float32, bfloat16 precision of products" in told and "median of 3 pairs" in told
    assert re.search(r"default precision in turn: \d+\.\d+ s a step, \d+\.\d+ times as long", told)
    assert asked == [("float32", "bfloat16")] * 3


def test_the_rate_is_of_the_products_that_are_asked_for(monkeypatch):
    """Of each call, though JAX keeps what it has traced."""
    traced = []

    def product(x, y):
        traced.append(matmul_precision_in_force())
        return matmul(x, y)

    monkeypatch.setattr(mfu, "matmul", product)
    for precision in ("bfloat16", "default", "bfloat16"):
        assert mfu.matmul_rate("float32", precision, sizes=(8,)) > 0
    assert traced == ["bfloat16", "default", "bfloat16"]


def matmul_precision_in_force():
    """As a product of thirds shows."""
    with jax.ensure_compile_time_eval():
        third = matmul(jnp.full((1, 1), 1 / 3), jnp.ones((1, 1)))
        return "default" if abs(float(third[0, 0]) - 1 / 3) < 1e-6 else "bfloat16"
