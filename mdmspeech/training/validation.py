"""Losses on records that training never sees: the same few batches and the same random numbers at every evaluation."""

from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.step import loss_function
from mdmspeech.training.task import Params, Task

BATCHES = 4
_SEED = 7


class ValidationLoss:
    """Computes a task's loss parts (`Task.held_out_loss`) on its `held_out` split. put: host batch -> device arrays (see `mesh.put_batch`).

    Raises:
      UserError: the task has such a split and there is no data for it. Here, not when half of a run is done.
    """

    def __init__(self, task: Task, frozen: Params, put: Any, batches: int = BATCHES, dtype: str = "float32"):
        self._task, self._frozen, self._put, self._count = task, frozen, put, batches
        loss = loss_function(task, dtype, held_out=True)
        if task.held_out:
            task.batches(task.held_out, _SEED)
        self._loss = jax.jit(lambda params, frozen, batch, rng: loss(params, frozen, batch, rng, jnp.int32(0)))

    def __call__(self, params: Params) -> dict[str, float]:
        """{"held_out/<part>": sum of numerators / sum of denominators}; empty if the task has no such split."""
        if not self._task.held_out:
            return {}
        data = self._task.batches(self._task.held_out, _SEED)
        sums: dict[str, list[float]] = {}
        for index, batch in zip(range(self._count), data, strict=False):  # a small split has fewer
            losses = self._loss(params, self._frozen, self._put(numbers_of(batch)), jax.random.fold_in(jax.random.key(_SEED), index))
            for name, (numerator, denominator) in jax.device_get(losses).items():
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += float(numerator)
                total[1] += float(denominator)
        return {f"held_out/{name}": above / below for name, (above, below) in sums.items() if below}
