"""Requests read field by field: types, ranges and names are checked before anything is done, and a
field that nobody knows is refused by name.
"""

import asyncio
import math
from collections.abc import Collection, Mapping
from typing import Any

from aiohttp import web

from mdmspeech.serving.json_texts import read_json
from mdmspeech.serving.request_error import SHOWN, RequestError, kind_of, refused, shown

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
        value = self.take(name, default)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, value, "give a text")
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"{self.name(name)} has half a character in it (a lone surrogate); send UTF-8",
                self.name(name),
            ) from error
        return value

    def required(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise RequestError(f"{self.name(name)} is missing", self.name(name))
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of some words."""
        value = self.take(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, value, f"give {' or '.join(choices)}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "give true or false")
        return value

    def whole(self, name: str, low: int, high: int, default: int | None) -> int | None:
        """A whole number; 4.0 is one."""
        value = self.take(name, default)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            number = value
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        else:
            raise self.wrong(name, value, f"give a whole number from {low} to {high}")
        if number is not None and not low <= number <= high:
            raise self.wrong(name, value, f"give a whole number from {low} to {high}")
        return number

    def real(self, name: str, low: float, high: float, default: float) -> float:
        """A finite number."""
        value = self.take(name, default)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        # a whole number may be too large for a float
        if not good or not low <= value <= high or not math.isfinite(value):
            raise self.wrong(name, value, f"give a number from {low:g} to {high:g}")
        return float(value)

    def ignore(self, *names: str) -> None:
        """Fields that change nothing here."""
        for name in names:
            self.take(name)

    def only(self, name: str, harmless: Collection[Any], why: str) -> None:
        """A field that may only say what is done anyway."""
        value = self.take(name)
        if value is not None and not any(
            value == one and type(value) is type(one) for one in harmless
        ):
            raise refused(self.name(name), why)

    def done(self) -> None:
        """Nothing is left."""
        if self._left:
            name = self.name(next(iter(self._left)))
            shown = name if len(name) <= SHOWN else name[:SHOWN] + "..."
            raise RequestError(f"there is no field {shown!r} here", shown, code="unknown_parameter")

    def wrong(self, name: str, value: Any, cure: str) -> RequestError:
        """An error that names the field, its value and what it may be."""
        return RequestError(f"{self.name(name)} is {shown(value)}; {cure}", self.name(name))


async def json_body(request: web.Request) -> Fields:
    """The fields of a JSON body. RequestError: it is none; aiohttp's: it is too large."""
    data = await request.read()
    if len(data) > _LARGE:
        return Fields(await asyncio.to_thread(read_json, data, "the body"))
    return Fields(read_json(data, "the body"))
