"""JSON from clients, read as the standard has it and no deeper than anything needs."""

import json
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.serving.request_error import RequestError

_DEEPEST = 32  # levels


def read_json(data: str | bytes, what: str) -> Any:
    """The value. what: what the text is, for errors. RequestError: it is no JSON."""
    try:
        value = json.loads(data, parse_constant=_no_constant)
        deep = _deeper_than(value, _DEEPEST)
    except UserError as error:
        raise RequestError(
            f"{what} has {error} in it, which is no JSON", code="invalid_json"
        ) from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        raise RequestError(
            f"{what} is no JSON ({type(error).__name__}); send an object in UTF-8",
            code="invalid_json",
        ) from error
    if deep:
        raise RequestError(f"{what} is nested more than {_DEEPEST} deep", code="invalid_json")
    return value


def _no_constant(name: str) -> None:
    raise UserError(name)


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether lists and objects in it are nested more deeply."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, list | dict) for one in level)
