"""Requests read field by field: types, ranges and names are checked before anything is done, and a
field that nobody knows is refused by name.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from aiohttp import web

from mdmspeech.serving import checks
from mdmspeech.serving.json_texts import read_json
from mdmspeech.serving.request_error import SHOWN, RequestError, kind_of

_LARGE = 2**18  # bytes of a body that is not read in the event loop


class Fields:
    """Of one JSON object: take each, then `done`. A field that is null counts as absent.

    Args:
      body: the object. where: what its fields are called in messages ("audio.").
    """

    def __init__(self, body: Any, where: str = "") -> None:
        if not isinstance(body, Mapping):
            raise RequestError(
                f"{where.rstrip('.') or 'the body'} is {kind_of(body)}; give a JSON object",
                where.rstrip(".") or None,
            )
        self._left = {name: value for name, value in body.items() if value is not None}
        self._where = where

    def name(self, name: str) -> str:
        """What messages call a field."""
        return self._where + name

    def take(self, name: str, default: Any = None) -> Any:
        """Of any type."""
        return self._left.pop(name, default)

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text that can be written as UTF-8."""
        return self._checked(name, default, checks.text())

    def required(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise RequestError(f"{self.name(name)} is missing", self.name(name))
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of some words."""
        return self._checked(name, default, checks.choice(*choices))

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        return self._checked(name, default, checks.flag)

    def whole(self, name: str, low: int, high: int, default: int | None) -> int | None:
        """A whole number; 4.0 is one."""
        return self._checked(name, default, checks.number(low, high, whole=True))

    def real(self, name: str, low: float, high: float, default: float) -> float:
        """A finite number."""
        return self._checked(name, default, checks.number(low, high))

    def ignore(self, *names: str) -> None:
        """Fields that change nothing here."""
        for name in names:
            self.take(name)

    def only(self, name: str, harmless: Collection[Any], why: str) -> None:
        """A field that may only say what is done anyway."""
        checks.only(harmless, why)(self.name(name), self.take(name))

    def done(self) -> None:
        """Nothing is left."""
        if self._left:
            name = self.name(next(iter(self._left)))
            shown = name if len(name) <= SHOWN else name[:SHOWN] + "..."
            raise RequestError(f"there is no field {shown!r} here", shown, code="unknown_parameter")

    def wrong(self, name: str, value: Any, cure: str) -> RequestError:
        """An error that names the field, its value and what it may be."""
        return checks.wrong(self.name(name), value, cure)

    def _checked(self, name: str, default: Any, check: checks.Check) -> Any:
        value = self.take(name)
        return default if value is None else check(self.name(name), value)


async def json_body(request: web.Request) -> Fields:
    """The fields of a JSON body. RequestError: it is none; aiohttp's: it is too large."""
    data = await request.read()
    if len(data) > _LARGE:
        return Fields(await asyncio.to_thread(read_json, data, "the body"))
    return Fields(read_json(data, "the body"))
