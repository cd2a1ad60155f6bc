"""Amounts of money in words: "$3.50", "-$5", "US$20", "$5bn", "20€", "$1.5 million", "USD 20",
"€1.000,50", "50¢", "$5-10", "$5/month".
"""

import re
from typing import NamedTuple

from mdmspeech.text.numerals import plural, quantity


class Currency(NamedTuple):
    """one, many: the unit; cent, cents: its hundredth ("" where there is none in use)."""

    one: str
    many: str
    cent: str = ""
    cents: str = ""


_DOLLAR, _POUND, _EURO = (
    Currency("dollar", "dollars", "cent", "cents"),
    Currency("pound", "pounds", "penny", "pence"),
    Currency("euro", "euros", "cent", "cents"),
)
_YEN, _RUPEE, _WON, _FRANC = (
    Currency("yen", "yen"),
    Currency("rupee", "rupees", "paisa", "paise"),
    Currency("won", "won"),
    Currency("franc", "francs", "centime", "centimes"),
)
SIGNS = {
    "$": _DOLLAR, "£": _POUND, "€": _EURO, "¥": _YEN, "₹": _RUPEE, "₨": _RUPEE, "₩": _WON,
    "₽": Currency("ruble", "rubles", "kopeck", "kopecks"),
    "₿": Currency("bitcoin", "bitcoin"), "₺": Currency("lira", "lira", "kurus", "kurus"),
    "₴": Currency("hryvnia", "hryvnias"),
    "₪": Currency("shekel", "shekels", "agora", "agorot"),
    "฿": Currency("baht", "baht", "satang", "satang"), "₫": Currency("dong", "dong"),
    "₱": Currency("peso", "pesos", "centavo", "centavos"),
    "₦": Currency("naira", "naira", "kobo", "kobo"), "₲": Currency("guarani", "guaranis"),
    "₡": Currency("colon", "colones"), "₵": Currency("cedi", "cedis"),
    "₸": Currency("tenge", "tenge"), "₼": Currency("manat", "manats"),
    "₾": Currency("lari", "laris"), "₣": _FRANC, "₤": Currency("lira", "lira"),
    "₮": Currency("tugrik", "tugriks"), "₭": Currency("kip", "kips"),
    "ƒ": Currency("florin", "florins"),
}  # fmt: skip
_OF = {
    "US": "US",
    "U.S.": "US",
    "C": "Canadian",
    "CA": "Canadian",
    "A": "Australian",
    "AU": "Australian",
    "NZ": "New Zealand",
    "HK": "Hong Kong",
    "S": "Singapore",
}
CODES = {
    **{f"{land}$": Currency(f"{name} dollar", f"{name} dollars", "cent", "cents") for land,
        name in _OF.items()},
    "R$": Currency("real", "reais", "centavo", "centavos"), "USD": _DOLLAR, "EUR": _EURO,
    "GBP": _POUND, "JPY": _YEN, "INR": _RUPEE, "KRW": _WON,
    "CNY": Currency("yuan", "yuan"), "RMB": Currency("yuan", "yuan"),
    "CHF": Currency("Swiss franc", "Swiss francs"),
    "CAD": Currency("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "AUD": Currency("Australian dollar", "Australian dollars", "cent", "cents"),
    "MXN": Currency("Mexican peso", "Mexican pesos"),
    "SEK": Currency("Swedish krona", "Swedish kronor"),
    "NOK": Currency("Norwegian krone", "Norwegian kroner"),
    "DKK": Currency("Danish krone", "Danish kroner"), "PLN": Currency("zloty", "zlotys"),
    "RUB": SIGNS["₽"], "BRL": Currency("real", "reais"), "BTC": Currency("bitcoin", "bitcoin"),
    "ZAR": Currency("rand", "rand"), "Rs.": _RUPEE, "Rs": _RUPEE, "zł": Currency("zloty", "zlotys"),
    "Kč": Currency("koruna", "korunas"),
}  # fmt: skip
_BIG = {
    "hundred": "hundred", "thousand": "thousand", "million": "million", "billion": "billion",
    "trillion": "trillion", "k": "thousand", "K": "thousand",
    "m": "million", "M": "million", "mn": "million", "mio": "million", "mil": "million",
    "MM": "million", "mm": "million", "bn": "billion", "b": "billion", "B": "billion",
    "tn": "trillion", "t": "trillion", "T": "trillion", "Mn": "million", "Bn": "billion",
    "Tn": "trillion", "dozen": "dozen", "crore": "crore", "lakh": "lakh",
}  # fmt: skip
_BIG |= {
    word.capitalize(): word
    for word in ("thousand", "million", "billion", "trillion", "dozen", "crore", "lakh")
}
_BIG |= {word.upper(): word for word in ("thousand", "million", "billion", "trillion")}
_PER = {
    "mo": "month",
    "yr": "year",
    "hr": "hour",
    "h": "hour",
    "wk": "week",
    "min": "minute",
    "sec": "second",
    "s": "second",
    "d": "day",
}


def _alternatives(words) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_AMOUNT = (
    r"(?:\d{1,3}(?:\.\d{3}){1,6},\d{2}|\d+(?:,\d{2,3}){0,12},\d{3}(?:\.\d+)?"
    r"|\d{1,3}(?: \d{3}){1,6}(?! {0,4}\d)(?:[.,]\d\d)?|\d+,\d\d(?!\d)|\d*\.\d+|\d+)"
)
_UNIT = rf"(?:{_alternatives(CODES)}|[{''.join(SIGNS)}])"
_SCALE = rf"(?:\s?-?\s?(?P<{{}}>{_alternatives(_BIG)}))?(?![\w])"
_BEFORE = rf"(?<![\w$£€¥.])(?P<sign>[-−–+±~]\s?)?(?P<unit>{_UNIT})\s?(?P<inner>[-−])?(?P<amount>{_AMOUNT})"
_RANGE = rf"(?:\s?(?P<to>[-–—]|to)\s?(?:{_UNIT})?(?P<second>{_AMOUNT})(?![\d%]))?"
_PREFIXED = re.compile(
    rf"(?P<article>\b[Aa]n? )?{_BEFORE}(?P<first>k|K|m|M|bn|b"
    rf"|B)?{_RANGE}{_SCALE.format('scale')}(?P<per>/[A-Za-z]+"
    r"|-(?=an?-))?(?P<noun>(?= [a-z]+)|-(?=[a-z]))?"
)
_SUFFIXED = re.compile(
    rf"(?<![\w.,])(?P<sign>[-−+±]\s?)?(?P<amount>{_AMOUNT})(?P<rest>(?:\s?[-–]\s?(?P<second>{_AMOUNT}))?)(?:\s?(?P<scale>{_alternatives(_BIG)}))?\s?(?P<unit>{_UNIT})(?![\w\d])(?P<per>/[A-Za-z]+)?"
)
_PARTS = {
    "½": "half", "¼": "a quarter", "¾": "three quarters", "⅓": "a third", "⅔": "two thirds",
    "⅛": "an eighth", "⅜": "three eighths", "⅝": "five eighths",
    "⅞": "seven eighths", "⅕": "a fifth", "⅖": "two fifths", "⅗": "three fifths",
    "⅘": "four fifths",
}  # fmt: skip
_PART = re.compile(
    rf"(?<![\w$£€¥.])(?P<sign>[-−+±~]\s?)?(?P<unit>{_UNIT})\s?(?P<whole>\d+)?\s?(?P<part>[{''.join(_PARTS)}])(?:\s?(?P<scale>{_alternatives(_BIG)}))?(?![\w])"
)
_NOTES = re.compile(rf"(?<![\w$£€¥.])(?:{_UNIT})(?P<n>[1-9]0{{0,3}})['’]?s(?!\w)")
_CENTS = re.compile(r"(?<![\w.])(?P<amount>\d*\.?\d+)\s?(?:¢|(?P<pence>p)(?![\w]))")
_SIGN_WORDS = {
    "-": "minus ",
    "−": "minus ",
    "–": "minus ",
    "+": "plus ",
    "±": "plus or minus ",
    "~": "about ",
    "": "",
}


def read_money(text: str) -> str:
    """Every amount of money in `text` as words; the rest as it is."""
    text = _PART.sub(_part, text)
    text = _NOTES.sub(
        lambda m: plural(quantity(m["n"]).removeprefix("one " if len(m["n"]) > 2 else "")), text
    )
    text = _PREFIXED.sub(_prefixed, text)
    text = _SUFFIXED.sub(_suffixed, text)
    return _CENTS.sub(_cents, text)


def amount(written: str, currency: Currency) -> str:
    """A plain amount: ("3.50", dollars) -> "three dollars and fifty cents", (".5", dollars) ->
    "fifty cents", ("3.999", dollars) -> with "point".
    """
    whole, _, part = written.partition(".")
    if not part or not currency.cent or len(part) > 2:
        return f"{quantity(written)} {currency.one if written in ('1', '1.0') else currency.many}"
    units, hundredths = int(whole or 0), int(part.ljust(2, "0"))
    said = (
        [f"{quantity(whole)} {currency.one if units == 1 else currency.many}"]
        if units or not hundredths
        else []
    )
    if hundredths:
        said.append(
            f"{quantity(str(hundredths))} {currency.cent if hundredths == 1 else currency.cents}"
        )
    return " and ".join(said)


def _plain(written: str) -> str:
    """The amount with decimal point and without grouping: "1.000,50" and "1,000.50" -> "1000.50",
    "3,50" -> "3.50".
    """
    written = written.replace(" ", "")
    if (
        re.search(r",\d{2}$", written)
        and "," in written
        and not re.search(r"\..*\.|,.*,|,.*\.", written.replace(".", "", written.count(".")))
    ):
        written = written.replace(".", "").replace(",", ".")
    return written.replace(",", "")


def _currency(unit: str) -> Currency:
    return CODES[unit] if unit in CODES else SIGNS[unit]


def _say(match: re.Match, first_scale: str | None = None, adjective: bool = False) -> str:
    currency, one, two = (
        _currency(match["unit"]),
        _plain(match["amount"]),
        match["second"] and _plain(match["second"]),
    )
    scale = match["scale"] and _BIG[match["scale"]]
    if scale or first_scale or two or adjective:
        said = quantity(one) + (
            f" {_BIG[first_scale]}" if first_scale and (two or not scale) else ""
        )
        said += f" to {quantity(two)}" if two else ""
        said += f" {scale}" if scale else ""
        single = adjective or (one == "1" and not scale and not two and not first_scale)
        said += f" {currency.one if single else currency.many}"
    else:
        said = amount(one, currency)
    if match["per"] and match["per"] != "-":
        said += f" per {_PER.get(match['per'][1:], match['per'][1:])}"
    return said


def _part(match: re.Match) -> str:
    """ "$½" -> "half a dollar", "$1½" -> "one and a half dollars", "$¼ million" -> "a quarter
    million dollars".
    """
    currency, part = _currency(match["unit"]), _PARTS[match["part"]]
    scale, sign = (
        match["scale"] and _BIG[match["scale"]],
        _SIGN_WORDS[(match["sign"] or "").strip()],
    )
    if match["whole"]:
        part = f"{quantity(match['whole'])} and {'a half' if part == 'half' else part}"
    if not match["whole"] and not scale:
        article = "an" if currency.one[0] in "aeio" and not currency.one.startswith("euro") else "a"
        return f"{sign}{part} {'' if part == 'half' else 'of '}{article} {currency.one}"
    part = "half a" if part == "half" else part
    return f"{sign}{part} {scale + ' ' if scale else ''}{currency.many}"


def _prefixed(match: re.Match) -> str:
    sign = ((match["sign"] or "").strip() or match["inner"] or "").strip()
    noun = match["noun"] is not None
    adjective = (
        noun
        and ((match["article"] is not None and not match["per"]) or match["noun"] == "-")
        and "." not in match["amount"]
    )
    after = " " if match["per"] == "-" or match["noun"] == "-" else ""
    return (
        (match["article"] or "")
        + _SIGN_WORDS[sign]
        + _say(match, match["first"], adjective)
        + after
    )


def _suffixed(match: re.Match) -> str:
    return _SIGN_WORDS[(match["sign"] or "").strip()] + _say(match)


def _cents(match: re.Match) -> str:
    if match["pence"] and ("." in match["amount"] or int(match["amount"]) >= 100):
        return match[0]
    one = match["amount"] == "1"
    names = ("penny", "pence") if match["pence"] else ("cent", "cents")
    return f"{quantity(match['amount'])} {names[0 if one else 1]}"
