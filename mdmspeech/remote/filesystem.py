"""The fsspec file system of a URL, one a process, with timeouts, and with our retries in place of
its own.
"""

import os
import threading
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.remote import paths, retrying

STALL = "MDMSPEECH_STALL_SECONDS"
_STALL_SECONDS = 60.0
_open: dict[tuple, Any] = {}
_lock = threading.Lock()


def filesystem(path: paths.Place) -> tuple[Any, str]:
    """The file system of a URL, and the name that it has for the object.

    A connection that brings nothing for $MDMSPEECH_STALL_SECONDS (60) counts as lost.

    Raises:
      UserError: no file system has that scheme, or its package is not installed.
    """
    kind = paths.scheme(path)
    stall = retrying.seconds_from(STALL, _STALL_SECONDS)
    # an endpoint may be named by the environment, and is read when a file system is made
    key = (os.getpid(), kind, stall, os.environ.get("STORAGE_EMULATOR_HOST"))
    with _lock:
        if key not in _open:
            _open[key] = _make(kind, stall, path)
        files = _open[key]
    return files, files._strip_protocol(os.fspath(path))


def _make(kind: str, stall: float, path: paths.Place) -> Any:
    import fsspec

    # an instance of our own: fsspec's cache has one a thread, each with its own log-in
    settings: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    try:
        if kind in ("gs", "gcs"):
            return _google(stall, settings)
        files = fsspec.get_filesystem_class(kind)
        if kind in ("s3", "s3a"):
            limits = {"connect_timeout": stall, "read_timeout": stall}
            settings["config_kwargs"] = {**limits, "retries": {"total_max_attempts": 1}}
        return files(**settings)
    except ImportError as error:
        raise UserError(
            f"cannot open {paths.shown(path)}: {retrying.reason(error)}; "
            "pip install mdmspeech[cloud] brings what object storage needs"
        ) from error
    except ValueError as error:
        if "rotocol not known" not in str(error):
            raise
        raise UserError(
            f"{paths.shown(path)}: nothing here reads {kind}:// paths; "
            "give a local path, gs://, s3:// or hf://"
        ) from error


def _google(stall: float, settings: dict[str, Any]) -> Any:
    """gcsfs's plain class: the one that fsspec would take also asks a gRPC service, which is not
    safe to fork, for the kind of each bucket. Its retries (from one second up, six times, each
    logged with a traceback) give way to ours, request by request, so that a long upload goes on
    where it was.
    """
    import aiohttp
    import gcsfs.core

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        settings["token"] = "anon"  # an emulator has no accounts; do not look for one for seconds
    limits = aiohttp.ClientTimeout(total=None, sock_connect=stall, sock_read=stall)
    files = gcsfs.core.GCSFileSystem(requests_timeout=limits, **settings)
    once = getattr(type(files)._request, "__wrapped__", None)
    if once is not None:

        async def request(*args, **kwargs):
            return await retrying.call_async(once, files, *args, **kwargs)

        files._request = request
    return files


def _forget() -> None:
    """In a forked process: connections, and the lock that a thread may have held, stay behind."""
    global _lock
    _lock = threading.Lock()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
