"""Dates, times of day, years and decades in words."""

import re

from mdmspeech.text.numerals import (
    FIRST_YEAR,
    LAST_YEAR,
    after,
    before,
    decade,
    number,
    word_set,
    year,
)

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_SHORT = r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:1\d{3}|20\d\d)"
_ZONE = r"(?P<zone>\s?(?:Z|UTC|GMT)(?![\w]))?"
_CLOCK = r"(?:[01]?\d|2[0-4])"
_HALF = r"(?:\s?(?P<half>[AaPp])\.?\s?[Mm](?P<dot>\.)?(?![A-Za-z]))"
_ISO = re.compile(
    rf"(?<![\w/.-])(?P<y>{_YEAR})(?P<s>[-/.])(?P<m>0?[1-9]"
    rf"|1[0-2])(?P=s)(?P<d>{_DAY})(?:T(?=\d\d:)|(?![\w/-]|\.\d))"
)
_DATE = re.compile(
    rf"(?<![\w/.-])(?P<a>{_DAY})(?P<s>[-/.])(?P<b>{_DAY})(?P=s)(?P<y>{_YEAR}"
    r"|'?\d\d)(?![\w/-]|\.\d)"
)
_NAMED = re.compile(
    rf"(?<![\w/.-])(?P<d>{_DAY})-(?P<m>{_MONTH}|{_SHORT})-(?P<y>{_YEAR}|\d\d)(?![\w-])"
)
_MONTH_DAY = re.compile(
    rf"\b(?P<m>{_MONTH}|{_SHORT})\.? (?:the )?(?P<d>{_DAY})(?:st|nd|rd"
    r"|th)?\b(?![:%$€£]|[.,]\d|/\d| ?(?:am|pm|a\.m|p\.m|percent|%))"
    rf"(?:\s?[-–]\s?(?P<to>{_DAY})(?:st|nd|rd|th)?\b(?![:%]))?(?P<y>,? {_YEAR}\b(?![:%]))?"
)
_DAY_MONTH = re.compile(
    rf"(?<![\w.,:/$£€-])(?P<the>[Tt]he )?(?:(?P<from>{_DAY})(?:st|nd|rd"
    rf"|th)?\s?[-–]\s?)?(?P<d>{_DAY})(?:st|nd|rd|th)? (?:of "
    rf")?(?P<m>{_MONTH}|{_SHORT})\b\.?(?P<y>,? {_YEAR}\b(?![:%]))?"
)
_MONTH_YEAR = re.compile(rf"\b(?P<m>{_MONTH}|{_SHORT})\.?(?P<rest>,? {_YEAR}\b)")
_TIME = re.compile(
    rf"(?<![\w.:])(?P<h>{_CLOCK}):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d)(?:\.\d+)?)?{_HALF}?{_ZONE}(?![:\d])"
)
_DOTTED_TIME = re.compile(
    r"(?<![\w.:])(?P<h>1[0-2]"
    rf"|0?[1-9])\.(?P<m>[0-5]\d)(?P<s>)(?={_HALF.replace('?P<half>', '?:').replace('?P<dot>', '?:')}){_HALF}(?P<zone>)"
)
_HOUR = re.compile(rf"(?<![\w.:,])(?P<h>1[0-2]|0?[1-9]){_HALF}")
_HOURS = re.compile(
    rf"(?<![\w.:,])(?P<a>{_CLOCK}(?::[0-5]\d)?(?:\s?[AaPp]\.?[Mm]\.?)?)\s?[-–—]\s?(?={_CLOCK}(?::[0-5]\d)?\s?[AaPp]\.?\s?[Mm]\b|{_CLOCK}:[0-5]\d)"
)
_RATIO = re.compile(r"(?<![\w.:,])(\d{1,4}):(\d{1,4})(?![\d:])")
_DECADE = re.compile(r"(?<![\w.,$£€])(?P<mark>')?(?P<tens>1[0-9]\d0|20\d0|[2-9]0)['’]?s\b(?!\.\d)")
_SHORT_YEAR = re.compile(r"(?<!\w)'(\d\d)(?![\w'\"])")
_AGE = (
    r"\b(?i:in|since|by|until|till|of|from|before|after|around|early|late|mid|circa"
    r"|ca|c|year|years|during|to|and|between|through|spring|summer|autumn|fall"
    r"|winter)[ ,.-]*$|\b(?:January|February|March|April|May|June|July|August"
    r"|September|October|November|December)[ ,.]*$"
)
_PLAIN_YEAR = re.compile(
    r"(?<![\w.,:/$£€¥#+'])(?<![^A-Za-z]-)(?P<y>\d{4})(?![\w%°]"
    r"|[.,:/]\d)(?P<era> ?(?:AD|BC|CE|BCE|B\.C\.|A\.D\.)(?!\w))?(?= "
    r"(?P<noun>[a-z]+))?"
)
_TWO_YEARS = re.compile(
    rf"(?<![\w.,:/$£€-])(?P<a>{_YEAR})\s?[-–/]\s?(?P<b>{_YEAR}|\d\d)(?![\w/-]|[.,:]\d)"
)
_NOT_COUNTED = word_set(
    "is was as has does this us its his thus yes across less unless besides perhaps always"
)


def read_dates(text: str) -> str:
    """Dates and times of `text` in words; other numbers stay."""
    text = _HOURS.sub(lambda m: f"{m['a']} to ", text)
    text = _ISO.sub(lambda m: _date(m["m"], m["d"], m["y"], m[0].endswith("T")), text)
    text = _DATE.sub(_numbers_date, text)
    text = _NAMED.sub(lambda m: _date(str(_month(m["m"])), m["d"], m["y"]), text)
    text = _MONTH_DAY.sub(_month_day, text)
    text = _DAY_MONTH.sub(_day_month, text)
    text = _MONTH_YEAR.sub(lambda m: MONTHS[_month(m["m"]) - 1] + m["rest"], text)
    text = _TIME.sub(_time, _DOTTED_TIME.sub(_time, text))
    text = _HOUR.sub(_time, text)
    return _RATIO.sub(lambda m: f"{m[1]} to {m[2]}", text)


def read_years(text: str) -> str:
    """Decades and years in words, when what has a unit has been read."""
    text = _DECADE.sub(lambda m: decade(m["tens"]), text)
    text = _SHORT_YEAR.sub(lambda m: _two_digits(m[1]), text)
    text = _TWO_YEARS.sub(_two_years, text)
    return _PLAIN_YEAR.sub(_plain_year, text)


def _month(name: str) -> int:
    return next(n for n, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def _full_year(written: str) -> int:
    value = int(written.strip(" ,'"))
    return value if len(written.strip(" ,'")) > 2 else value + (1900 if value > 40 else 2000)


def _date(month: str, day: str, written_year: str, more: bool = False) -> str:
    return (
        f"{MONTHS[int(month) - 1]} {number(int(day), ordinal=True)}, "
        f"{year(_full_year(written_year))}"
    ) + (", " if more else "")


def _numbers_date(match: re.Match) -> str:
    """Month first as in America, unless it can be no month or the dots say that it is European."""
    a, b = int(match["a"]), int(match["b"])
    day, month = (a, b) if a > 12 or (match["s"] == "." and b <= 12) else (b, a)
    return _date(str(month), str(day), match["y"]) if month <= 12 else match[0]


def _month_day(match: re.Match) -> str:
    said = f"{MONTHS[_month(match['m']) - 1]} {number(int(match['d']), ordinal=True)}"
    if match["to"]:
        said += f" to {number(int(match['to']), ordinal=True)}"
    return said + (f", {year(_full_year(match['y']))}" if match["y"] else "")


def _day_month(match: re.Match) -> str:
    days = number(int(match["d"]), ordinal=True)
    if match["from"]:
        days = f"{number(int(match['from']), ordinal=True)} to {days}"
    return f"{match['the'] or 'the '}{days} of {MONTHS[_month(match['m']) - 1]}" + (
        f", {year(_full_year(match['y']))}" if match["y"] else ""
    )


def _time(match: re.Match) -> str:
    parts = {"m": None, "s": None, "zone": None, **match.groupdict()}
    half, hour = parts["half"], int(parts["h"])
    said = number(hour)
    if parts["m"] and int(parts["m"]):
        said += (
            f" oh {number(int(parts['m']))}"
            if parts["m"][0] == "0"
            else f" {number(int(parts['m']))}"
        )
    elif parts["m"] and not half and not parts["s"]:
        said += " o'clock" if 1 <= hour <= 12 else " hundred"
    if parts["s"]:
        said += f" and {number(int(parts['s']))} {'second' if int(parts['s']) == 1 else 'seconds'}"
    if half:
        said += f" {half.upper()}M" + _end_of(match)
    return said + (
        f" {'UTC' if parts['zone'].strip() == 'Z' else parts['zone'].strip()}"
        if parts["zone"]
        else ""
    )


def _end_of(match: re.Match) -> str:
    """The full stop that "p.m." shares with its sentence: at the end, or before a capital letter."""
    following = after(match)
    return (
        "."
        if match["dot"] and (not following.strip(" \n\"')") or re.match(r"\s+[A-Z]", following))
        else ""
    )


def _two_digits(written: str) -> str:
    return f"oh {number(int(written))}" if written[0] == "0" else number(int(written))


def _two_years(match: re.Match) -> str:
    if len(match["b"]) == 4 and int(match["b"]) <= int(match["a"]):
        return match[0]
    return (
        f"{year(int(match['a']))} to "
        f"{year(int(match['b'])) if len(match['b']) == 4 else _two_digits(match['b'])}"
    )


def _plain_year(match: re.Match) -> str:
    """Four digits are a year, unless they count something: "in 1984" but "1250 people"."""
    value = int(match["y"])
    if re.search(r"\d\)?\s?[=≈]\s?$", before(match, 8)):
        return match[0]  # what is worked out is no year
    era = f" {match['era'].replace('.', '').strip()}" if match["era"] else ""
    if not FIRST_YEAR <= value <= LAST_YEAR and not era:
        return match[0]
    if match["noun"] is not None and not era:
        noun = match["noun"]
        counted = (noun.endswith("s") and noun not in _NOT_COUNTED) or noun in (
            "people",
            "men",
            "women",
            "children",
            "feet",
            "or",
            "of",
        )
        if counted and (noun not in ("or", "of")) and not re.search(_AGE, before(match)):
            return match[0]
    return (year(value) if value >= FIRST_YEAR else number(value)) + era
