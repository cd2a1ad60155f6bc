"""Runs a ladder, and goes on where it was stopped: every finished rung has its line, every run its
checkpoints.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mdmspeech.data.datasets import corpus
from mdmspeech.data.pipelines import random_source, some_tokens
from mdmspeech.errors import UserError
from mdmspeech.evaluation.provenance import provenance
from mdmspeech.files import replace_folder, write_text
from mdmspeech.scaling import measures
from mdmspeech.scaling.ladder import RESULTS, Rung, results_of
from mdmspeech.training import loop
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.task import Params, Task
from mdmspeech.training.warm_start import load_params

MakeTask = Callable[[ConfigDict, Path], Task]  # (config, workdir)
# (config, parameters) -> more of a row, such as word errors
Extra = Callable[[ConfigDict, Params], dict[str, Any]]


def run_ladder(
    rungs: Sequence[Rung],
    workdir: Path,
    make_task: MakeTask,
    root: Any = None,
    extra: Extra | None = None,
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
        if newest(folder) != rung.steps:
            loop.train(rung.config, make_task(rung.config, folder), folder)
        _finish(rung, workdir, make_task, root, extra)
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


def unique_tokens(config: ConfigDict, root: Any) -> int:
    """Tokens of all different records that a run may read."""
    data = config.data
    if tuple(data.parts) == ("random",):
        source: Any = random_source.RandomSpeech(
            seed=config.train.seed, symbols=config.talker.symbols
        )
    else:
        source = corpus.tokens(root, tuple(data.parts), "train")
    if data.unique:
        source = some_tokens.some(source, data.unique, config.train.seed)
    return int(source.counts("tokens").sum())


def _finish(rung: Rung, workdir: Path, make_task: MakeTask, root: Any, extra: Extra | None) -> None:
    """Measures a trained rung and writes its line."""
    folder, config = workdir / rung.name, rung.config
    task, params = make_task(config, folder), load_params(folder)
    seen = measures.tokens_seen(config, read_metrics(folder / "metrics.jsonl"), rung.steps)
    unique = unique_tokens(config, root)
    flops = measures.flops_of_step(task, config)
    nats = measures.fixed_mask_nats(config, params, lambda judged: make_task(judged, folder))
    row = {
        "rung": rung.name,
        "width": int(config.talker.dim),
        "layers": int(config.talker.num_layers),
        "budget": rung.budget,
        "steps": rung.steps,
        "flops": flops * rung.steps,
        "parameters": measures.parameters(task),
        "tokens": {"seen": seen, "unique": unique, "passes": round(seen / unique, 4)},
        "nats": {name: round(value, 5) for name, value in nats.items()},
        **(extra(config, params) if extra else {}),
        "settings": rung.settings(),
        "made": provenance(
            sizes={
                "updates": rung.steps,
                "tokens": seen,
                "held-out rows": measures.HELD_OUT_ROWS,
            },
            seeds={"weights and batches": int(config.train.seed)},
        ),
    }
    rows = [*results_of(workdir), row]
    write_text(workdir / RESULTS, "".join(json.dumps(r) + "\n" for r in rows))


def _row(rung: Rung, workdir: Path) -> dict[str, Any] | None:
    return next((row for row in results_of(workdir) if row["rung"] == rung.name), None)


def _check_done(rungs: Sequence[Rung], workdir: Path) -> None:
    if "://" in str(workdir):
        raise UserError(f"--workdir {workdir}: a ladder needs a folder on a disk; name one")
    for rung in rungs:
        row = _row(rung, workdir)
        if row and row["settings"] != rung.settings():
            raise UserError(
                f"{workdir / RESULTS} has {rung.name} of other settings: give those it was made "
                "with, or another --workdir"
            )
