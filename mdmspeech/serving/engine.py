"""The engine: the assistant, the one thread in which its model is called, and who gets in.

The event loop never calls the model: it leaves word (`Session`'s methods, `run`) and reads what comes.
The thread is that of the assistant's `SessionLoop`: a unit of every session and of every request in
turn, so that a long text that is read aloud does not hold up a conversation.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.conversation import Conversation
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import ResponseEnded, SessionClosed, SessionEvent
from mdmspeech.serving.job import Item, Job

_LONGEST_WAIT = 60  # seconds that a client is told to wait, at most
_UNLIMITED = 2**31  # sessions of the assistant: the engine counts them itself


class BusyError(TryAgainError):
    """All places are taken.

    Attributes:
      retry_after: seconds after which it may be worth while to ask again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReadyError(BusyError):
    """The model is not ready yet, or the server is about to stop."""


class Engine:
    """One for each process. All methods are for the event loop.

    Attributes:
      assistant: the model. running, waiting: sessions and requests that have a place, and requests
        that wait for one. sessions: open ones. ready: whether anybody is let in. stopping: an event,
        set when the server has been told to stop.

    Args:
      max_sessions: sessions and requests at a time. max_queue: requests that wait for a place;
        sessions never wait.
    """

    def __init__(self, assistant: Assistant, *, max_sessions: int = 8, max_queue: int = 16) -> None:
        self.assistant, self.max_sessions, self.max_queue = assistant, max_sessions, max_queue
        self.running, self.stopping = 0, asyncio.Event()
        self._warm = False
        self._queue: deque[asyncio.Future[None]] = deque()
        self._sessions: set[Session] = set()
        self._changed = asyncio.Event()  # something has ended
        self._usual_s = 1.0  # that a request takes
        assistant.sessions.limit = _UNLIMITED

    @property
    def ready(self) -> bool:
        """Whether anybody is let in."""
        return self._warm and not self.stopping.is_set()

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._queue)

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    async def warm_up(self, config: SessionConfig | None = None, *, all: bool = False) -> None:
        """Opens and compiles everything, in the thread of the model; then the engine is `ready`.

        Args:
          config: of the sessions to come; without its `warm_up` nothing is compiled before it is
            needed. all: see `Assistant.warm_up`.

        UserError: a part that cannot be opened, or a config that it refuses.
        """
        config = config or SessionConfig()

        def everything() -> Iterator[None]:
            if config.warm_up:
                self.assistant.warm_up(config.talker, all=all)
                yield None
                Conversation(self.assistant.thinker, config.context).warm_up(all=all)

        async for _ in self._start(everything):
            pass
        session = self.assistant.sessions.open(config)
        async for event in self.events(session):
            session.close()
            if isinstance(event, SessionClosed) and event.message:
                raise UserError(event.message)
        self._warm = True

    # ---- Conversations ---------------------------------------------------------------------------

    async def open_session(self, config: SessionConfig | None = None) -> Session:
        """A session, with a place of its own until `close_session`. BusyError (NotReadyError): there
        is none. UserError: the config.
        """
        self._check_ready()
        if self.running >= self.max_sessions:
            raise self._busy(f"{self.max_sessions} conversations and requests are served now")
        session = self.assistant.sessions.open(config)
        self.running += 1
        self._sessions.add(session)
        return session

    def close_session(self, session: Session) -> None:
        """Nobody talks to it any more: what it does ends, its place is free."""
        session.close()
        if session in self._sessions:
            self._sessions.discard(session)
            self._leave()

    async def events(self, session: Session) -> AsyncGenerator[SessionEvent]:
        """Its events as they come, up to `SessionClosed`."""
        loop, there = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has gone
                loop.call_soon_threadsafe(there.set)

        session.events.on_put = tell
        while True:
            there.clear()
            while (event := session.events.get()) is not None:
                yield event
                if isinstance(event, ResponseEnded):
                    self._changed.set()
                if isinstance(event, SessionClosed):
                    return
            await there.wait()

    # ---- Requests --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def run(self, units: Callable[[], Iterator[Item | None]]) -> AsyncGenerator[Job[Item]]:
        """A `Job` with these units, once it has a place; whoever leaves the block no longer wants it.

        BusyError (NotReadyError): no place, and none to wait for one.
        """
        await self._enter()
        began = time.monotonic()
        job = self._start(units)
        try:
            yield job
        finally:
            job.cancel()
            self._usual_s += 0.2 * (time.monotonic() - began - self._usual_s)
            self._leave()

    def _start(self, units: Callable[[], Iterator[Item | None]]) -> Job[Item]:
        job: Job[Item] = Job(units, self.assistant.sessions.wake)
        self.assistant.sessions.join(job)
        return job

    # ---- Who gets in -----------------------------------------------------------------------------

    async def _enter(self) -> None:
        """Waits for a place."""
        self._check_ready()
        if self.running < self.max_sessions:
            self.running += 1
            return
        if len(self._queue) >= self.max_queue:
            raise self._busy(
                f"{self.max_sessions} conversations and requests are served now, "
                f"{self.max_queue} wait"
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place in self._queue:
                self._queue.remove(place)
            elif not place.cancelled():  # it was given a place in the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        """A place is free: the next one that waits has it."""
        self._changed.set()
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def _check_ready(self) -> None:
        if self.stopping.is_set():
            raise NotReadyError("the server is about to stop; ask again in a while", 5)
        if not self._warm:
            raise NotReadyError("the model is still being compiled; GET /ready tells when it is", 5)

    def _busy(self, told: str) -> BusyError:
        wait = math.ceil(self._usual_s * (len(self._queue) + 1) / self.max_sessions)
        return BusyError(f"{told}; try again later", min(max(wait, 1), _LONGEST_WAIT))

    # ---- The end ---------------------------------------------------------------------------------

    async def drain(self, limit_s: float) -> bool:
        """Lets nobody in any more, and waits until what is being done is done: whether it is, or
        `limit_s` seconds are over. Those that wait for a place are told to come back.
        """
        self.stopping.set()
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_exception(
                    NotReadyError("the server is about to stop; ask again in a while", 5)
                )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._at_work():
                    self._changed.clear()
                    if self._at_work():
                        await self._changed.wait()
        return not self._at_work()

    def _at_work(self) -> bool:
        requests = self.running - len(self._sessions)
        return requests > 0 or any(not session.idle for session in self._sessions)
