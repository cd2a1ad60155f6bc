"""What a recipe costs: chip-hours and money for each stage, from plans of its steps.

    chip-hours = updates x seconds of a step x chips / goodput

Updates: `training.epochs.planned_steps`, from hours of speech, epochs and the size of a batch.

A step lies between the bounds of its plan (`roofline`), goodput between those of `GOODPUT`: so the
cost is a range, and its ends are not equally likely: steps that were measured elsewhere lie nearer the
longer one (docs/planning.md).
"""

import dataclasses
import datetime
import json
import math
from importlib import resources
from typing import Any

from mdmspeech import remote
from mdmspeech.errors import UserError
from mdmspeech.planning.plan import Plan

# Share of a slice's time that goes into steps, the rest into starting, compiling, saving, evaluating,
# waiting for data, and what a failure throws away: a careful long run, and one that is interrupted.
GOODPUT = (0.97, 0.85)
PRICES = "tpu_prices.json"


@dataclasses.dataclass(frozen=True)
class StageCost:
    """Attributes:
    name: of the stage. plan: of its step, on the slice it is for. hours, epochs: of its data.
    steps: of training. days, chip_hours, money: (least, most).
    """

    name: str
    plan: Plan
    hours: float
    epochs: float
    steps: int
    days: tuple[float, float]
    chip_hours: tuple[float, float]
    money: tuple[float, float]


def stage_cost(
    name: str, plan: Plan, hours: float, epochs: float, steps: int, price: float
) -> StageCost:
    """Args:
      plan: of one step, which must have been compiled. hours, epochs: of speech, and how often.
      steps: updates that these are. price: of a chip-hour.

    Raises:
      UserError: the step does not fit.
    """
    if plan.roofline is None:
        raise UserError(
            f"{plan.name} does not fit on {plan.slice_name}: {'; '.join(plan.advice)}; name another "
            "--slice"
        )
    least = steps * plan.roofline.seconds_low / GOODPUT[0]
    most = steps * plan.roofline.seconds_high / GOODPUT[1]
    days, chip_hours = ((least / per, most / per) for per in (86_400, 3600 / plan.chips))
    money = (price * chip_hours[0], price * chip_hours[1])
    return StageCost(name, plan, hours, epochs, steps, days, chip_hours, money)


@dataclasses.dataclass(frozen=True)
class Prices:
    """Money for an hour of one chip, by the name of the chip. date: of the list. source: where it
    is from. currency: "USD".
    """

    chip_hour: dict[str, float]
    currency: str
    date: str
    source: str

    def of(self, chip: str) -> float:
        """UserError: the list has no such chip."""
        if chip not in self.chip_hour:
            raise UserError(
                f"the price list ({self.source}) has no {chip}, only {', '.join(self.chip_hour)}: "
                "give one of your own with --prices FILE"
            )
        return self.chip_hour[chip]


def read_prices(path: str = "") -> Prices:
    """A list of one's own, or the shipped one: {"date": "2026-01-31", "source": "...", "currency":
    "USD", "chip_hour": {"v5e": 1.2}}.

    Raises:
      UserError: not there, or not such a list.
    """
    shipped = resources.files("mdmspeech") / "assets" / PRICES
    found: Any = remote.read_json(path) if path else json.loads(shipped.read_text())
    try:
        prices = {str(chip): float(price) for chip, price in found["chip_hour"].items()}
        datetime.date.fromisoformat(found["date"])
        if not prices or any(not 0 < price < math.inf for price in prices.values()):
            raise ValueError("prices must be above 0")
        return Prices(prices, str(found["currency"]), found["date"], str(found["source"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is no price list ({type(error).__name__}: {error}); write "
            '{"date": "2026-01-31", "source": "...", "currency": "USD", "chip_hour": {"v5e": 1.2}}'
        ) from error


def table(costs: list[StageCost], prices: Prices) -> str:
    """Markdown: a row a stage, and their sum."""
    head = (
        "stage", "slice", "mesh", "rows", "hours x epochs", "steps", "step", "MFU", "days", "chip-hours",
        prices.currency,
    )  # fmt: skip
    rows = [head, ("---",) * len(head)]
    for cost in costs:
        r, plan = cost.plan.roofline, cost.plan
        assert r is not None
        rows.append((
            cost.name, plan.slice_name, "/".join(map(str, plan.mesh.values())), f"{plan.rows}",
            f"{cost.hours:,.0f} x {cost.epochs:g}", f"{cost.steps:,}",
            f"{r.seconds_low:.2f} - {r.seconds_high:.2f} s", f"{r.mfu_low:.0%} - {r.mfu:.0%}",
            _range(cost.days, 1), _range(cost.chip_hours), _range(cost.money),
        ))  # fmt: skip
    sums = [
        tuple(sum(getattr(cost, field)[end] for cost in costs) for end in (0, 1))
        for field in ("days", "chip_hours", "money")
    ]
    rows.append(("all", *[""] * 7, _range(sums[0], 1), _range(sums[1]), _range(sums[2])))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _range(ends: tuple[float, float], digits: int = 0) -> str:
    return f"{ends[0]:,.{digits}f} - {ends[1]:,.{digits}f}"
