"""A thread that makes batches ahead of the step and puts them on the devices, and knows the data
position of each.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mdmspeech.training.task import BatchIterator


@dataclass(frozen=True)
class DeviceBatch:
    """Attributes: arrays on the devices; ids of the records, for messages; units in the batch; data
    position after it.
    """

    arrays: dict[str, jax.Array]
    ids: list[str]
    units: int
    data_state: Any


class Prefetcher:
    """Iterates over `DeviceBatch` batches. The position saved with a checkpoint is that of the last
    batch *trained on*, not of the last one made ahead: each batch carries its own.

    Args:
      batches: the source; read in a thread from now on.
      put: host arrays -> device arrays.
      count: units in a host batch.
      ahead: how many batches may wait.
    """

    def __init__(
        self,
        batches: BatchIterator,
        put: Callable[..., dict[str, jax.Array]],
        count: Callable[..., int],
        ahead: int = 2,
    ):
        self._queue: queue.Queue[DeviceBatch | BaseException] = queue.Queue(maxsize=max(ahead, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(batches, put, count), name="feed", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[DeviceBatch]:
        return self

    def __next__(self) -> DeviceBatch:
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # a second call must not hang
            raise item
        return item

    def close(self) -> None:
        """Ends the thread; batches made ahead are dropped."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                pass
        self._thread.join()

    def _work(
        self, batches: BatchIterator, put: Callable[..., Any], count: Callable[..., int]
    ) -> None:
        try:
            while not self._stop.is_set():
                batch = dict(next(batches))
                units = count(batch)
                ids = [str(i) for i in np.atleast_1d(batch.pop("id", []))]
                self._queue.put(
                    DeviceBatch(put(numbers_of(batch)), ids, units, batches.get_state())
                )
        # raised again where the batch is asked for, StopIteration included
        except BaseException as error:
            self._queue.put(error)


def numbers_of(batch: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a batch that can go to a device: numbers and booleans."""
    return {
        k: v
        for k, v in batch.items()
        if np.issubdtype(np.asarray(v).dtype, np.number) or np.asarray(v).dtype == np.bool_
    }
