"""The rungs of a ladder: which sizes are trained on how many tokens, and where each lies.

RUNS/w128-l4/stable/     one run of a size at a constant rate, through all budgets
RUNS/w128-l4/1e+06/      a budget: a copy of the stable run's checkpoint, and the decay from it
RUNS/ladder.jsonl        a line for every finished rung
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.training.config import VOLATILE
from mdmspeech.training.optim import decay_steps

RESULTS = "ladder.jsonl"


@dataclasses.dataclass(frozen=True)
class Rung:
    """One size trained on one budget.

    Attributes:
      budget: positions that it reads. config: of the whole run, "wsd" with a decay at its end.
    """

    budget: float
    config: ConfigDict

    @property
    def size(self) -> str:
        """Name of its size."""
        return f"w{self.config.talker.dim}-l{self.config.talker.num_layers}"

    @property
    def name(self) -> str:
        """Its folder below that of the ladder."""
        return f"{self.size}/{self.budget:g}"

    @property
    def steps(self) -> int:
        """Updates in all."""
        return int(self.config.train.steps)

    @property
    def stable_steps(self) -> int:
        """Updates before the decay, which all budgets of a size share."""
        return self.steps - decay_steps(self.config.optim.decay_share, self.steps)

    def stable_config(self) -> ConfigDict:
        """Of the run that all budgets of a size branch off, as far as this one needs it."""
        config = copy.deepcopy(self.config)
        config.optim.decay_share = 0.0
        config.train.steps = self.stable_steps
        return config

    def settings(self) -> str:
        """Digest of what decides the result, which a finished row is known by."""
        flat = json.loads(json.dumps(self.config.to_dict(), default=str))
        for name in VOLATILE:
            if name not in ("train.steps", "optim.decay_share"):
                _drop(flat, name.split("."))
        return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:16]


def rungs(
    config_of: Callable[[int, int, float], ConfigDict],
    widths: Sequence[int],
    layers: Sequence[int],
    budgets: Sequence[float],
) -> list[Rung]:
    """All of them, size by size, small budgets first.

    Args:
      config_of: (width, layers, tokens) -> config.

    Raises:
      UserError: none, one twice, a config of another schedule, or two budgets of as many updates.
    """
    for what, values in {"--widths": widths, "--layers": layers, "--budgets": budgets}.items():
        if not values or len(set(values)) < len(values):
            raise UserError(f"{what}: give numbers with commas between them, each once")
    found = []
    for depth in layers:
        for width in widths:
            before = None
            for budget in sorted(budgets):
                rung = Rung(budget, config_of(width, depth, budget))
                _check(rung, before)
                before = rung
                found.append(rung)
    return found


def _check(rung: Rung, smaller: Rung | None) -> None:
    optim, before = rung.config.optim, smaller.stable_steps if smaller else 0
    if optim.warmup_share or rung.config.train.epochs:
        raise UserError(
            f"{rung.name}: warm-up and length of a rung are numbers of updates, which budgets share: "
            "set optim.warmup_share and train.epochs to 0, and optim.warmup"
        )
    if smaller and smaller.config.data.to_dict() != rung.config.data.to_dict():
        raise UserError(
            f"{smaller.name} and {rung.name} have different data, and budgets of a size share one "
            "run: give unique=N instead of epochs=E, so that all read the same N tokens"
        )
    if optim.schedule != "wsd" or not 0 < optim.decay_share < 1:
        raise UserError(
            f"{rung.name}: a ladder needs optim.schedule wsd and a decay_share between 0 and 1, this "
            f"experiment has {optim.schedule} and {optim.decay_share:g}: from one run at a constant "
            "rate all budgets branch off"
        )
    if rung.stable_steps <= max(before, optim.warmup):
        raise UserError(
            f"--budgets {rung.budget:g}: {rung.stable_steps} updates before the decay are no more "
            f"than those of the budget before or of the warm-up ({max(before, optim.warmup)}): give "
            "more tokens or fewer rows an update (batch=)"
        )


def results_of(workdir: Path) -> list[dict]:
    """Rows of finished rungs; [] of a new ladder. UserError: a damaged file."""
    path = workdir / RESULTS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        assert all({"rung", "settings"} <= row.keys() for row in rows)
    except (ValueError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{path} is damaged: remove it, and what is trained is measured again"
        ) from error
    return rows


def _drop(tree: dict, path: list[str]) -> None:
    for name in path[:-1]:
        tree = tree.get(name, {})
    tree.pop(path[-1], None)
