"""The compiled step as the loop calls it: compiles for each new shape of a batch, and knows what the time and the FLOPs went into."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from mdmspeech.training.goodput import TRAINING, GoodputTracker
from mdmspeech.training.mfu import mfu
from mdmspeech.training.progress import clock


class Stepper:
    """Call it as the step; then `wait` for the numbers of each update, in order.

    The devices work while the host goes on, so a wait for data counts as waiting only if the devices had run out of work by its end.

    Args:
      step: `jax.jit` of (state, frozen, batch) -> (state, metrics).
      ledger: where the time goes.
      count: (state, frozen, batch) -> model FLOPs of that step, see `mfu.model_flops`; called once per shape.
      say: where messages go.
      devices: chips in the mesh.
      peak_flops: of one of them; 0 if unknown.
    """

    def __init__(
        self,
        step: Any,
        ledger: GoodputTracker,
        count: Callable[[Any, Any, Any], int],
        say: Callable[[str], None] = print,
        devices: int = 1,
        peak_flops: float = 0.0,
    ):
        self._step, self._ledger, self._count, self._say = step, ledger, count, say
        self._devices, self._peak = devices, peak_flops
        self._compiled: dict[Any, tuple[Any, int]] = {}  # shapes of a batch -> (program, FLOPs)
        self._flying: deque[tuple[Any, int]] = deque()  # metrics and FLOPs of the updates whose numbers nobody has seen
        self._mark = ledger.mark()  # when the last update was started
        self._flops = 0  # of the updates seen since the last `window`

    def __call__(self, state: Any, frozen: Any, batch: dict[str, jax.Array]) -> tuple[Any, Any]:
        """Starts one update and returns at once, with the new state and its numbers still being computed."""
        program, flops = self._program(state, frozen, batch)
        if self._flying and not _ready(self._flying[-1][0]):
            self._ledger.claim(self._mark)
        with self._ledger.time("step"):
            state, metrics = program(state, frozen, batch)
        self._flying.append((metrics, flops))
        self._mark = self._ledger.mark()
        return state, metrics

    def wait(self, metrics: Any) -> dict[str, float]:
        """The numbers of the oldest update that was not waited for, as Python floats."""
        flying, flops = self._flying.popleft()
        if flying is not metrics:
            raise ValueError("updates are waited for in the order in which they were started")
        with self._ledger.time("step"):
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._flops += flops
        return values

    def window(self) -> tuple[float, dict[str, float]]:
        """Training seconds (compiling, evaluating, saving left out) since the last call, and what to show of them: "data_wait" and "host",
        shares of it in which the devices stood still for data or for the host; "mfu" (if the peak is known); "goodput" of the whole run."""
        seconds = self._ledger.window()
        whole = sum(seconds[part] for part in TRAINING)
        shown = {"data_wait": seconds["data"] / max(whole, 1e-9), "host": seconds["other"] / max(whole, 1e-9)}
        if self._peak:
            shown["mfu"] = mfu(self._flops, whole, self._devices, self._peak)
        self._flops = 0
        return whole, shown | {"goodput": self._ledger.goodput()}

    def _program(self, state: Any, frozen: Any, batch: dict[str, jax.Array]) -> tuple[Any, int]:
        key = tuple((name, x.shape, str(x.dtype)) for name, x in sorted(batch.items()))
        if key not in self._compiled:
            began = time.monotonic()
            self._say("compiling the step: seconds for a small model, minutes for a large one ...")
            with self._ledger.time("compile"):
                program = self._step.lower(state, frozen, batch).compile()
                self._compiled[key] = program, self._count(state, frozen, batch)
            shapes = ", ".join(f"{name} {list(shape)}" for name, shape, _ in key)
            again = "again " if len(self._compiled) > 1 else ""
            took = clock(math.ceil(time.monotonic() - began))
            self._say(f"compiled {again}in {took}, {self._compiled[key][1]:.3g} FLOPs a step, for batches of {shapes}")
        return self._compiled[key]


def _ready(metrics: Any) -> bool:
    return all(x.is_ready() for x in jax.tree.leaves(metrics))
