"""The socket at `/v1/realtime`: events in and out of a `Protocol`, and who closes it when.

Three tasks for each socket: one reads, one takes the session's events, one writes what comes of both.
Nothing is taken from the session before all that came before is written; then the session stops
speaking by itself, and nobody else waits. Sound that cannot be listened to in time is not read.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web

from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import (
    ResponseEnded,
    ResponseStarted,
    SessionClosed,
    SessionEvent,
    Transcript,
)
from mdmspeech.serving.engine import BusyError
from mdmspeech.serving.json_texts import read_json
from mdmspeech.serving.keys import ENGINE, METRICS, SETTINGS, SOCKETS, TEXT_LOG
from mdmspeech.serving.log import log_failure
from mdmspeech.serving.models import check_model
from mdmspeech.serving.realtime.protocol import Protocol
from mdmspeech.serving.realtime.response import Event
from mdmspeech.serving.realtime.session_object import Model, SessionObject
from mdmspeech.serving.request_error import RequestError, refused
from mdmspeech.serving.security import offered_subprotocols

SUBPROTOCOL = "realtime"
# of a message. What is larger is read to its end, up to twice this, so that its sender hears of it
MOST_BYTES = 8 * 2**20
HEARTBEAT_S = 20.0
EXPIRED, POLICY, TOO_LARGE, FAILED, RESTART, FULL = 1001, 1008, 1009, 1011, 1012, 1013
_ANSWERS = 32  # events that wait to be written before nothing more is read
_BEHIND_S = 20.0  # seconds of sound that wait to be listened to before nothing more is read
_BEHIND = 2000  # events of the client that wait for the session, likewise
_LOOK_S = 0.05
_LAST_S = 5.0  # that a client has to read what is left, and to say goodbye


async def realtime(request: web.Request) -> web.StreamResponse:
    """A conversation, until one of both closes it. RequestError, before the upgrade: no upgrade, or
    an address with something in it that cannot be.
    """
    engine, assistant = request.app[ENGINE], request.app[ENGINE].assistant
    talker = _checked(request, assistant)
    _check_subprotocols(request)
    socket = web.WebSocketResponse(
        protocols=(SUBPROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=2 * MOST_BYTES, compress=False
    )
    if not socket.can_prepare(request).ok:
        raise RequestError(
            "this address speaks WebSocket: connect with ws:// or wss://",
            code="upgrade_required",
            status=426,
            headers={"Upgrade": "websocket"},
        )
    await socket.prepare(request)
    wire = request.transport
    request.app[SOCKETS][socket] = wire
    # the engine has compiled what the usual Talker needs
    config = SessionConfig(talker=talker, context=request.app[SETTINGS].context, warm_up=False)
    try:
        session = await engine.open_session(config)
    except BusyError as error:
        code = RESTART if engine.stopping.is_set() else FULL
        await _turn_away(socket, wire, code, str(error), "server_busy")
        return socket
    events = engine.events(session)
    try:
        first = await anext(events)
        if isinstance(first, SessionClosed):
            await _turn_away(socket, wire, FAILED, first.message, "session_not_opened")
            return socket
        code, told = await Connection(request, socket, session, events, talker).run()
    finally:
        engine.close_session(session)
        await events.aclose()
    await hang_up(socket, wire, code, told)  # its place is free already
    return socket


class Connection:
    """One open socket and its session."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        session: Session,
        events: AsyncIterator[SessionEvent],
        talker: str,
    ) -> None:
        self._socket, self._session, self._events = socket, session, events
        self._settings, self._metrics = request.app[SETTINGS], request.app[METRICS]
        self._log = request.app[TEXT_LOG]
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._ends, self._active = loop.time() + self._settings.max_session_s, loop.time()
        self._began: dict[int, float] = {}  # responses
        self._out: deque[Event] = deque()
        self._more, self._written = asyncio.Event(), asyncio.Event()
        assistant = request.app[ENGINE].assistant
        prefix, count = secrets.token_hex(6), itertools.count(1)
        new_id = lambda kind: f"{kind}_{prefix}{next(count):06x}"
        expires_at = int(time.time() + self._settings.max_session_s)
        model = _model(assistant, talker, self._settings.model_id, self._settings.max_text)
        self._protocol = Protocol(session, SessionObject(model, new_id("sess"), expires_at), new_id)

    async def run(self) -> tuple[int, str]:
        """Until it is over: how it is to be closed, code and reason."""
        self._session.update(**self._protocol.session.settings())
        self._send(self._protocol.opened())
        tasks: list[asyncio.Task[tuple[int, str] | None]] = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._tell()),
            asyncio.create_task(self._write()),
            asyncio.create_task(self._watch()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ends = [task.result() for task in done]
            return next((end for end in ends if end is not None), (1000, ""))
        except ConnectionError:
            return 1000, ""
        except Exception as error:
            log_failure("a conversation failed", error)
            return FAILED, "something went wrong in the server"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> tuple[int, str] | None:
        async for message in self._socket:
            if len(message.data or "") > MOST_BYTES:
                return TOO_LARGE, f"messages have at most {MOST_BYTES} bytes"
            if message.type == WSMsgType.TEXT:
                self._send(self._received(message.data))
            elif message.type == WSMsgType.BINARY:
                error = RequestError("events are JSON texts; sound goes into them as base64")
                self._send(self._protocol.refused(error))
            while len(self._out) > _ANSWERS:
                await self._room()
            while self._session.waiting_s > _BEHIND_S or self._session.waiting > _BEHIND:
                await asyncio.sleep(_LOOK_S)
        return None

    def _received(self, data: str) -> list[Event]:
        try:
            event = read_json(data, "the event")
        except RequestError as error:
            return self._protocol.refused(error)
        if not isinstance(event, dict) or event.get("type") != "input_audio_buffer.append":
            self._active = self._now()
        return self._protocol.received(event)

    async def _tell(self) -> tuple[int, str]:
        async for event in self._events:
            self._active = self._now()
            self._note(event)
            self._send(self._protocol.told(event))
            while self._out:
                await self._room()
            if isinstance(event, SessionClosed):
                return FAILED, event.message or "the session was closed"
        return FAILED, "the session was closed"

    async def _write(self) -> None:
        while True:
            while self._out:
                # as ASCII: what a client has sent may hold what UTF-8 cannot
                text = json.dumps(self._out[0], separators=(",", ":"))
                await self._socket.send_str(text)
                self._out.popleft()
                self._written.set()
            self._more.clear()
            await self._more.wait()

    async def _watch(self) -> tuple[int, str]:
        while True:
            now, idle = self._now(), self._active + self._settings.idle_s
            if now >= self._ends:
                code, told, closing = (
                    "session_expired",
                    "the session was as long as it may be",
                    EXPIRED,
                )
            elif now >= idle:
                code, told, closing = "session_idle", "nothing was said for too long", POLICY
            else:
                await asyncio.sleep(min(self._ends, idle) - now)
                continue
            self._send(self._protocol.refused(RequestError(told, code=code)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while self._out:
                        await self._room()
            return closing, told

    def _send(self, events: list[Event]) -> None:
        self._out.extend(events)
        self._more.set()

    async def _room(self) -> None:
        """Waits until something has been written."""
        self._written.clear()
        await self._written.wait()

    def _note(self, event: SessionEvent) -> None:
        """For those who run the server."""
        if isinstance(event, ResponseStarted):
            self._began[event.response] = self._now()
        elif isinstance(event, Transcript):
            self._log("heard", event.text)
        elif isinstance(event, ResponseEnded):
            self._log("answered", event.text)
            self._metrics.ended(
                event.reason,
                self._now() - self._began.pop(event.response, self._now()),
                audio_s=event.audio_s,
                first_audio_s=event.first_audio_s,
                underrun_s=event.underrun_s,
            )


def _checked(request: web.Request, assistant: Assistant) -> str:
    """The Talker that the address asks for. RequestError: something in it that cannot be."""
    query = request.query
    if model := query.get("model"):
        check_model(model, request.app[SETTINGS])
    if query.get("intent") not in (None, "", "conversation", "realtime"):
        raise refused(
            "intent",
            "connect without it and send session.update with audio.input.transcription and "
            "turn_detection.create_response false: then nothing is answered",
        )
    if "call_id" in query:
        raise refused("call_id", "there are no telephone calls here")
    usual = SessionConfig().talker
    talker = query.get("talker") or (usual if usual in assistant.talkers else assistant.talkers[0])
    if talker not in assistant.talkers:
        raise RequestError(
            f"there is no talker {talker[:40]!r}; there are {', '.join(assistant.talkers)}",
            "talker",
        )
    return talker


def _check_subprotocols(request: web.Request) -> None:
    """A client that offers some, its key among them, has to have ours with them: browsers close a
    socket that chooses none, and aiohttp would write the offer into its log.
    """
    offered = offered_subprotocols(request)
    if offered and SUBPROTOCOL not in offered:
        raise RequestError(f"offer the subprotocol {SUBPROTOCOL!r}, too", code="invalid_value")


def _model(assistant: Assistant, talker: str, name: str, max_text: int) -> Model:
    """Of parts that are open."""
    return Model(
        name=name,
        instructions=assistant.thinker.prompt.system,
        steps=assistant.voice(talker).block,
        talker=talker,
        limit_s=assistant.frontend.limit,
        max_text=max_text,
    )


async def hang_up(
    socket: web.WebSocketResponse, wire: asyncio.Transport | None, code: int, told: str
) -> None:
    """Closes it; one whose client does not read, or not answer, is cut off after a while."""
    try:
        async with asyncio.timeout(_LAST_S):
            # a reason has at most 123 bytes
            message = told.encode()[:120].decode(errors="ignore").encode()
            await socket.close(code=code, message=message)
    except Exception:  # it was broken already, or it took too long
        if wire is not None:
            wire.abort()


async def _turn_away(
    socket: web.WebSocketResponse, wire: asyncio.Transport | None, code: int, told: str, kind: str
) -> None:
    """Says why before it closes."""
    error: dict[str, Any] = {"type": "server_error", "code": kind, "message": told}
    error |= {"param": None, "event_id": None}
    with contextlib.suppress(ConnectionError):
        await socket.send_json({"event_id": "event_0", "type": "error", "error": error})
    await hang_up(socket, wire, code, told)
