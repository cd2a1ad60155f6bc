"""Chip-hours and money, by hand."""

import dataclasses
import json

import pytest

from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.planning import configs, cost
from mdmspeech.planning.plan import Plan
from mdmspeech.planning.roofline import Roofline

ROOFLINE = Roofline(
    compute=1.0, hbm=0.5, ici=0.1, dcn=0.0, limit="compute", exposed=0.0, seconds_low=1.0,
    seconds_high=2.0, mfu=0.9, mfu_low=0.45, rate=1.0, rate_low=0.5,
)  # fmt: skip
PLAN = Plan(
    name="talker_8b", what="train", topology="v5e:8x8", slice_name="v5e-64", chips=64,
    mesh=dict(data=8, fsdp=8, tensor=1), rows=512, unit="tokens", units=512 * 1024, memory={}, needed=1,
    available=2, compiled=True, fits=True, model_flops=1.0, flops=1.0, roofline=ROOFLINE,
)  # fmt: skip


def test_by_hand():
    found = cost.stage_cost("talker", PLAN, 6000, 8, 8495, price=1.5)
    assert found.chip_hours[0] == pytest.approx(8495 * 1.0 / 0.97 * 64 / 3600)
    assert found.chip_hours[1] == pytest.approx(8495 * 2.0 / 0.85 * 64 / 3600)
    assert found.days[0] * 24 * 64 == pytest.approx(found.chip_hours[0])
    assert found.money == tuple(1.5 * n for n in found.chip_hours)


def test_what_does_not_fit_costs_nothing_but_a_word():
    broken = dataclasses.replace(PLAN, roofline=None, fits=False, advice=("more fsdp",))
    with pytest.raises(UserError, match=r"does not fit on v5e-64: more fsdp; name another --slice"):
        cost.stage_cost("talker", broken, 1, 1, 1, 1)


def test_the_table_adds_up():
    prices = cost.read_prices()
    rows = [cost.stage_cost(n, PLAN, 6000, 8, 8495, 1.0) for n in ("talker", "talker_isd")]
    lines = cost.table(rows, prices).splitlines()
    assert len(lines) == 5 and lines[0].endswith("| USD |")
    assert "| 8,495 |" in lines[2] and "45% - 90%" in lines[2]
    one, both = (
        [float(n) for n in line.split("|")[-3].replace(",", "").split(" - ")]
        for line in (lines[2], lines[4])
    )
    assert both == pytest.approx([2 * n for n in one], abs=1)


def test_the_shipped_prices():
    prices = cost.read_prices()
    assert set(prices.chip_hour) == {"v4", "v5e", "v5p", "v6e"} and prices.currency == "USD"
    assert all(0.1 < price < 20 for price in prices.chip_hour.values())
    assert "cloud.google.com/tpu/pricing" in prices.source
    with pytest.raises(UserError, match=r"has no h100, only v4, .*--prices FILE"):
        prices.of("h100")


LIST = {"date": "2026-01-31", "source": "mine", "currency": "EUR", "chip_hour": {"v5e": 0.5}}


def test_a_list_of_ones_own(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(LIST))
    assert cost.read_prices(str(file)).of("v5e") == 0.5
    with pytest.raises(UserError, match="no such file"):
        cost.read_prices(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"chip_hour": {}},
        {"chip_hour": {"v5e": -1}},
        {"chip_hour": {"v5e": "cheap"}},
        {"chip_hour": [1]},
        {"date": "yesterday"},
        {"date": None},
    ],
)
def test_lists_that_are_none(tmp_path, change):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(LIST | change))
    with pytest.raises(UserError, match=r"mine\.json is no price list .*; write \{"):
        cost.read_prices(str(file))


# ---- The verb -----------------------------------------------------------------------------------


@pytest.fixture
def planned(monkeypatch):
    """The verb without a compiler: every step takes what PLAN says. What was to be planned."""
    asked = []

    def plan(self, topology, sizes, rows=0, quick=False):
        asked.append((self.name, topology.name, sizes, self.config.data.batch, quick))
        return dataclasses.replace(PLAN, name=self.name, rows=self.config.data.batch)

    monkeypatch.setattr(configs.Planned, "plan", plan)
    return asked


def numbers(line, column):
    return [float(n) for n in line.split("|")[column].replace(",", "").split(" - ")]


@pytest.mark.slow
def test_the_papers_recipe(planned, tmp_path, capsys):
    argv = ["cost", "--size", "8b", "--chip", "v5e", "--out", str(tmp_path / "cost")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert [(name, mesh["fsdp"]) for name, _, mesh, _, _ in planned] == [
        ("thinker_8b", 4),
        ("talker_8b", 8),
        ("talker_isd_8b", 8),
    ]
    rows = [line for line in out.splitlines() if line.startswith("| t")]
    assert "| 6,000 x 8 |" in rows[1] and "| 6,000 x 4 |" in rows[2] and " x 1 |" in rows[0]
    # 6,000 h x 8 in rows of 40.96 s, 97 % full, 512 a batch
    assert numbers(rows[1], 6) == [8495]
    assert (
        "nothing was measured" in out and (tmp_path / "cost.md").read_text().count("| all |") == 1
    )
    assert main([*argv, "--hours", "12000"]) == 0, "and the plans are kept"
    assert len(planned) == 3
    twice = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| t")]
    assert numbers(twice[1], 6) == [16990] and "| 2,000 x 1 |" in twice[0]


def test_another_slice_and_another_price(planned, tmp_path, capsys):
    (tmp_path / "p.json").write_text(json.dumps(LIST | {"chip_hour": {"v5p": 7.0}}))
    argv = ["cost", "--slice", "v5p-128", "--prices", str(tmp_path / "p.json"), "--quick"]
    assert main([*argv, "--out", str(tmp_path / "c")]) == 0
    assert {(topology, quick) for _, topology, _, _, quick in planned} == {("v5p:4x4x4", True)}
    assert "7 EUR a chip-hour (mine; 2026-01-31)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--hours", "-3"], "--hours -3: give hours of speech"),
        (["--chip", "h100"], "--chip h100: give one of v5e, v5p, v6e, or a --slice"),
        (["--slice", "v5e-7"], "there is no slice"),
        (["--slice", "v4-64"], "how this stage lies on v4 was not planned"),
        (["--prices", "/none.json"], "no such file"),
    ],
)
def test_what_cannot_be_told_is_said_before_anything_is_planned(planned, options, told, capsys):
    assert main(["cost", *options]) == 2
    assert told in capsys.readouterr().err and planned == []
