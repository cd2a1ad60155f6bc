"""Which errors of object storage pass, how long they are waited for, and how they are told.

Back-off with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
2015): before try n, a random part of min(longest, first * 2^n) seconds.
"""

import asyncio
import dataclasses
import errno
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mdmspeech.errors import UserError
from mdmspeech.remote import paths

Result = TypeVar("Result")

_PASSING_CODES = {408, 425, 429}
# not implemented, HTTP version not supported
_UNKNOWN_REQUEST = {501, 505}
# of the libraries below fsspec, which this module must not import: what they call a lost connection
_PASSING_NAMES = {
    "ClientError", "ServerDisconnectedError", "ClientPayloadError",  # aiohttp
    "RequestException", "HTTPError",  # requests, urllib3
    "TransportError", "RefreshError",  # google-auth: its token server did not answer
    "HTTPClientError", "ConnectionError", "ResponseStreamingError",  # botocore
    "ReadError", "ConnectError", "RemoteProtocolError",  # httpx, of huggingface_hub
}  # fmt: skip
_PASSING_ERRNO = {
    errno.EBUSY, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED,
    errno.ECONNABORTED, errno.EPIPE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN,
}  # fmt: skip
_LASTING = (
    FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError,
)  # fmt: skip
_SECRET = re.compile(
    r"(?i)\b((?:authorization\s*[=:]\s*)?(?:bearer|basic)\s+"
    r"|(?:access_token|id_token|refresh_token|token|password|secret|key|sig|signature|x-(?:amz|goog)-(?:signature|credential|security-token))"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,}]+"
)
SECONDS = "MDMSPEECH_RETRY_SECONDS"
STALL = "MDMSPEECH_STALL_SECONDS"


class NotFound(UserError):
    """No object, folder or bucket of that name."""


class Truncated(Exception):
    """A body with fewer bytes than were asked for: the connection ended early. It passes."""


class GivenUp(Exception):
    """An error that lasts: not one that passes, or one that did not pass in time."""

    def __init__(self, error: BaseException, tries: int, seconds: float):
        super().__init__(str(error))
        self.error, self.tries, self.seconds = error, tries, seconds


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """`budget`: seconds from the first failure on, after which no further try is made. `first` and
    `longest`: bounds in seconds of the random wait before the second try and before any.
    """

    budget: float = 120.0
    first: float = 0.1
    longest: float = 20.0

    @classmethod
    def from_environment(cls) -> "RetryPolicy":
        """The budget from $MDMSPEECH_RETRY_SECONDS where it is set."""
        return cls(budget=seconds_from(SECONDS, cls.budget))


class Attempts:
    """The tries of one request."""

    def __init__(self, policy: RetryPolicy):
        self._policy, self._tries, self._failed_first = policy, 0, 0.0

    def wait_after(self, error: Exception) -> float:
        """Seconds to wait before the next try. Raises `GivenUp` when there is none."""
        now = time.monotonic()
        if not self._tries:
            self._failed_first = now
        self._tries += 1
        spent = now - self._failed_first
        bound = min(self._policy.longest, self._policy.first * 2.0 ** min(self._tries - 1, 30))
        wait = random.uniform(0, bound)
        ending = not threading.main_thread().is_alive()  # do not keep a program from ending
        if ending or not passes(error) or spent + wait > self._policy.budget:
            raise GivenUp(error, self._tries, spent) from error
        return wait


def call(function: Callable[[], Result], policy: RetryPolicy | None = None) -> Result:
    """What the function gives, tried again while its errors pass. Raises `GivenUp`."""
    attempts = Attempts(policy or RetryPolicy.from_environment())
    while True:
        try:
            return function()
        except Exception as error:
            if isinstance(error, (GivenUp, UserError)):
                raise
            wait = attempts.wait_after(error)
        time.sleep(wait)


async def call_async(function: Callable[..., Awaitable[Any]], *args, **kwargs) -> Any:
    """`call` for a coroutine function, with the policy of the environment. Errors that do not pass
    are raised as they are, for the file system that they belong to.
    """
    attempts = Attempts(RetryPolicy.from_environment())
    while True:
        try:
            return await function(*args, **kwargs)
        except Exception as error:
            if not passes(error):
                raise
            wait = attempts.wait_after(error)
        await asyncio.sleep(wait)


def passes(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, _LASTING):
        return False
    if (code := status(error)) is not None:
        return code in _PASSING_CODES or (500 <= code < 600 and code not in _UNKNOWN_REQUEST)
    # an answer that is half of a JSON text came through a connection that broke
    if isinstance(
        error, (TimeoutError, ConnectionError, EOFError, Truncated, json.JSONDecodeError)
    ):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if any(kind.__name__ in _PASSING_NAMES for kind in type(error).__mro__):
        return not isinstance(error, ValueError)
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp, gcsfs, requests, huggingface_hub or botocore has."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    for code in (found, getattr(error, "status", None), getattr(error, "code", None)):
        if str(code).isdigit():
            return int(code)  # type: ignore[arg-type]
    return None


def told(given_up: GivenUp, doing: str, path: paths.Place) -> UserError:
    """One line for the user: the object, what went wrong last, what to do. No credentials."""
    error, place = given_up.error, paths.shown(path)
    code = status(error)
    if isinstance(error, FileNotFoundError) or code == 404:
        what = f"bucket {paths.bucket(path)}" if doing == "write" else "such object or bucket"
        return NotFound(f"cannot {doing} {place}: there is no {what}; check its name")
    if isinstance(error, PermissionError) or code in (401, 403) or "Forbidden" in str(error):
        return UserError(
            f"cannot {doing} {place}: not permitted ({reason(error)}); {_cure(path, code)}"
        )
    if passes(error):
        return UserError(
            f"cannot {doing} {place}: {reason(error)}, after {given_up.tries} tries in "
            f"{given_up.seconds:.0f} s; check the network and the storage service and start again, "
            f"or wait longer with {SECONDS}=600"
        )
    return UserError(f"cannot {doing} {place}: {reason(error)}; check its name and your access")


def reason(error: BaseException) -> str:
    """An error's first line without credentials, its type where it says nothing."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    words = re.sub(r"https?://\S+", lambda url: paths.shown(url[0]), lines[0] if lines else "")
    words = _SECRET.sub(r"\1...", words)[:200].strip()
    code = status(error)
    words = words.removesuffix(f", {code}")
    if code is not None and str(code) not in words:
        words = f"HTTP {code}: {words}".strip(": ")
    return words if words and words != "None" else type(error).__name__


def seconds_from(variable: str, default: float) -> float:
    """A number of seconds (or gigabytes) from an environment variable."""
    text = os.environ.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{variable}={text} is not a number from 0; set it to one, or unset it")
    return value


def stall_seconds() -> float:
    """A connection that brings nothing for $MDMSPEECH_STALL_SECONDS (60) counts as lost."""
    return seconds_from(STALL, 60.0)


def _cure(path: paths.Place, code: int | None) -> str:
    if paths.scheme(path) in ("gs", "gcs"):
        return (
            "log in (gcloud auth application-default login) with an account that has "
            "roles/storage.objectUser on the bucket"
        )
    if paths.scheme(path) in ("s3", "s3a"):
        return "log in (aws configure, or a role of the machine) with access to the bucket"
    if paths.scheme(path) == "hf":
        return "log in (hf auth login) with access to the repository"
    return "log in" if code == 401 else "ask its owner for access"
