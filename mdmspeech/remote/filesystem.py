"""The fsspec file system of a URL, one a process, with timeouts and retries."""

import os
import threading
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.remote import accounts, paths, retrying

_ENVIRONMENT = {"STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL", retrying.STALL}
_open: dict[tuple, Any] = {}
_lock = threading.Lock()
_OURS = "mdmspeech.remote.google_storage.GoogleStorage"


def register() -> None:
    """gs:// is our class for all that goes through fsspec: etils' paths, and Orbax by them."""
    import fsspec

    for name in ("gs", "gcs"):
        fsspec.register_implementation(
            name, _OURS, clobber=True, errtxt="Please install gcsfs to access Google Storage"
        )


_BRINGS = {
    "gs": "pip install mdmspeech[cloud] brings what it needs",
    "s3": "pip install s3fs brings what it needs",
}


def filesystem(path: paths.Place) -> tuple[Any, str]:
    """The file system of a URL, and the name that it has for the object.

    Raises:
      UserError: no file system has that scheme, or its package is not installed.
    """
    kind, settings = _class(path)
    # an endpoint and limits may be named by the environment: read when a file system is made
    named = [value for key, value in sorted(os.environ.items()) if key in _ENVIRONMENT]
    key = (os.getpid(), kind, accounts.acting(), *named)
    with _lock:
        if key not in _open:
            # an instance of our own: fsspec's cache has one a thread, each with its own log-in
            _open[key] = kind(skip_instance_cache=True, use_listings_cache=False, **settings)
        files = _open[key]
    return files, files._strip_protocol(os.fspath(path))


def _class(path: paths.Place) -> tuple[Any, dict[str, Any]]:
    import fsspec

    scheme, settings = paths.scheme(path), {}
    if scheme in ("gs", "gcs") and scheme not in fsspec.registry:
        register()
    try:
        kind = fsspec.get_filesystem_class(scheme)
        if scheme in ("s3", "s3a"):
            stall = retrying.stall_seconds()
            limits = {"connect_timeout": stall, "read_timeout": stall}
            settings["config_kwargs"] = {**limits, "retries": {"total_max_attempts": 1}}
        return kind, settings
    except ImportError as error:
        raise UserError(
            f"cannot open {paths.shown(path)}: {retrying.reason(error)}; "
            f"{_BRINGS.get(paths.scheme(path), 'install the package of fsspec that reads it')}"
        ) from error
    except ValueError as error:
        if "rotocol not known" not in str(error):
            raise
        raise UserError(
            f"{paths.shown(path)}: nothing here reads {scheme}:// paths; "
            "give a local path, gs://, s3:// or hf://"
        ) from error


def _forget() -> None:
    """In a forked process: connections, and the lock that a thread may have held, stay behind."""
    global _lock
    _lock = threading.Lock()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
