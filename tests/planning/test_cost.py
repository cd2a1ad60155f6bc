"""Chip-hours and money, by hand."""

import dataclasses
import json
import math

import pytest

from mdmspeech.errors import UserError
from mdmspeech.planning import cost
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
    """6,000 hours, 8 times, in rows of 40.96 s of which 97 % are full, 512 at a time."""
    found = cost.stage_cost("talker", PLAN, 6000, 8, 40.96, price=1.5)
    steps = math.ceil(6000 * 3600 * 8 / (40.96 * 0.97) / 512)
    assert found.steps == steps == 8495
    assert found.chip_hours[0] == pytest.approx(8495 * 1.0 / 0.97 * 64 / 3600)
    assert found.chip_hours[1] == pytest.approx(8495 * 2.0 / 0.85 * 64 / 3600)
    assert found.days[0] * 24 * 64 == pytest.approx(found.chip_hours[0])
    assert found.money == tuple(1.5 * n for n in found.chip_hours)


def test_twice_the_speech_costs_twice_and_twice_the_rows_the_same():
    once = cost.stage_cost("talker", PLAN, 1e6, 1, 40.96, 1.0)
    twice = cost.stage_cost("talker", PLAN, 2e6, 1, 40.96, 1.0)
    assert twice.chip_hours[1] == pytest.approx(2 * once.chip_hours[1], rel=1e-5)
    slower = dataclasses.replace(ROOFLINE, seconds_low=2.0, seconds_high=4.0)
    double = dataclasses.replace(PLAN, rows=1024, roofline=slower)
    wide = cost.stage_cost("talker", double, 1e6, 1, 40.96, 1.0)
    assert wide.chip_hours[0] == pytest.approx(once.chip_hours[0], rel=1e-4)


def test_what_does_not_fit_costs_nothing_but_a_word():
    broken = dataclasses.replace(PLAN, roofline=None, fits=False, advice=("more fsdp",))
    with pytest.raises(UserError, match=r"does not fit on v5e-64: more fsdp; name another --slice"):
        cost.stage_cost("talker", broken, 1, 1, 1, 1)


def test_the_table_adds_up():
    prices = cost.read_prices()
    rows = [cost.stage_cost(n, PLAN, 6000, 8, 40.96, 1.0) for n in ("talker", "talker_isd")]
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
