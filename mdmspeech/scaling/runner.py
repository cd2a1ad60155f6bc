"""Runs a ladder, and goes on where it was stopped: every finished rung has its line, every run its
checkpoints.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.files import replace_folder, write_text
from mdmspeech.scaling.ladder import RESULTS, Rung, results_of
from mdmspeech.training import loop
from mdmspeech.training.checkpoint import absolute, check_config
from mdmspeech.training.task import Task

MakeTask = Callable[[ConfigDict, Path], Task]  # (config, workdir)
Measure = Callable[[ConfigDict, Path], dict[str, Any]]  # (config, workdir) -> more of its row


def run_ladder(
    rungs: Sequence[Rung],
    workdir: Path,
    make_task: MakeTask,
    measure: Measure,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Trains and measures what is not done yet; the rows of all.

    Raises:
      UserError: what is there is of other settings, or lies behind a smaller budget that is asked for
        now.
      SystemExit: code 0, after a signal; as `loop.train`.
    """
    _check_done(rungs, workdir)
    for number, rung in enumerate(rungs, 1):
        if _row(rung, workdir):
            continue
        say(f"rung {number} of {len(rungs)}: {rung.name}, {rung.steps} updates")
        folder = workdir / rung.name
        branch_off(rung, workdir, make_task)
        check_config(absolute(folder), rung.config.to_dict())  # it may have been trained elsewhere
        if newest(folder) != rung.steps:
            loop.train(rung.config, make_task(rung.config, folder), folder)
        _finish(rung, workdir, measure)
    return [row for rung in rungs if (row := _row(rung, workdir))]


def branch_off(rung: Rung, workdir: Path, make_task: MakeTask) -> None:
    """Makes the folder of a rung, holding what the stable run of its size had after `stable_steps`
    updates; trains that run so far first. Nothing if it is there.
    """
    folder, stable = workdir / rung.name, workdir / rung.size / "stable"
    if (folder / "checkpoints").is_dir():
        return
    step, have = rung.stable_steps, newest(stable)
    if have is not None and have > step:
        raise UserError(
            f"{stable} is at update {have} and budget {rung.budget:g} branches off at {step}: the "
            "stable run of a size cannot go back; give a larger budget, or another --workdir"
        )
    if have != step:
        config = rung.stable_config()
        loop.train(config, make_task(config, stable), stable)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    shutil.copytree(stable / "checkpoints" / str(step), new / "checkpoints" / str(step))
    shutil.copy(stable / "metrics.jsonl", new / "metrics.jsonl")
    replace_folder(new, folder, folder.with_name(folder.name + ".old"))


def newest(folder: Path) -> int | None:
    """Updates of a run's newest checkpoint; None if it has none."""
    checkpoints = folder / "checkpoints"
    steps = [int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()]
    return max(steps, default=None)


def _finish(rung: Rung, workdir: Path, measure: Measure) -> None:
    """Measures a trained rung and writes its line."""
    row = {
        "rung": rung.name,
        "width": int(rung.config.talker.dim),
        "layers": int(rung.config.talker.num_layers),
        "budget": rung.budget,
        "steps": rung.steps,
        **measure(rung.config, workdir / rung.name),
        "settings": rung.settings(),
    }
    rows = [*results_of(workdir), row]
    write_text(workdir / RESULTS, "".join(json.dumps(r) + "\n" for r in rows))


def _row(rung: Rung, workdir: Path) -> dict[str, Any] | None:
    return next((row for row in results_of(workdir) if row["rung"] == rung.name), None)


def _check_done(rungs: Sequence[Rung], workdir: Path) -> None:
    for rung in rungs:
        row = _row(rung, workdir)
        if row and row["settings"] != rung.settings():
            raise UserError(
                f"{workdir / RESULTS} has {rung.name} of other settings: give those it was made "
                "with, or another --workdir"
            )
