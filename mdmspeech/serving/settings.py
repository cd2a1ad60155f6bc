"""How the server runs: every flag of `mdmspeech serve`, checked before the model is opened."""

import dataclasses
import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mdmspeech.errors import UserError
from mdmspeech.inference.generation_config import real, whole

KEY_VARIABLE = "MDMSPEECH_API_KEY"  # of the environment: keys, separated by commas
KEY_FILE_VARIABLE = "MDMSPEECH_API_KEY_FILE"  # a file of keys, if no flag names one
_SHORTEST_KEY = 8  # characters
_DAY = 86_400.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """UserError names what cannot be.

    Attributes:
      host, port: where it listens; port 0: any that is free. model_id: what clients call the model.
      api_keys: any of them lets a client in; none: everybody, and then only on this machine.
      allow_origins: web pages of these origins may ask ("https://talk.example", "*": all), besides
        the server's own. allow_hosts: names by which the server is asked for, besides its address
        and those of this machine ("*": all).
      ssl_certfile, ssl_keyfile: PEM files, for https and wss.
      max_sessions, max_queue: see `engine.Engine`.
      max_body: bytes of a request. max_text: characters that are spoken or asked. max_audio_s:
        seconds of a recording. max_session_s: of a conversation. idle_s: of one in which nothing
        is said.
      rate_limit: requests a minute and client (None: any number).
      context: tokens of a conversation, answers included. drain_s: seconds that what is being done
        may take when the server is told to stop.
      log_text: whether what was said is written into the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model_id: str = "compact"
    api_keys: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    max_sessions: int = 8
    max_queue: int = 16
    max_body: int = 25 * 2**20
    max_text: int = 4096
    max_audio_s: float = 30.0
    max_session_s: float = 3600.0
    idle_s: float = 600.0
    rate_limit: int | None = None
    context: int = 1024
    drain_s: float = 30.0
    log_text: bool = False

    def __post_init__(self) -> None:
        whole("port", self.port, 0, 65535, "from 0 (any that is free) to 65535")
        whole("max_sessions", self.max_sessions, 1, 1024, "from 1 to 1024")
        whole("max_queue", self.max_queue, 0, 65536, "from 0 to 65536")
        whole("max_body", self.max_body, 2**16, 2**31, "of bytes from 65536 to 2147483648")
        whole("context", self.context, 64, 2**20, "of tokens from 64 to 1048576")
        whole("max_text", self.max_text, 1, 2**20, "of characters from 1 to 1048576")
        if self.rate_limit is not None:
            whole("rate_limit", self.rate_limit, 1, 10**6, "of requests a minute from 1 to 1000000")
        for name, low in (
            ("max_audio_s", 0.1), ("max_session_s", 1.0), ("idle_s", 1.0), ("drain_s", 0.0),
        ):  # fmt: skip
            real(name, getattr(self, name), (low, _DAY), "seconds")
        self._check_names()
        for key in self.api_keys:
            _check_key(key)
        if not self.api_keys and not self.loopback:
            raise UserError(
                f"host={self.host!r} can be reached from other machines, and there is no key: give "
                f"--api-key (or {KEY_VARIABLE}), or listen on 127.0.0.1"
            )
        self._check_tls()

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.ssl_certfile is not None

    def url(self, port: int) -> str:
        """Where it is reached from this machine."""
        any_address = self.host in ("0.0.0.0", "::", "")
        host = "localhost" if any_address else f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.secure}://{host}:{port}"

    def check_free(self) -> None:
        """UserError: it cannot listen there."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            socket.create_server((self.host, self.port), family=family).close()
        except OSError as error:
            raise UserError(
                f"cannot listen on {self.host} port {self.port}: {error.strerror or error}; give "
                "another --host or --port"
            ) from error

    def _check_names(self) -> None:
        if not isinstance(self.host, str) or not self.host or re.search(r"[\s/]", self.host):
            raise UserError(f"host={self.host!r}: give an address or a name, such as 127.0.0.1")
        for origin in self.allow_origins:
            parts = urlsplit(origin)
            bare = parts.scheme in ("http", "https") and parts.netloc and not parts.path
            if origin != "*" and (not bare or parts.query or parts.fragment):
                raise UserError(
                    f"allowed origin {origin!r}: give scheme and host of a page, for example "
                    "https://talk.example, without a path"
                )
        for host in self.allow_hosts:
            if not host or re.search(r"[\s/:@]", host.strip("[]").replace("::", "")):
                raise UserError(
                    f"allowed host {host!r}: give a name without scheme and port, for example "
                    "talk.example"
                )

    def _check_tls(self) -> None:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise UserError("TLS needs both --ssl-certfile and --ssl-keyfile; give the other one")
        if self.ssl_certfile is not None and self.ssl_keyfile is not None:
            self.ssl_context()

    def ssl_context(self) -> Any:
        """The `ssl.SSLContext` of the certificate. UserError: files that are none."""
        import ssl

        assert self.ssl_certfile is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise UserError(
                f"{self.ssl_certfile} and {self.ssl_keyfile} are no certificate and its key "
                f"({error}); give PEM files that belong together"
            ) from error
        return context


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is of this machine only."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def gather_keys(given: tuple[str, ...] | list[str], file: str | None) -> tuple[str, ...]:
    """The keys of flags, of a file (one a line; its name may be in the environment) and of the
    environment, each once.

    UserError: a file that cannot be read or has none.
    """
    keys = list(given)
    file = file or os.environ.get(KEY_FILE_VARIABLE) or None
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the file of keys {file} cannot be read: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UserError(f"the file of keys {file} has no key in it; write one a line")
        keys += found
    keys += [key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]
    return tuple(dict.fromkeys(keys))


def _check_key(key: str) -> None:
    # what can stand in a header and in the name of a subprotocol
    if len(key) < _SHORTEST_KEY or not re.fullmatch(r"[A-Za-z0-9._~+-]+", key):
        raise UserError(
            f"an API key has {_SHORTEST_KEY} characters or more, letters, digits and ._~+-; make "
            'one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
