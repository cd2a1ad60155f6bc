"""Written English -> the words that are said: "It costs $3.50 at 7:30." -> "It costs three dollars
and fifty cents at seven thirty.".

What comes out is words, apostrophes, hyphens inside of words, and the marks of a pause (. , ; : !
?); it is its own normal form. The steps, each in a module of its own: characters (one form of
each), markup, addresses, abbreviations, dates, money, codes, measures, numbers, and the signs that
are left. The corpus stores texts in this form, so that what the Thinker writes, what the voice says
and what a recogniser hears are the same words.
"""

import re
import warnings

from mdmspeech.errors import UserError
from mdmspeech.text import addresses, codes, markup, measures, moments, signs
from mdmspeech.text.abbreviations import read_abbreviations, read_dots
from mdmspeech.text.characters import fold, unsayable, without_unsayable
from mdmspeech.text.money import read_money
from mdmspeech.text.numerals import after, digits, number, quantity, year

__all__ = ["check_speakable", "normalise", "number", "sentence", "year"]

_NUMBER = re.compile(
    r"(?<![\w.])(?P<number>\d{1,3}(?:,\d{2,3}){0,12},\d{3}"
    r"|\d+)?(?P<decimals>(?<=\d)\.\d+|(?<!\d)\.\d+)?(?P<ordinal>(?<=\d)(?:st|nd"
    r"|rd|th)(?![A-Za-z]))?"
)
_ENDLESS = re.compile(r"(?<!\d)\d{40,}")
_ROUNDS = 4
_SHOWN = 40


def normalise(text: str) -> str:
    """`text` as spoken words. What no English voice can say (other scripts, emoji) is left out:
    `check_speakable` names it.
    """
    before, said = text, _read(text)
    # words can meet to make an abbreviation or an address: read until nothing changes
    for _ in range(_ROUNDS):
        if said == before:
            break
        before, said = said, _read(said)
    return said


def is_speakable_whole(text: str) -> bool:
    """Whether `normalise` leaves nothing of `text` out."""
    return not _left_out(text)


def check_speakable(text: str) -> str:
    """The words of `text`, as `normalise` gives them; to be called before any work on it.

    Raises `UserError` when there is nothing to say ("", "...", "—") or only what this voice cannot
    say (Cyrillic, Greek, Chinese, emoji); a text that holds some of that among words is spoken
    without it, and a warning (`UserWarning`) names what is left out.
    """
    said = normalise(text)
    left = _left_out(text)
    shown = text.strip()[:_SHOWN] + ("..." if len(text.strip()) > _SHOWN else "")
    if not any(character.isalnum() for character in said):
        if left:
            what = " and ".join(f"{kind} ({these})" for kind, these in left)
            raise UserError(
                f"there is nothing to say in {shown!r}: it is only {what}, and this "
                "voice speaks English; write English words"
            )
        raise UserError(f"there is nothing to say in {shown!r}; give words")
    if left:
        what = "; ".join(f"{kind} {these!r}" for kind, these in left)
        warnings.warn(
            f"left out of {shown!r}, because this voice speaks English: {what}",
            UserWarning,
            stacklevel=2,
        )
    return said


def sentence(text: str) -> str:
    """Capitalised and closed with a full stop if it has no end mark."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text.rstrip(" ,;:-") + "."


def _read(text: str) -> str:
    text = fold(text)
    text = markup.strip_links(markup.strip_tags(text))
    text = addresses.read_addresses(without_unsayable(fold(text), signs.KNOWN))
    text = markup.join_lines(text)
    text = read_abbreviations(text)
    if not text.isascii() or any(character.isdecimal() for character in text):
        text = _read_numbers(text)
    text = measures.read_lone_units(text)
    return signs.tidy(signs.speak(read_dots(signs.powers(signs.names(text)))))


def _read_numbers(text: str) -> str:
    text = _ENDLESS.sub(lambda match: f" {digits(match[0])} ", text)
    text = moments.read_dates(text)
    text = read_money(text)
    text = codes.read_codes(measures.join_groups(text))
    text = measures.read_signs_of_numbers(text)
    text = measures.read_measures(text)
    text = moments.read_years(text)
    text = codes.read_mixes(text)
    text = signs.powers(signs.names(text))
    text = _NUMBER.sub(_read_number, text)
    return re.sub(r"\d+", lambda m: f" {quantity(m[0])} ", text)


def _read_number(match: re.Match) -> str:
    written, decimals = match["number"] or "", match["decimals"] or ""
    if not written and not decimals:
        return ""
    if match["ordinal"] and not decimals:
        return number(int(written.replace(",", "")), ordinal=True)
    return quantity(written + decimals) + (" " if after(match, 1).isalpha() else "")


def _left_out(text: str) -> list[tuple[str, str]]:
    return unsayable(fold(markup.strip_tags(fold(text))), signs.KNOWN)
