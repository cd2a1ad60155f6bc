"""What is wrong with a request, for HTTP and sockets alike. No part of the server is needed for it."""

import json
from typing import Any

from mdmspeech.errors import UserError

INVALID = "invalid_request_error"
SHOWN = 60  # characters of a wrong value


class RequestError(UserError):
    """A request that cannot be served.

    Attributes:
      status: of HTTP. param: the field that is wrong. code: for programs. kind: OpenAI's `type`.
        headers: of the answer.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        code: str | None = None,
        status: int = 400,
        kind: str = INVALID,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.param, self.code, self.status, self.kind = param, code, status, kind
        self.headers = headers or {}


def refused(param: str, why: str, value: str = "") -> RequestError:
    """Of a field, or a value of one, that is understood and not supported."""
    told = f"{param} {value}".strip()
    return RequestError(f"{told} is not supported: {why}", param, code="unsupported_parameter")


def shown(value: Any) -> str:
    """The beginning of a value, as JSON has it."""
    if isinstance(value, list | dict):
        return kind_of(value)
    text = json.dumps(value) if not _huge(value) else "a number of many digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def kind_of(value: Any) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return next((told for kind, told in kinds.items() if isinstance(value, kind)), "a number")


def _huge(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > 4096
