"""A piece of work with an end (say a text, hear a recording, give one answer) on its way through the
engine: its units are done in the thread of the model, what comes of them is read in the event loop.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from mdmspeech.errors import UserError
from mdmspeech.inference.answering import Stream
from mdmspeech.serving.log import log_failure

Item = TypeVar("Item")
ROOM = 8  # items that wait for the reader; of speech these are some seconds


class Job(AsyncIterator[Item], Generic[Item]):
    """Iterate over what comes of it. If nobody reads, no more is done than there is room for. An
    error in a unit is raised behind the items before it.

    Args:
      units: makes an iterator, in the thread of the model. Each `next` of it does one bounded unit
        and gives what came of it, None if nothing. It may have `close()`, and `speaking`, see
        `answering.Answering`.
      wake: called when a unit can be done again. room: items that wait for the reader.
    """

    def __init__(
        self,
        units: Callable[[], Iterator[Item | None]],
        wake: Callable[[], None],
        room: int = ROOM,
    ) -> None:
        self._make = units
        self._units: Any = None
        self._wake, self._room = wake, room
        self._loop, self._there = asyncio.get_running_loop(), asyncio.Event()
        self._items: deque[Item] = deque()
        self._error: Exception | None = None
        self._unwanted = self._closed = False

    # ---- In the thread of the model, see `session_loop.Work` -------------------------------------

    @property
    def closed(self) -> bool:
        """Whether nothing more is done."""
        return self._closed

    def work(self) -> bool:
        """Does one unit, if it is wanted and there is room for what comes of it."""
        if self._unwanted:
            self._end(None)
        if self._closed or len(self._items) >= self._room:
            return False
        try:
            if self._units is None:
                self._units = self._make()
            item = next(self._units)
        except StopIteration:
            self._end(None)
        except Exception as error:
            if not isinstance(error, UserError):
                log_failure("a unit of a request failed", error)
            self._end(error)
        else:
            if item is not None:
                self._items.append(item)
                self._tell()
        return not self._closed

    def speaking(self) -> Stream | None:
        """The speech whose next block the next unit decodes, if that is what it does."""
        if self._unwanted or self._closed or len(self._items) >= self._room:
            return None
        return getattr(self._units, "speaking", None)

    def _end(self, error: Exception | None) -> None:
        units, self._units = self._units, None
        if not self._closed and hasattr(units, "close"):
            try:
                units.close()
            except Exception as failure:
                log_failure("a request could not be ended cleanly", failure)
        self._error, self._closed = error, True
        self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._there.set)
        except RuntimeError:  # the event loop has gone, and the reader with it
            self._unwanted = True

    # ---- In the event loop -----------------------------------------------------------------------

    def cancel(self) -> None:
        """Nobody wants the rest: no more units are done, and what they hold is free."""
        self._unwanted = True
        self._wake()

    async def __anext__(self) -> Item:
        while True:
            self._there.clear()
            closed = self._closed  # before the items are looked at: the last one comes before it
            if self._items:
                item = self._items.popleft()
                self._wake()
                return item
            if closed and self._error is not None:
                raise self._error
            if closed:
                raise StopAsyncIteration
            await self._there.wait()
