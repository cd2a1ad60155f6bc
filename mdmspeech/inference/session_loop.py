"""Many sessions on one device: one thread does their work, a unit of each in turn. Nobody else calls
the model, and a session's answers do not depend on the others.

Before a round the blocks that its units will speak are decoded together (continuous batching):
sessions join and leave between blocks.
"""

import logging
import threading
from collections.abc import Sequence

from mdmspeech.errors import TryAgainError
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_response import Model
from mdmspeech.inference.speech_stream import SpeechStream, decode_together

SESSIONS = 16  # at a time


class SessionLoop:
    """The thread runs while there are sessions.

    Args:
      model: whose they are. limit: sessions at a time.
    """

    def __init__(self, model: Model, limit: int = SESSIONS) -> None:
        self._model, self.limit = model, limit
        self._sessions: list[Session] = []
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    def open(self, config: SessionConfig | None = None) -> Session:
        """A new session; its first event is `SessionOpened`. TryAgainError: there are too many."""
        session = Session(self._model, config, wake=self._wake.set)
        with self._lock:
            if len(self._sessions) >= self.limit:
                raise TryAgainError(
                    f"{self.limit} sessions are open, the most at a time; close one, or try again "
                    "later"
                )
            self._sessions.append(session)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sessions", daemon=True)
                self._thread.start()
        self._wake.set()
        return session

    def _run(self) -> None:
        while True:
            self._wake.clear()  # before the round: who leaves word in it is seen in it, or wakes
            with self._lock:
                self._sessions = [one for one in self._sessions if not one.closed]
                if not self._sessions:
                    self._thread = None
                    return
                sessions = list(self._sessions)
            _decode_ahead(sessions)
            busy = [session.work() for session in sessions]
            if not any(busy):
                self._wake.wait()


def _decode_ahead(sessions: Sequence[Session]) -> None:
    """Decodes together what at least two sessions are about to speak. What fails is left for the
    session's own unit, which tells of it.
    """
    if len(sessions) < 2:
        return
    try:
        found = [one.speaking() for one in sessions]
        streams = [stream for stream in found if isinstance(stream, SpeechStream)]
        if len(streams) > 1:
            decode_together(streams)
    except Exception:
        logging.getLogger(__name__).exception(
            "blocks of several sessions were not decoded together"
        )
