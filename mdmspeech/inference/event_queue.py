"""Events on their way from a session to whoever reads them."""

import threading
from collections import deque
from collections.abc import Callable, Iterator

from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseText,
    ResponseTokens,
    SessionClosed,
    SessionEvent,
)


class EventQueue:
    """Written by the session, read by one other thread.

    Attributes:
      on_put: called, in the session's thread, after each event that comes: for readers that must
        not wait in `get`.

    Args:
      on_read: called when an event has been taken: a session that waited for it can go on.
    """

    def __init__(self, on_read: Callable[[], None]) -> None:
        self._events: deque[SessionEvent] = deque()
        self._changed = threading.Condition()
        self._on_read, self._closed = on_read, False
        self.on_put: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: SessionEvent) -> None:
        """One more; after a `SessionClosed` none is taken."""
        with self._changed:
            if not self._closed:
                self._events.append(event)
                self._closed = isinstance(event, SessionClosed)
            self._changed.notify_all()
        self.on_put()

    def get(self, timeout: float | None = 0.0) -> SessionEvent | None:
        """The next one; waits `timeout` seconds for it (None: as long as it takes). None: there is
        none yet, or it was the last.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout)
            event = self._events.popleft() if self._events else None
        if event is not None:
            self._on_read()
        return event

    def __iter__(self) -> Iterator[SessionEvent]:
        while (event := self.get(None)) is not None:
            yield event

    def waits(self, response: int) -> bool:
        """Whether something of a response has not been read yet."""
        with self._changed:
            return any(getattr(event, "response", None) == response for event in self._events)

    def drop(self, response: int) -> tuple[float, ResponseEnded | None]:
        """Nobody will read the rest of a response: its text, tokens and samples that wait are
        dropped: (seconds of sound that were, its end if that waited, too).
        """
        rest = (ResponseText, ResponseTokens, ResponseAudio, ResponseEnded)
        kept: deque[SessionEvent] = deque()
        seconds, end = 0.0, None
        with self._changed:
            for event in self._events:
                if not isinstance(event, rest) or event.response != response:
                    kept.append(event)
                elif isinstance(event, ResponseAudio):
                    seconds += len(event.audio) / event.sample_rate
                elif isinstance(event, ResponseEnded):
                    end = event
            self._events = kept
        return seconds, end
