"""What a client is told when something is wrong: OpenAI's shape of an error, in JSON."""

import http
import json
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from mdmspeech.errors import UserError
from mdmspeech.serving.engine import BusyError, NotReadyError
from mdmspeech.serving.log import log_failure
from mdmspeech.serving.request_error import RequestError


def as_request_error(error: BaseException) -> RequestError:
    """What is told of any error. Of an unexpected one nothing is."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BusyError):
        later = {"Retry-After": str(error.retry_after)}
        if isinstance(error, NotReadyError):
            return RequestError(
                str(error), code="not_ready", status=503, kind="server_error", headers=later
            )
        return RequestError(
            str(error), code="rate_limit_exceeded", status=429, kind="rate_limit_error",
            headers=later,
        )  # fmt: skip
    if isinstance(error, UserError):
        return RequestError(str(error))
    if isinstance(error, web.HTTPException):
        return _of_http(error)
    if isinstance(error, (web.RequestPayloadError, HttpProcessingError)):
        return RequestError(
            f"the body is not what its headers say ({type(error).__name__}); send it anew",
            code="damaged_body",
        )
    log_failure("a request failed", error)
    return RequestError(
        "something went wrong in the server, which has written it into its log",
        code="server_error", status=500, kind="server_error",
    )  # fmt: skip


def error_body(error: RequestError) -> dict[str, Any]:
    """The JSON object."""
    return {
        "error": {
            "message": " ".join(str(error).split()),
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_response(error: RequestError) -> web.Response:
    """The answer that tells of it."""
    return web.Response(
        status=error.status,
        text=json.dumps(error_body(error)),
        content_type="application/json",
        headers=error.headers,
    )


def _of_http(error: web.HTTPException) -> RequestError:
    """One of aiohttp's own."""
    told = {
        404: "there is no such address here; see GET /v1/models and the server's documentation",
        405: "this address takes another method",
        413: "the request is larger than this server takes (--max-body)",
    }
    code = {404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return RequestError(
        told.get(error.status, http.HTTPStatus(error.status).phrase),
        code=code.get(error.status), status=error.status, headers=allow,
    )  # fmt: skip
