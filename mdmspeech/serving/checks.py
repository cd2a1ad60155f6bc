"""What a value of a request or an event may be. Every check names the field and what it should be."""

import math
from collections.abc import Callable, Collection
from typing import Any

from mdmspeech.serving.request_error import RequestError, refused, shown

Check = Callable[[str, Any], Any]  # (name of the field, value) -> what is kept; RequestError


def wrong(param: str, value: Any, cure: str) -> RequestError:
    """The error of a field."""
    return RequestError(f"{param} is {shown(value)}; give {cure}", param, code="invalid_value")


def mapping(param: str, value: Any) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(param, value, "an object")
    return value


def text(most: float = math.inf, empty: bool = True) -> Check:
    """A text of so many characters that can be written as UTF-8."""

    def check(param: str, value: Any) -> str:
        if not isinstance(value, str) or not (value or empty):
            raise wrong(param, value, "a text")
        if len(value) > most:
            raise RequestError(
                f"{param} has {len(value)} characters; {most} are the most",
                param,
                code="string_above_max_length",
            )
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise RequestError(
                f"{param} has half a character in it (a lone surrogate); send UTF-8", param
            )
        return value

    return check


def flag(param: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(param, value, "true or false")
    return value


def number(low: float, high: float, whole: bool = False) -> Check:
    """A number in a range; whole: 4.0 is one."""
    told = f"a {'whole ' * whole}number from {low:g} to {high:g}"

    def check(param: str, value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        # nor is NaN; a whole number may be too large for a float
        if not good or not low <= value <= high:
            raise wrong(param, value, told)
        if whole and isinstance(value, float) and not value.is_integer():
            raise wrong(param, value, told)
        return int(value) if whole else float(value)

    return check


def choice(*choices: str) -> Check:
    """One of some words."""

    def check(param: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise wrong(param, value, " or ".join(f'"{one}"' for one in choices))
        return value

    return check


def either(word: str, other: Check) -> Check:
    """A word, or something else."""
    return lambda param, value: value if value == word else other(param, value)


def only(allowed: Collection[Any], why: str) -> Check:
    """What may only say what is done anyway, or nothing."""

    def check(param: str, value: Any) -> Any:
        if value is not None and not any(
            value == one and type(value) is type(one) for one in allowed
        ):
            raise refused(param, why)
        return value

    return check


def anything(param: str, value: Any) -> Any:
    """What changes nothing here."""
    return value


def metadata(param: str, value: Any) -> dict[str, str] | None:
    """At most 16 short texts by name."""
    if value is None:
        return None
    found = mapping(param, value)
    if len(found) > 16 or not all(
        isinstance(one, str) and len(key) <= 64 and len(one) <= 512 for key, one in found.items()
    ):
        raise wrong(
            param, value, "at most 16 names of up to 64 characters, with texts of up to 512"
        )
    return found
