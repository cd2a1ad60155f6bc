"""The page at `/`: files of the package, told one by one, so that no path of a request reaches the
file system. They hold no secret and are given without a key, which the page asks for.
"""

from importlib import resources

from aiohttp import web

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMES = (
    "style.css", "icon.svg", "main.js", "realtime.js", "over_http.js", "sound.js", "pictures.js",
    "resampler.js", "scheduled.js", "capture_worklet.js", "playback_worklet.js", "answers.js",
    "history.js", "turns.js",
)  # fmt: skip
PATHS = {"/": "index.html", **{f"/{name}": name for name in _NAMES}}


async def page(request: web.Request) -> web.Response:
    """One of its files."""
    name = PATHS[request.path]
    body = (resources.files(__package__) / "static" / name).read_bytes()
    # of other places nothing; the socket by its name, which not every browser takes for 'self'
    host = request.headers["Host"]
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; "
        f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Permissions-Policy": "microphone=(self)"}
    kind = _KINDS[name.rpartition(".")[2]]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)
