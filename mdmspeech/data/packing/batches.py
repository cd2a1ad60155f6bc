"""The iterator over packed batches: Grain's threads make them ahead, its position is a few numbers, whatever the number of hosts."""

from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np

from mdmspeech.data.packing.plan import Draw, PackPlan, Statistics
from mdmspeech.errors import UserError

Batch = dict[str, np.ndarray]


class PackedBatches:
    """Endless. `make(rows)` turns this host's rows of a batch, lists of `Draw`, into arrays; it is called from `threads` threads at once."""

    def __init__(self, plan: PackPlan, make: Callable[[list[list[Draw]]], Batch], threads: int = 1):
        self.plan = plan
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        self._batches = iter(grain.MapDataset.source(plan).map(make).to_iter_dataset(options))

    def __iter__(self) -> "PackedBatches":
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def statistics(self, windows: int = 0) -> Statistics:
        """See `PackPlan.statistics`."""
        return self.plan.statistics(windows)

    def about(self) -> list[str]:
        """See `PackPlan.about`."""
        return self.plan.about()

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch handed out, for JSON; the same on every host."""
        batch = self._batches.get_state()["next_index"]
        return {"batch": batch, **self.plan.anchor(batch), "records": self.plan.fingerprint}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues there. UserError if the records or the sizes of the rows are others than then."""
        if state["records"] != self.plan.fingerprint:
            raise UserError(
                f"the data have changed since this position was saved (then {state['records']}, now {self.plan.fingerprint}): "
                "restore the corpus and the data settings, or begin a new run from the old one's parameters (config.init_from)"
            )
        self.plan.go_to(state)
        self._batches.set_state({"next_index": int(state["batch"])})
