"""Numbers in words: cardinals and ordinals by `num2words`, and what it does not know: years,
decades, digits one by one, codes, Roman numerals.
"""

import re

from num2words import num2words

FIRST_YEAR, LAST_YEAR = 1000, 2099
LONGEST = 15  # digits: what is longer is no quantity and is read digit by digit
ROMAN = re.compile(r"(?=[MIVXLCD]+\b)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def number(value: int | float, ordinal: bool = False) -> str:
    """A number in words, without the "and" and commas that num2words writes: 1250 -> "one thousand
    two hundred fifty".
    """
    words = num2words(abs(value), to="ordinal" if ordinal else "cardinal")
    if "point" not in words:
        words = words.replace(" and ", " ")
    return ("minus " if value < 0 else "") + words.replace(",", "")


def year(value: int) -> str:
    """A year as it is said: 1984 -> "nineteen eighty-four"."""
    return num2words(value, to="year").replace(",", "").replace(" and ", " ")


def digits(written: str) -> str:
    """Digit by digit: "007" -> "zero zero seven"."""
    return " ".join(number(int(digit)) for digit in written)


def quantity(written: str) -> str:
    """A number as written, with its grouping commas, decimals or leading zeros: "1,234.50" -> "one
    thousand two hundred thirty-four point five zero".
    """
    whole, point, decimals = written.replace(",", "").partition(".")
    grouped = "," in written and whole[:1] != "0"
    if len(whole) > (33 if grouped else LONGEST) or (len(whole) > 1 and whole[0] == "0"):
        said = digits(whole)
    else:
        said = number(int(whole)) if whole else ""
    return f"{said} point {digits(decimals)}".strip() if point and decimals else said


def code(written: str) -> str:
    """Digits of a name or address, as they are said: 4 -> "four", 747 -> "seven forty-seven", 505
    -> "five oh five", 4090 -> "forty ninety".
    """
    if len(written) > 4 or (len(written) > 1 and written[0] == "0"):
        return digits(written)
    head, tail = written[:-2], written[-2:]
    if not head:
        return number(int(written))
    if int(head) % 10 == 0 and tail == "00":
        return number(int(written))
    return (
        f"{number(int(head))} "
        f"{'hundred' if tail == '00' else 'oh ' + number(int(tail)) if tail[0] == '0' else number(int(tail))}"
    )


def before(match: re.Match, size: int = 60) -> str:
    """The text before a match, `size` characters of it, which keeps reading linear."""
    return match.string[max(0, match.start() - size) : match.start()]


def after(match: re.Match, size: int = 60) -> str:
    """The text after a match, `size` characters of it."""
    return match.string[match.end() : match.end() + size]


def word_set(words: str) -> frozenset[str]:
    """The words of a table that is written as one line."""
    return frozenset(words.split())


def plural(words: str) -> str:
    """The last word in the plural: "nineteen ninety" -> "nineteen nineties", "six" -> "sixes"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "s", "ch", "sh")) else "s")


def decade(written: str) -> str:
    """ "1990" -> "nineteen nineties", "80" -> "eighties", "2000" -> "two thousands", "1900" ->
    "nineteen hundreds".
    """
    return plural(year(int(written)) if len(written) == 4 else number(int(written)))


def roman(numeral: str) -> int:
    """The value of a Roman numeral in capitals: "XIV" -> 14."""
    values = [_ROMAN_VALUES[letter] for letter in numeral]
    return sum(
        -v if any(v < later for later in values[i + 1 : i + 2]) else v for i, v in enumerate(values)
    )
