"""Names of places: a local path, or the URL of an object ("gs://bucket/run/config.json").

Only strings are looked at, nothing is opened. Never give a URL to `pathlib`: it makes "gs:/bucket"
of "gs://bucket".
"""

import os
import re
from pathlib import Path

from mdmspeech.errors import UserError

Place = str | os.PathLike

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_LOST_SLASH = re.compile(
    r"(?:.*/)?((?:gs|gcs|s3|s3a|hf|memory|az|abfs|abfss|adl|https?|ftp|sftp|hdfs|oss|oci):/(?!/).*)",
    re.IGNORECASE | re.DOTALL,
)
_WEB = ("http", "https")


def is_remote(path: Place) -> bool:
    """Whether a path is a URL. "file:///x" is a local path, written as one.

    Raises:
      UserError: what is left of a URL that went through `pathlib` ("gs:/bucket"), or no bucket
        named.
    """
    text = os.fspath(path)
    if found := _URL.fullmatch(text):
        if found[1].lower() in ("file", "local"):
            return False
        if not found[2].strip("/"):
            raise UserError(f"{text} names no bucket; write {found[1]}://BUCKET/FOLDER")
        return True
    if found := _LOST_SLASH.fullmatch(text):
        url = found[1].replace(":/", "://", 1)
        raise UserError(f"{text} is a URL that has lost a slash; write {url}")
    return False


def scheme(path: Place) -> str:
    """ "gs" of "gs://bucket/x", "" of a local path."""
    return _URL.fullmatch(os.fspath(path))[1].lower() if is_remote(path) else ""  # type: ignore[index]


def local(path: Place) -> Path:
    """A local path as `Path`, with "~" spelled out and "file://" taken off."""
    text = os.fspath(path)
    if found := _URL.fullmatch(text):
        text = found[2]
    return Path(text).expanduser()


def join(path: Place, *names: Place) -> str:
    """A place below another. Names are relative, may have slashes inside, and never lead upwards."""
    parts = [part for name in names for part in _relative(os.fspath(name)).split("/") if part]
    if not is_remote(path):
        return str(local(path).joinpath(*parts))
    base, question, query = _without_query(path)
    return "/".join([base.rstrip("/"), *parts]) + question + query


def name(path: Place) -> str:
    """The last part: "x.json" of "gs://bucket/run/x.json", "bucket" of "gs://bucket/"."""
    if not is_remote(path):
        return local(path).name
    return _without_query(path)[0].rstrip("/").rsplit("/", 1)[1]


def parent(path: Place) -> str:
    """The place that has it: "gs://bucket/run" of "gs://bucket/run/x.json". A bucket is its own."""
    if not is_remote(path):
        return str(local(path).parent)
    base, question, query = _without_query(path)
    above, _, last = base.rstrip("/").rpartition("/")
    return (f"{above}/{last}" if above.endswith(("/", ":")) else above) + question + query


def bucket(path: Place) -> str:
    """ "gs://bucket" of any URL in it."""
    found = _URL.fullmatch(os.fspath(path))
    if found is None or not is_remote(path):
        raise ValueError(f"{path} is not a URL")
    return f"{found[1]}://{found[2].split('/', 1)[0]}"


def shown(path: Place) -> str:
    """A URL as it may be printed: without a user's name, password or signature in it."""
    text = re.sub(r"(?<=://)[^/@]*@(?=[^/])", "", os.fspath(path))
    return re.sub(r"\?.*", "?...", text, flags=re.DOTALL) if _URL.fullmatch(text) else text


def _relative(text: str) -> str:
    if _URL.fullmatch(text) or text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"{text!r} is not a name below a folder")
    return text


def _without_query(path: Place) -> tuple[str, str, str]:
    """A web address in three: the address, "?", what follows. Object names may have a "?"."""
    text = os.fspath(path)
    return text.partition("?") if scheme(text) in _WEB else (text, "", "")
