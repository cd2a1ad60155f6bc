"""Rows of a ladder: what is no row is named; a fit, its page and its picture say what the rows say."""

import json

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.scaling import report
from mdmspeech.scaling.law import Law
from mdmspeech.scaling.results import hold_out, read_rows, runs_of

LAW = Law(2.0, 60.0, 0.35, 90.0, 0.3)
MADE = dict(date="2026-11-28 20:00 UTC", commit="a" * 40, clean=True, command="x", cpu="c", cores=2,
            accelerator="none", versions={"jax": "1"}, sizes={"runs": 1}, seeds={})  # fmt: skip


def row(size, tokens, loss, **more):
    return {
        "rung": f"w{size:g}/{tokens:g}",
        "width": 64,
        "layers": 4,
        "budget": tokens,
        "flops": 6 * size * tokens,
        "parameters": {"non_embedding": int(size), "total": int(size) + 900_000},
        "tokens": {"seen": int(tokens), "unique": 1_000_000, "passes": tokens / 1e6},
        "nats": {"0.5": round(loss, 6), "mean": round(loss + 0.5, 6)},
        "made": MADE,
    } | more


def ladder(sizes=4, budgets=3, scatter=0.0, bend=0.0):
    rng, rows = np.random.default_rng(0), []
    for number, size in enumerate(np.geomspace(3e5, 8e6, sizes)):
        for tokens in np.geomspace(5e5, 8e6, budgets):
            loss = LAW.loss(size, tokens) * np.exp(scatter * rng.normal())
            rows.append(row(size, tokens, loss + bend * (number == sizes - 1)))
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_rows_come_back(tmp_path):
    rows = ladder()
    assert read_rows(write(tmp_path / "l.jsonl", rows)) == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("{\n", "line 1 is no JSON"),
        ("[]\n", "line 1 has no 'rung'"),
        ("3\n", "line 1 has no 'rung'"),
        ('{"rung": "a"}\n', "line 1 has no 'width'"),
        ("[" * 100_000, "line 1 is no JSON"),
        ("\xff\n", "line 1 is no JSON"),
    ],
)
def test_lines_that_are_no_rows(tmp_path, text, told):
    (tmp_path / "l.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=told):
        read_rows(tmp_path / "l.jsonl")


def test_a_rung_twice_and_no_file(tmp_path):
    rows = ladder()
    with pytest.raises(UserError, match=r"line 13: .* is there twice"):
        read_rows(write(tmp_path / "l.jsonl", [*rows, rows[0]]))
    with pytest.raises(UserError, match="no results"):
        read_rows(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nats": {"0.5": None}}, "nats.0.5 is None"),
        ({"nats": {"0.5": float("nan")}}, "nats.0.5 is nan"),
        ({"nats": {"0.5": True}}, "nats.0.5 is True"),
        ({"nats": {"mean": 3}}, "has no loss '0.5': give --target mean"),
        ({"parameters": {"total": 3}}, "parameters.non_embedding is None"),
        ({"parameters": {"non_embedding": 0}}, "parameters.non_embedding is 0"),
        ({"tokens": {"seen": -4}}, "tokens.seen is -4"),
        ({"flops": "many"}, "flops is many"),
    ],
)
def test_numbers_that_are_none(change, told):
    with pytest.raises(UserError, match=told):
        runs_of([*ladder(), row(1e6, 1e6, 3.0) | change], "0.5")


def test_target_and_count_are_what_is_fitted():
    one, other = runs_of(ladder(), "0.5"), runs_of(ladder(), "mean", "total")
    assert other[0].loss == pytest.approx(one[0].loss + 0.5)
    assert other[0].size == one[0].size + 900_000


def test_the_largest_size_is_predicted_from_the_others_alone():
    held = hold_out(runs_of(ladder(scatter=0.002), "0.5"), draws=60)
    assert len(held) == 3 and all(one["inside"] for one in held)
    assert all(one["low"] < one["predicted"] < one["high"] for one in held)
    missed = hold_out(runs_of(ladder(scatter=0.002, bend=0.8), "0.5"), draws=60)
    assert [one["predicted"] for one in missed] == [one["predicted"] for one in held]
    assert not any(one["inside"] for one in missed)


def test_three_sizes_are_fitted_and_not_held_out(tmp_path):
    result = report.summary(ladder(sizes=3), "0.5", "non_embedding", draws=20) | {"made": MADE}
    assert result["held_out"] == [] and "3 sizes or more, here are 2" in result["not_held_out"]
    assert "No size was held out: without the largest size" in report.page(result, "p.png")
    with pytest.raises(UserError, match="3 sizes or more, here are 2"):
        report.summary(ladder(sizes=2, budgets=5), "0.5", "non_embedding", draws=2)


@pytest.mark.slow
def test_the_page_says_what_was_measured(tmp_path):
    rows = ladder(scatter=0.002)
    rows[0]["wer"] = {"1": {"wer": 81.4}, "4": {"wer": 60.2}}
    result = report.summary(rows, "0.5", "non_embedding", [(5e8, 2e10)], draws=100)
    result = json.loads(json.dumps(result | {"made": MADE}))  # as it is stored
    page = report.page(result, "ladder.png")
    assert page.count("| w") == 12 + 3 and "S=1: 81, S=4: 60" in page and "commit aaaa" in page
    assert "3 of 3 inside" in page and f"alpha = {result['law']['alpha']:.4g} (" in page
    assert "50% of them hidden" in page and "| 5e+08 | 2e+10 |" in page
    (point,) = result["predicted"]
    assert point["low"] < LAW.loss(5e8, 2e10) < point["high"]
    assert result["size_exponent"] == pytest.approx(0.3 / 0.65, abs=0.1)
    assert result["size_exponent_95"][0] < result["size_exponent"] < result["size_exponent_95"][1]
    report.draw(result, tmp_path / "ladder.png")
    assert (tmp_path / "ladder.png").read_bytes()[:4] == b"\x89PNG"
