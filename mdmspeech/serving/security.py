"""Who may ask, how often, and from which pages: looked at before any handler, so before the 101 of a
WebSocket, too.

A page that somebody visits can reach a server on their own machine. It cannot leave out the `Origin`
header, nor, having pointed its own name at 127.0.0.1 (DNS rebinding), the `Host` header: both are
compared with what this server is called.
"""

import hmac
import ipaddress
import math
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from mdmspeech.serving.keys import BEGUN, ORIGIN, SETTINGS
from mdmspeech.serving.page import PATHS
from mdmspeech.serving.request_error import RequestError
from mdmspeech.serving.settings import Settings, is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# browsers cannot set headers of a WebSocket: OpenAI's clients put the key into a subprotocol
SUBPROTOCOL = "openai-insecure-api-key."
_CLIENTS = 10_000  # whose requests are counted
_USUAL_HEADERS = "authorization, content-type"  # of a page's request
_HEADERS = {
    "Server": "mdmspeech",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets in who may ask; RequestError for everybody else."""
    settings = request.app[SETTINGS]
    check_host(request, settings)
    origin = check_origin(request, settings)
    if (
        origin
        and request.method == "OPTIONS"
        and "Access-Control-Request-Method" in request.headers
    ):
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
                "Access-Control-Allow-Headers": _wanted_headers(request),
                "Access-Control-Max-Age": "600",
            },
        )
    try:
        if request.method not in ("GET", "HEAD") or request.path not in PATHS:
            check_key(request, settings)
    except RequestError:  # whoever tries keys does so as often as others ask
        request.app[LIMITER].check(request.remote or "")
        raise
    request.app[LIMITER].check(client_of(request, settings))
    return await handler(request)


def _wanted_headers(request: web.Request) -> str:
    """Those that a page of an allowed origin announces: clients have some of their own."""
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    return wanted if re.fullmatch(r"[A-Za-z0-9, _-]{1,1000}", wanted) else _USUAL_HEADERS


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler: headers of every answer. A handler's own stay."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = _HEADERS["Server"]
    request[BEGUN] = response
    if origin := request.get(ORIGIN):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        response.headers.add("Vary", "Origin")
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"


def check_host(request: web.Request, settings: Settings) -> None:
    """The names by which the server is asked for are its own: the header's, and that of an address
    given whole, as proxies are sent it.
    """
    given = request.headers.getall("Host", [])
    names = [host_name(given[0]) if len(given) == 1 else None]
    if not request.raw_path.startswith(("/", "*")):
        names.append(host_name(urlsplit(request.raw_path).netloc))
    if None in names:
        raise RequestError("the request has no Host header, or no proper one", code="bad_host")
    if not all(name and _is_own_host(name, settings) for name in names):
        raise RequestError(
            "this server does not answer to that name; if it is its own, start it with "
            "--allow-host NAME",
            code="host_not_allowed", status=403,
        )  # fmt: skip


def check_origin(request: web.Request, settings: Settings) -> str | None:
    """The allowed origin of the page that asks; None if none does, or one of the server's own."""
    given = request.headers.getall("Origin", [])
    if not given:
        return None
    own = f"{'https' if settings.secure else 'http'}://{request.headers['Host']}"
    if given == [own]:
        return None
    if len(given) == 1 and ("*" in settings.allow_origins or given[0] in settings.allow_origins):
        request[ORIGIN] = given[0]
        return given[0]
    raise RequestError(
        "pages of this origin may not ask; if it is yours, start the server with "
        "--allow-origin ORIGIN",
        code="origin_not_allowed", status=403,
    )  # fmt: skip


def check_key(request: web.Request, settings: Settings) -> None:
    """A key of the server is in the `Authorization` header, or of an upgrade in its subprotocols."""
    if not settings.api_keys:
        return
    given = _given_key(request)
    if given is None:
        told, code = "no API key: send the header Authorization: Bearer KEY", "missing_api_key"
    elif _is_key(given, settings):
        return
    else:
        told, code = "that API key is not one of this server's", "invalid_api_key"
    raise RequestError(told, code=code, status=401, headers={"WWW-Authenticate": "Bearer"})


def client_of(request: web.Request, settings: Settings) -> str:
    """Whose requests are counted together: those with one key of the server's, else of one address."""
    key = _given_key(request)
    return key if key is not None and _is_key(key, settings) else request.remote or ""


def offered_subprotocols(request: web.Request) -> list[str]:
    """Of a WebSocket, in the client's order."""
    offers = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [name.strip() for offer in offers for name in offer.split(",") if name.strip()]


def host_name(header: str) -> str | None:
    """Of a Host header, without its port; None: it is none."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", header)
    return found[1].lower().rstrip(".") if found else None


class RateLimiter:
    """So many requests a minute for each client, as many at once.

    Args:
      per_minute: None: any number. clock: seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}  # requests that are left, and when

    def check(self, client: str) -> None:
        """Counts a request. RequestError: there were too many."""
        if self._per_minute is None:
            return
        now, most = self._clock(), float(self._per_minute)
        left, before = self._left.pop(client, (most, now))
        left = min(left + (now - before) * most / 60, most)
        if left < 1:
            self._left[client] = left, now
            wait = math.ceil((1 - left) * 60 / most)
            raise RequestError(
                f"more than {self._per_minute} requests a minute; wait {wait} s",
                code="rate_limit_exceeded", status=429, kind="rate_limit_error",
                headers={"Retry-After": str(wait)},
            )  # fmt: skip
        self._left[client] = left - 1, now
        if len(self._left) > _CLIENTS:  # the one that asked least recently
            del self._left[next(iter(self._left))]


LIMITER = web.AppKey("limiter", RateLimiter)


def _is_own_host(name: str, settings: Settings) -> bool:
    if "*" in settings.allow_hosts or is_loopback(name):
        return True
    own = {host.strip("[]").lower().rstrip(".") for host in (settings.host, *settings.allow_hosts)}
    own |= {urlsplit(origin).hostname or "" for origin in settings.allow_origins}
    bare = name.strip("[]")
    if bare in own:
        return True
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return not settings.loopback  # no page has an address for a name


def _given_key(request: web.Request) -> str | None:
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and key.strip():
        return key.strip()
    if request.headers.get("Upgrade", "").lower() == "websocket":
        for name in offered_subprotocols(request):
            if name.startswith(SUBPROTOCOL):
                return name.removeprefix(SUBPROTOCOL)
    return None


def _is_key(given: str, settings: Settings) -> bool:
    # all are compared, whichever it is
    good = [hmac.compare_digest(_bytes(given), _bytes(key)) for key in settings.api_keys]
    return any(good)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as headers are read
