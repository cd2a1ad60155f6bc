"""What handlers find in the application."""

import weakref

from aiohttp import web

from mdmspeech.serving.engine import Engine
from mdmspeech.serving.metrics import Metrics
from mdmspeech.serving.settings import Settings

ENGINE = web.AppKey("engine", Engine)
SETTINGS = web.AppKey("settings", Settings)
METRICS = web.AppKey("metrics", Metrics)
# open sockets: closed with 1012 when the server stops
SOCKETS = web.AppKey("sockets", weakref.WeakSet[web.WebSocketResponse])
