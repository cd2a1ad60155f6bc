"""Written text -> the words that are said: times, dates, units, money and symbols by `hibari-tts`'s normaliser, the numbers that are left by `num2words`.

The corpus stores texts in this form, so that what the Thinker writes, what the voice says and what a recogniser hears are the same words.
"""

import re

from num2words import num2words

from mdmspeech.text.pronounce import import_hibari

_NUMBER = re.compile(
    r"(?P<minus>(?<![\w.])[-−])?(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<decimals>\d+))?(?P<ordinal>st|nd|rd|th)?(?P<percent> ?%)?"
)
_QUOTES = str.maketrans({"“": "", "”": "", '"': "", "`": "'", "‘": "'", "’": "'", "–": "-", "…": "...", "\u00a0": " "})
_WORD_JOINED_QUOTE = re.compile(r"(?<!\w)'|'(?!\w)")
_WORD_AT_END = re.compile(r"\b(?:no|nos|fig|ch|ed|est|sat|sun|sen|rep|gen|co|mar)\b(?=\.(?! ?\d))", re.IGNORECASE)
_KEPT = "\u2060"  # after a word that is not an abbreviation
FIRST_YEAR, LAST_YEAR = 1100, 2099


def normalise(text: str) -> str:
    """`text` with every number and symbol as words: "It costs $3.50 at 7:30." -> "It costs three dollars and fifty cents at seven thirty."."""
    text = _money(text.translate(_QUOTES))
    text = _WORD_AT_END.sub(rf"\g<0>{_KEPT}", text)  # "The answer is no." has no number
    text = import_hibari("hibari.g2p.normalize").normalize(text).replace(_KEPT, "")
    text = _NUMBER.sub(_read_number, text)
    return re.sub(r"\s+", " ", _WORD_JOINED_QUOTE.sub("", text)).strip()


def number(value: int | float, ordinal: bool = False) -> str:
    """A number in words, without the "and" and commas that num2words writes: 1250 -> "one thousand two hundred fifty"."""
    words = num2words(abs(value), to="ordinal" if ordinal else "cardinal")
    if "point" not in words:
        words = words.replace(" and ", " ")
    return ("minus " if value < 0 else "") + words.replace(",", "")


def year(value: int) -> str:
    """A year as it is said: 1984 -> "nineteen eighty-four"."""
    return num2words(value, to="year").replace(",", "").replace(" and ", " ")


def sentence(text: str) -> str:
    """Capitalised and closed with a full stop if it has no end mark."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text.rstrip(" ,;:-") + "."


def _money(text: str) -> str:
    """$3.50 -> "three dollars and fifty cents" (the G2P would do it, but only in phonemes)."""

    def say(match: re.Match) -> str:
        dollars, cents = int(match[1].replace(",", "")), match[2]
        said = f"{number(dollars)} {'dollar' if dollars == 1 else 'dollars'}"
        return said + (f" and {number(int(cents))} {'cent' if int(cents) == 1 else 'cents'}" if cents and int(cents) else "")

    return re.sub(r"\$(\d+(?:,\d{3})*)(?:\.(\d\d))?(?!\.?\d)(?! (?:thousand|million|billion))", say, text)


def _read_number(match: re.Match) -> str:
    digits, decimals = match["number"].replace(",", ""), match["decimals"]
    before, after = match.string[: match.start()], match.string[match.end() :]
    if match["ordinal"]:
        said = number(int(digits), ordinal=True)
    elif decimals:
        said = f"{number(int(digits))} point {' '.join(number(int(d)) for d in decimals)}"
    elif len(digits) == 4 and "," not in match["number"] and FIRST_YEAR <= int(digits) <= LAST_YEAR:
        said = year(int(digits))
    elif len(digits) > 1 and digits[0] == "0":
        said = " ".join(number(int(d)) for d in digits)
    else:
        said = number(int(digits))
    said = ("minus " if match["minus"] else "") + said + (" percent" if match["percent"] else "")
    return (" " if before[-1:].isalpha() else "") + said + (" " if after[:1].isalpha() else "")
