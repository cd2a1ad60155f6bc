"""The train step ahead of time: one program for each shape of a batch, and what it asks of the
devices.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from mdmspeech.training.goodput import GoodputTracker
from mdmspeech.training.progress import format_duration


class CompiledStep:
    """Call it as the step; then `wait` for the metrics of each update, in order.

    The devices work while the host goes on, so a wait for data counts as waiting only if the
    devices had run out of work by its end.

    Args:
      step: `jax.jit` of (state, frozen, batch) -> (state, metrics).
      goodput: where the time goes.
      model_flops: (state, frozen, batch) -> model FLOPs of that step, see `mfu.model_flops`; called
        once per shape.
      say: where messages go.
    """

    def __init__(
        self,
        step: Any,
        goodput: GoodputTracker,
        model_flops: Callable[[Any, Any, Any], int],
        say: Callable[[str], None] = print,
    ):
        self._step, self._goodput, self._model_flops, self._say = step, goodput, model_flops, say
        self._compiled: dict[Any, tuple[Any, int]] = {}  # shapes of a batch -> (program, FLOPs)
        self._in_flight: deque[Any] = deque()  # metrics of the updates that nobody has waited for
        self._dispatched = goodput.snapshot()  # when the last update was started

    def __call__(self, state: Any, frozen: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any]:
        """Starts one update and returns at once, with the new state and its metrics still being
        computed.
        """
        program, _ = self._program(state, frozen, batch)
        if self._in_flight and not _ready(self._in_flight[-1]):
            self._goodput.count_as_step(self._dispatched)
        with self._goodput.time("step"):
            state, metrics = program(state, frozen, batch)
        self._in_flight.append(metrics)
        self._dispatched = self._goodput.snapshot()
        return state, metrics

    def wait(self, metrics: Any) -> dict[str, float]:
        """The metrics of the oldest update that was not waited for, as Python floats."""
        if self._in_flight.popleft() is not metrics:
            raise ValueError("updates are waited for in the order in which they were started")
        with self._goodput.time("step"):
            return {name: float(value) for name, value in jax.device_get(metrics).items()}

    def forget(self) -> None:
        """Nobody will wait for the updates that were started: their state is given up."""
        self._in_flight.clear()

    def flops(self, batch: dict[str, jax.Array]) -> int:
        """Model FLOPs of the step on a batch of a shape that was compiled."""
        return self._compiled[_shapes(batch)][1]

    def _program(self, state: Any, frozen: Any, batch: dict[str, jax.Array]) -> tuple[Any, int]:
        key = _shapes(batch)
        if key not in self._compiled:
            began = time.monotonic()
            self._say("compiling the step: seconds for a small model, minutes for a large one ...")
            with self._goodput.time("compile"):
                program = self._step.lower(state, frozen, batch).compile()
                self._compiled[key] = program, self._model_flops(state, frozen, batch)
            shapes = ", ".join(f"{name} {list(shape)}" for name, shape, _ in key)
            again = "again " if len(self._compiled) > 1 else ""
            took = format_duration(math.ceil(time.monotonic() - began))
            self._say(
                f"compiled {again}in {took}, {self._compiled[key][1]:.3g} FLOPs a "
                f"step, for batches of {shapes}"
            )
        return self._compiled[key]


def _shapes(batch: dict[str, jax.Array]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    return tuple((name, x.shape, str(x.dtype)) for name, x in sorted(batch.items()))


def _ready(metrics: Any) -> bool:
    return all(x.is_ready() for x in jax.tree.leaves(metrics))
