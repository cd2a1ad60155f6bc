"""Scores of a state: losses on records that training never sees, by the same few batches and random
numbers every time; and what its task shows.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from mdmspeech.errors import UserError
from mdmspeech.remote import is_remote
from mdmspeech.training import distributed
from mdmspeech.training import mesh as meshes
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.step import loss_function
from mdmspeech.training.task import Params, Task
from mdmspeech.training.workdir import upload

BATCHES = 4
_SEED = 7


class ValidationLoss:
    """Computes a task's loss parts (`Task.held_out_loss`) on its `held_out` split. put: host batch
    -> device arrays (see `mesh.put_batch`).

    Raises:
      UserError: the task has such a split and there is no data for it. Here, not when half of a run
        is done.
    """

    def __init__(
        self, task: Task, frozen: Params, put: Any, batches: int = BATCHES, dtype: str = "float32"
    ):
        self._task, self._frozen, self._put, self._count = task, frozen, put, batches
        loss = loss_function(task, dtype, held_out=True)
        if task.held_out:
            task.batches(task.held_out, _SEED)
        self._loss = jax.jit(
            lambda params, frozen, batch, rng: loss(params, frozen, batch, rng, jnp.int32(0))
        )

    def __call__(self, params: Params) -> dict[str, float]:
        """{"held_out/<part>": sum of numerators / sum of denominators}, and of a mixture
        "held_out/<source>/<part>" of each source that has held-out records; empty if the task has
        no such split.
        """
        if not self._task.held_out:
            return {}
        scores = self._of(self._task.batches(self._task.held_out, _SEED), params, "held_out")
        for name, batches in self._task.sources.items():
            try:
                data = batches(self._task.held_out, _SEED)
            except UserError:  # it has none: those of the mixture were there when the run began
                continue
            scores |= self._of(data, params, f"held_out/{name}")
        return scores

    def _of(self, data: Any, params: Params, prefix: str) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for index, batch in zip(range(self._count), data, strict=False):  # a small split has fewer
            losses = self._loss(
                params,
                self._frozen,
                self._put(numbers_of(batch)),
                jax.random.fold_in(jax.random.key(_SEED), index),
            )
            for name, (numerator, denominator) in jax.device_get(losses).items():
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += float(numerator)
                total[1] += float(denominator)
        return {f"{prefix}/{name}": above / below for name, (above, below) in sums.items() if below}


class Evaluator:
    """All scores of a state: `ValidationLoss`, computed by all processes, and `Task.evaluate`, by
    the lead alone. Raises as `ValidationLoss`.
    """

    def __init__(
        self, task: Task, frozen: Params, put: Any, workdir: epath.Path, dtype: str = "float32"
    ):
        self._task, self._workdir = task, workdir
        self._validation_loss = ValidationLoss(task, frozen, put, dtype=dtype)

    def __call__(self, params: Params, step: int) -> dict[str, float]:
        """The scores, the same on all processes; all must call. step: updates done; what the task
        writes lands in eval/<step>.
        """
        scores = self._validation_loss(params)
        if jax.process_count() == 1:
            scores |= self._task_scores(params, step)
        elif self._task.show or type(self._task).evaluate is not Task.evaluate:
            params = distributed.to_lead(params)
            if distributed.is_lead():
                with jax.set_mesh(meshes.make_mesh(devices=jax.local_devices()[:1])):
                    scores |= self._task_scores(params, step)
            # it may take long; a collective must not wait for it
            distributed.barrier(f"evaluated at step {step}")
        return distributed.gather(scores)[0]

    def _task_scores(self, params: Params, step: int) -> dict[str, float]:
        outdir = self._workdir / "eval" / f"{step:07d}"
        if not is_remote(self._workdir):
            outdir.mkdir(parents=True, exist_ok=True)
            return dict(self._task.evaluate(params, step, Path(outdir)))
        with tempfile.TemporaryDirectory() as local:
            scores = dict(self._task.evaluate(params, step, Path(local)))
            upload(Path(local), outdir)
        return scores
