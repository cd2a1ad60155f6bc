"""Many sessions on one device: one thread does their work, a unit of each in turn, and of whatever
else is to be done with the model. Nobody else calls it, and a session's answers do not depend on the
others.

Before a round the blocks that its units will speak are decoded together (continuous batching):
sessions join and leave between blocks.
"""

import atexit
import logging
import threading
import weakref
from collections.abc import Sequence
from typing import Protocol

from mdmspeech.errors import TryAgainError
from mdmspeech.inference.answering import Stream
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_response import Model
from mdmspeech.inference.speech_stream import SpeechStream, decode_together

SESSIONS = 16  # at a time
_LAST_UNIT = 60.0  # seconds that the end of the process waits for, at most
_running: "weakref.WeakSet[SessionLoop]" = weakref.WeakSet()


class Work(Protocol):
    """What the thread does a unit of in each round: a `Session`, or anything else with these."""

    @property
    def closed(self) -> bool:
        """Whether it is over; then the thread forgets it."""

    def work(self) -> bool:
        """Does one unit; whether there may be more. Raises nothing."""

    def speaking(self) -> Stream | None:
        """See `Session.speaking`."""


class SessionLoop:
    """The thread runs while there is somebody to work for.

    Args:
      model: whose sessions they are. limit: sessions at a time.
    """

    def __init__(self, model: Model, limit: int = SESSIONS) -> None:
        self._model, self.limit = model, limit
        self._members: list[Work] = []
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def __len__(self) -> int:
        """Sessions that are open."""
        return sum(isinstance(one, Session) for one in self._members)

    def open(self, config: SessionConfig | None = None) -> Session:
        """A new session; its first event is `SessionOpened`. TryAgainError: there are too many."""
        session = Session(self._model, config, wake=self.wake)
        with self._lock:
            if len(self) >= self.limit:
                raise TryAgainError(
                    f"{self.limit} sessions are open, the most at a time; close one, or try again "
                    "later"
                )
            self._add(session)
        self.wake()
        return session

    def join(self, work: Work) -> None:
        """Does this, too, until it is closed. It does not count as a session."""
        with self._lock:
            self._add(work)
        self.wake()

    def wake(self) -> None:
        """Somebody has work again."""
        self._wake.set()

    def stop(self) -> None:
        """For the end of the process: waits for the unit of work that is being done; after it no
        more are.
        """
        self._stopping = True
        self.wake()
        if (thread := self._thread) is not None:
            thread.join(_LAST_UNIT)

    def _add(self, work: Work) -> None:
        self._members.append(work)
        _running.add(self)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sessions", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()  # before the round: who leaves word in it is seen in it, or wakes
            with self._lock:
                self._members = [one for one in self._members if not one.closed]
                if not self._members:
                    self._thread = None
                    return
                members = list(self._members)
            _decode_ahead(members)
            busy = [not self._stopping and one.work() for one in members]
            if not any(busy) and not _work_ahead(members):
                self._wake.wait()


@atexit.register
def _stop_all() -> None:
    """A thread that is inside XLA when the interpreter ends takes the process down with it."""
    for loop in list(_running):
        loop.stop()


def _work_ahead(members: Sequence[Work]) -> bool:
    """A unit of one session that may save it time later; whether there was one."""
    return any(one.work_ahead() for one in members if isinstance(one, Session))


def _decode_ahead(members: Sequence[Work]) -> None:
    """Decodes together what at least two are about to speak. What fails is left for their own units,
    which tell of it.
    """
    if len(members) < 2:
        return
    try:
        found = [one.speaking() for one in members]
        streams = [stream for stream in found if isinstance(stream, SpeechStream)]
        if len(streams) > 1:
            decode_together(streams)
    except Exception:
        logging.getLogger(__name__).exception(
            "blocks of several sessions were not decoded together"
        )
