"""The application: which address is answered by what, behind which guards."""

import time
import weakref

from aiohttp import web

from mdmspeech.serving import models
from mdmspeech.serving.audio_memory import AudioMemory
from mdmspeech.serving.chat import MEMORY, chat
from mdmspeech.serving.engine import Engine
from mdmspeech.serving.errors import as_request_error, error_response
from mdmspeech.serving.keys import BEGUN, ENGINE, METRICS, SETTINGS, SOCKETS, TEXT_LOG, TOLD
from mdmspeech.serving.log import log_no_text, log_text, logger
from mdmspeech.serving.metrics import Metrics
from mdmspeech.serving.page import PATHS, page
from mdmspeech.serving.realtime.websocket import realtime
from mdmspeech.serving.security import LIMITER, Handler, RateLimiter, add_headers, guard
from mdmspeech.serving.settings import Settings
from mdmspeech.serving.speech import speech
from mdmspeech.serving.transcriptions import transcriptions


def build_app(engine: Engine, settings: Settings) -> web.Application:
    """All of it, for the event loop that runs now."""
    app = web.Application(middlewares=[answer_errors, guard], client_max_size=settings.max_body)
    app[ENGINE], app[SETTINGS], app[METRICS] = engine, settings, Metrics(engine)
    app[SOCKETS] = weakref.WeakKeyDictionary()
    app[MEMORY] = AudioMemory()
    app[LIMITER] = RateLimiter(settings.rate_limit)
    app[TEXT_LOG] = log_text if settings.log_text else log_no_text
    app.on_response_prepare.append(add_headers)
    app.add_routes(
        [
            web.post("/v1/audio/speech", speech),
            web.post("/v1/audio/transcriptions", transcriptions),
            web.post("/v1/chat/completions", chat),
            web.get("/v1/realtime", realtime),
            web.get("/v1/models", models.list_models),
            web.get("/v1/models/{model}", models.get_model),
            web.get("/v1/audio/models", models.audio_models),
            web.get("/v1/audio/voices", models.audio_voices),
            web.get("/health", models.health),
            web.get("/ready", models.ready),
            web.get("/metrics", models.metrics),
            *(web.get(path, page) for path in PATHS),
        ]
    )
    return app


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes an answer in OpenAI's shape; every answer a line of the log."""
    began = time.monotonic()
    try:
        response = await handler(request)
    except ConnectionError:
        raise  # nobody is there to be told
    except Exception as error:
        told, begun = as_request_error(error), request.get(BEGUN)
        response = error_response(told) if begun is None else begun
        if begun is not None and TOLD not in request and request.transport is not None:
            request.transport.abort()  # a client must not take this for the end
    resource = request.match_info.route.resource
    where = resource.canonical if resource is not None else "(no such address)"
    logger.info("%s %s %d %.3f s", request.method, where, response.status, time.monotonic() - began)
    return response
