"""What a scaling law is made of: compute C, parameters N, data D of a run, and its loss.

The loss is in nats per hidden token of held-out speech, hidden at fixed rates by the same masks for
every size.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mdmspeech.data.datasets import corpus
from mdmspeech.data.pipelines import random_source, some_tokens
from mdmspeech.evaluation.provenance import provenance
from mdmspeech.training import mesh as meshes
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.mfu import model_flops
from mdmspeech.training.optim import make_optimizer, param_path
from mdmspeech.training.task import Params, Task
from mdmspeech.training.validation import ValidationLoss
from mdmspeech.training.warm_start import load_params

RATES = (0.25, 0.5, 0.75, 1.0)  # of hidden tokens; 1: what the first step of decoding sees
_VOCABULARY = ("inputs/", "outputs/", "anchors/embed/")  # tables of codes and symbols
_ROWS, _BATCHES = 8, 16  # of held-out speech, whatever the run's own batch


def measure(
    config: ConfigDict,
    workdir: Path,
    make_task: Callable[[ConfigDict, Path], Task],
    root: Any = None,
    extra: Callable[[ConfigDict, Params], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What a row says of a finished run: flops, parameters, tokens, nats, what `extra` gives of
    (config, parameters), and what made it.
    """
    task, params, steps = make_task(config, workdir), load_params(workdir), int(config.train.steps)
    seen = tokens_seen(config, read_metrics(workdir / "metrics.jsonl"), steps)
    unique = unique_tokens(config, root)
    nats = fixed_mask_nats(config, params, lambda judged: make_task(judged, workdir))
    return {
        "flops": flops_of_step(task, config) * steps,
        "parameters": parameters(task),
        "tokens": {"seen": seen, "unique": unique, "passes": round(seen / unique, 4)},
        "nats": {name: round(value, 5) for name, value in nats.items()},
        **(extra(config, params) if extra else {}),
        "made": provenance(
            sizes={"updates": steps, "tokens": seen, "held-out rows": _ROWS * _BATCHES},
            seeds={"weights and batches": int(config.train.seed)},
        ),
    }


def parameters(task: Task) -> dict[str, int]:
    """{"total": all trained parameters, "non_embedding": without the tables of codes and symbols}."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    sizes = {param_path(path): x.size for path, x in jax.tree_util.tree_leaves_with_path(shapes)}
    tables = sum(n for name, n in sizes.items() if name.startswith(_VOCABULARY))
    return {"total": sum(sizes.values()), "non_embedding": sum(sizes.values()) - tables}


def flops_of_step(task: Task, config: ConfigDict) -> int:
    """FLOPs of an update: of all matrix products in loss and gradient, padding included, as counted
    by `training.mfu`.
    """
    key = jax.random.key(0)
    shapes = jax.eval_shape(task.init, key)
    optimizer = make_optimizer(config.optim, config.train.steps, shapes, task.optimizer)
    frozen = jax.eval_shape(task.init_frozen, key)
    return model_flops(task, optimizer, shapes, frozen, task.batch_spec())


def tokens_seen(config: ConfigDict, rows: Iterable[Mapping[str, Any]], steps: int) -> int:
    """Tokens in the rows of `steps` updates without padding, whose share is in the run's log.

    rows: of metrics.jsonl. A row's share is the mean over the updates since the row before.
    """
    shares = {row["step"]: row["train/padding"] for row in rows if "train/padding" in row}
    known, weighted = 0, 0.0
    for step in sorted(shares):
        weighted, known = weighted + (step - known) * shares[step], step
    padding = weighted / known if known else 0.0
    return round(steps * config.data.batch * config.data.length * (1.0 - padding))


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


def fixed_mask_nats(
    config: ConfigDict,
    params: Params,
    make_task: Callable[[ConfigDict], Task],
    rates: Sequence[float] = RATES,
    batches: int = _BATCHES,
) -> dict[str, float]:
    """Cross-entropy in nats per hidden token of held-out speech at each rate of hiding, as
    {"0.25": ...}, and their "mean". The same records and masks for every model of the same data.
    """
    mesh = meshes.make_mesh(devices=jax.local_devices()[:1])  # whatever the run's own
    found = {}
    with jax.set_mesh(mesh):
        for rate in rates:
            judged = copy.deepcopy(config)
            with judged.unlocked():
                judged.masking = dict(name="bernoulli", low=rate, high=rate)
                judged.capacity, judged.data.batch, judged.data.unique = 1.0, _ROWS, 0
            loss = ValidationLoss(
                make_task(judged), {}, lambda b: meshes.put_batch(mesh, b), batches
            )
            found[f"{rate:g}"] = loss(params)["held_out/token"]
    return found | {"mean": float(np.mean(list(found.values())))}
