"""The life of the server: listen, warm up, serve, drain, close."""

import asyncio
import signal
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import WSCloseCode, web

from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.serving.app import build_app
from mdmspeech.serving.engine import Engine
from mdmspeech.serving.keys import SOCKETS
from mdmspeech.serving.realtime.websocket import hang_up
from mdmspeech.serving.settings import Settings

_LAST_S = 5.0  # seconds that handlers have to end when everything is closed


class Server:
    """An `Engine` behind an open port: `async with Server(engine, settings) as server`. At the end of
    the block it drains and closes.

    Attributes:
      engine, app, port. hurry: an event that ends the draining.

    UserError: it cannot listen there.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings, self.port = engine, settings, settings.port
        self.hurry = asyncio.Event()
        self.app = build_app(engine, settings)
        # a handler is cancelled when its client has gone, and with it what it has asked for
        self._runner = web.AppRunner(
            self.app, handler_cancellation=True, access_log=None, shutdown_timeout=_LAST_S
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return self.settings.url(self.port)

    async def __aenter__(self) -> "Server":
        settings = self.settings
        settings.check_free()
        await self._runner.setup()
        context = settings.ssl_context() if settings.secure else None
        site = web.TCPSite(self._runner, settings.host, settings.port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await _unless(self.hurry, self.engine.drain(self.settings.drain_s))
        told = (WSCloseCode.SERVICE_RESTART, "shutting down")
        sockets = tuple(self.app[SOCKETS].items())
        await asyncio.gather(*(hang_up(socket, wire, *told) for socket, wire in sockets))
        await self._runner.cleanup()


async def serve(
    assistant: Assistant,
    settings: Settings,
    *,
    all: bool = False,
    tell: Callable[[str], None] = print,
) -> bool:
    """Serves until SIGTERM or SIGINT; the second one ends at once what is still being done. Returns
    whether nothing is being compiled any more: that cannot be interrupted.

    all: see `Engine.warm_up`. tell: is given a line when it is ready.

    UserError: a part of the model that cannot be opened, or it cannot listen.
    """
    if not settings.log_text:  # a warning may show what was said, or sent
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", module=r"aiohttp\.")
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    engine = Engine(assistant, max_sessions=settings.max_sessions, max_queue=settings.max_queue)
    async with Server(engine, settings) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: (server.hurry if stop.is_set() else stop).set())
        config = SessionConfig(talker=assistant.talkers[0], context=settings.context)
        warm = await _unless(stop, engine.warm_up(config, all=all))
        if warm:
            tell(f"{settings.model_id} is ready at {server.url}")
        await stop.wait()
    return warm


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, Any]) -> bool:
    """Waits for it, or until `stop` is set: whether it is done."""
    doing, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((doing, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not doing.done():
        doing.cancel()
        return False
    await doing
    return True
