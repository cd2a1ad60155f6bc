"""What there is: `/v1/models`, `/v1/audio/models`, `/v1/audio/voices`; and `/health`, `/ready` and
`/metrics` for those who run the server.
"""

import time

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from mdmspeech.serving.fields import Fields
from mdmspeech.serving.keys import ENGINE, METRICS, SETTINGS
from mdmspeech.serving.request_error import RequestError
from mdmspeech.serving.settings import Settings
from mdmspeech.serving.voices import VOICE

# how names begin that clients of OpenAI's server send when nobody has told them another
_OPENAI_MODELS = ("gpt-", "tts-1", "whisper-1", "chatgpt-")
_STARTED = int(time.time())


def take_model(fields: Fields, settings: Settings) -> None:
    """The model that is asked for is this one, or one of OpenAI's, for which it stands in."""
    check_model(fields.required("model"), settings)


def check_model(name: str, settings: Settings) -> None:
    """RequestError: another model."""
    if name != settings.model_id and not name.startswith(_OPENAI_MODELS):
        raise _not_here(name, settings)


async def list_models(request: web.Request) -> web.Response:
    """All of them: one."""
    return web.json_response({"object": "list", "data": [_model(request.app[SETTINGS])]})


async def get_model(request: web.Request) -> web.Response:
    """One by its name."""
    settings = request.app[SETTINGS]
    if (name := request.match_info["model"]) != settings.model_id:
        raise _not_here(name, settings)
    return web.json_response(_model(settings))


async def audio_models(request: web.Request) -> web.Response:
    """As Open WebUI asks."""
    name = request.app[SETTINGS].model_id
    return _listed("models", name)


async def audio_voices(_: web.Request) -> web.Response:
    """As Open WebUI asks."""
    return _listed("voices", VOICE)


async def health(_: web.Request) -> web.Response:
    """The process lives."""
    return web.json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 if a request would be served, else 503."""
    engine = request.app[ENGINE]
    status = "ready" if engine.ready else "stopping" if engine.stopping.is_set() else "starting"
    return web.json_response({"status": status}, status=200 if engine.ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """For Prometheus."""
    return web.Response(
        body=request.app[METRICS].text(), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


def _listed(kind: str, *names: str) -> web.Response:
    """Under the names that clients look for."""
    found = [{"id": name, "name": name} for name in names]
    return web.json_response({"object": "list", kind: found, "data": found})


def _not_here(name: str, settings: Settings) -> RequestError:
    return RequestError(
        f"the model {name[:60]!r} is not here; this server has {settings.model_id!r}",
        "model",
        code="model_not_found",
        status=404,
    )


def _model(settings: Settings) -> dict[str, object]:
    return {
        "id": settings.model_id,
        "object": "model",
        "created": _STARTED,
        "owned_by": "mdmspeech",
    }
