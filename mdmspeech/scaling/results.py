"""Rows of finished rungs, as a file has them, made ready for a fit."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.scaling.law import Fit, fit

COUNTS = ("non_embedding", "total")  # ways to count N
_NEEDED = ("rung", "width", "layers", "budget", "flops", "parameters", "tokens", "nats")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a law sees of a rung. size: N; tokens: D, seen; compute: C, FLOPs; loss: nats."""

    name: str
    size: float
    tokens: float
    compute: float
    loss: float


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a ladder's results.

    Raises:
      UserError: no such file, a line that is none of a rung, or two of one rung.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(
            f"no results {path}: mdmspeech ladder run writes them, WORKDIR/ladder.jsonl"
        )
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(
        file.read_text(encoding="utf-8", errors="replace").splitlines(), 1
    ):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is no JSON: remove it") from error
        lacks = [n for n in _NEEDED if not isinstance(row, dict) or n not in row]
        if lacks:
            raise UserError(f"{path}, line {number} has no {lacks[0]!r}: it is no line of a ladder")
        if row["rung"] in {other["rung"] for other in rows}:
            raise UserError(f"{path}, line {number}: {row['rung']} is there twice; keep one")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} is empty: run the ladder first (mdmspeech ladder run)")
    return rows


def runs_of(
    rows: Sequence[Mapping[str, Any]], target: str = "mean", count: str = COUNTS[0]
) -> list[Run]:
    """What is fitted. target: a key of `nats`; count: of `parameters`.

    Raises:
      UserError: a row that lacks one of them, or has no positive number there.
    """
    found = []
    for row in rows:
        if target not in row["nats"]:
            raise UserError(
                f"{row['rung']} has no loss {target!r}: give --target {', '.join(row['nats'])}"
            )
        numbers = {
            f"parameters.{count}": row["parameters"].get(count),
            "tokens.seen": row["tokens"].get("seen"),
            "flops": row["flops"],
            f"nats.{target}": row["nats"][target],
        }
        for name, value in numbers.items():
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not (math.isfinite(value) and value > 0)
            ):
                raise UserError(
                    f"{row['rung']}: {name} is {value}, no number above 0: remove the line"
                )
        found.append(Run(row["rung"], *map(float, numbers.values())))
    return found


def fit_runs(runs: Sequence[Run], draws: int = 200) -> Fit:
    """The law through them; UserError as `law.fit`."""
    return fit([r.size for r in runs], [r.tokens for r in runs], [r.loss for r in runs], draws)


def hold_out(runs: Sequence[Run], draws: int = 200) -> list[dict[str, Any]]:
    """Runs of the largest size as a law of the smaller ones predicts them: rung, loss, predicted, low,
    high, inside (of the 95 % interval).

    Raises:
      UserError: what is left is too little for a law.
    """
    most = max(run.size for run in runs)
    small, large = ([r for r in runs if (r.size == most) == top] for top in (False, True))
    try:
        law = fit_runs(small, draws)
    except UserError as error:
        raise UserError(f"without the largest size: {error}") from error
    found = []
    for run in large:
        loss, low, high = law.predict(run.size, run.tokens)
        found.append(
            dict(rung=run.name, loss=run.loss, predicted=loss, low=low, high=high,
                 inside=low <= run.loss <= high)
        )  # fmt: skip
    return found
