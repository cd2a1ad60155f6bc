"""What handlers find in the application."""

import asyncio
import weakref
from collections.abc import Callable

from aiohttp import web

from mdmspeech.serving.engine import Engine
from mdmspeech.serving.metrics import Metrics
from mdmspeech.serving.settings import Settings

ENGINE = web.AppKey("engine", Engine)
SETTINGS = web.AppKey("settings", Settings)
METRICS = web.AppKey("metrics", Metrics)
# open sockets: closed with 1012 when the server stops
# what is open, and what it is written to
SOCKETS = web.AppKey[weakref.WeakKeyDictionary[web.WebSocketResponse, asyncio.Transport | None]](
    "sockets"
)
# writes what was said into the log, if that is wanted: (what it is, the text)
TEXT_LOG = web.AppKey[Callable[[str, str], None]]("text_log")
# of a request: its answer, once it has begun; that the client has been told of an error in it
BEGUN = web.RequestKey("begun", web.StreamResponse)
TOLD = web.RequestKey("told", bool)
# of a request: the page that asks, if it may
ORIGIN = web.RequestKey("origin", str)
