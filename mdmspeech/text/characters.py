"""Characters: one form for every way to write the same sign, and what no voice of ours can say.

NFC first, so that an accent written on its own (as macOS does) belongs to its letter; then
typographic apostrophes, dashes, ligatures, full-width and mathematical letters become the plain
ones. Superscripts, fractions and signs with a reading of their own stay for the later steps.
"""

import re
import unicodedata

# The apostrophe in all its shapes:
# also the prime and the accents that stand for it in don′t and it´s.
APOSTROPHES = "'’‘‛ʼʹʻˈ´`＇ꞌ"
_IN_WORD_ONLY = "′＇´`ʹˊ"
_DOUBLE_QUOTES = '"“”„‟«»‹›〝〞〟＂「」『』'
_HYPHENS = "\u2010\u2011\u2043\ufe63\uff0d"
_DASHES = "\u2012\u2013\u2014\u2015\u2e3a\u2e3b\ufe58"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# a run of blanks says nothing, and rules that begin with blanks would try each of them
_WIDE = re.compile(r"[ \t]{5,}")
_LINES = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
SUPERSCRIPT = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
SUBSCRIPT = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₓ", "0123456789+-=()nx", strict=True))
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "ο": "omicron", "π": "pi", "ρ": "rho",
    "σ": "sigma", "ς": "sigma", "τ": "tau",
    "υ": "upsilon", "φ": "phi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip
# What compatibility decomposition would spoil, because the sign is read as itself (signs.py) or by
# a rule of its own.
_KEPT = frozenset({*SUPERSCRIPT, *SUBSCRIPT, *"™℠¨¯´¸ªº½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅑⅐⅒′″‴"})
_WRITTEN_OUT = {
    "℃": "°C",
    "℉": "°F",
    "№": "No.",
    "℅": "c/o",
    "⁄": "/",
    "∕": "/",
    "‥": "..",
    "∶": ":",
    "…": "...",
    "⁇": "??",
    "‼": "!!",
}
_SCRIPTS = {
    "CJK": "Chinese characters", "HIRAGANA": "Japanese letters", "KATAKANA": "Japanese letters",
    "HANGUL": "Korean letters",
    "BOPOMOFO": "Chinese letters",
}  # fmt: skip
_EMOJI = re.compile("[\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\U0001f000-\U0001faff\u20e3]")
_SHOWN = 20  # characters of each kind that a message quotes


def fold(text: str) -> str:
    """`text` in NFC with plain apostrophes, quotes, hyphens, spaces, line ends, letters and digits;
    nothing is left out yet.
    """
    text = _LINES.sub("\n", _INVISIBLE.sub("", unicodedata.normalize("NFC", text)))
    text = _narrow(_CONTROL.sub(" ", _SPACES.sub(" ", text)))
    if text.isascii():
        return text
    text = re.sub(rf"(?<=[^\W\d_])[{_IN_WORD_ONLY}](?=[^\W\d_])", "'", text)
    text = re.sub(r"(?<!\w)[`´](?=\w)|(?<=\w)´", "'", text)
    return "".join(map(_fold_one, text))


def _narrow(text: str) -> str:
    """`text` with no more than four blanks in a row, which still is an indentation, or with one tab
    in them.
    """
    return _WIDE.sub(lambda match: " \t " if "\t" in match[0] else "    ", text)


def _fold_one(sign: str) -> str:
    if sign.isascii() or sign in _KEPT:
        return sign
    if sign in _WRITTEN_OUT:
        return _WRITTEN_OUT[sign]
    if sign in APOSTROPHES:
        return "'"
    if sign in _DOUBLE_QUOTES:
        return '"'
    if sign in _HYPHENS:
        return "-"
    if sign in _DASHES:
        return "–" if sign in "‒–" else "—"
    if unicodedata.category(sign) == "Nd":
        return str(unicodedata.digit(sign))
    plain = unicodedata.normalize("NFKC", sign)
    if plain != sign and all(
        letter.isascii() or _is_latin(letter) or letter.lower() in GREEK or letter == "⁄"
        for letter in plain
    ):
        return plain.replace("⁄", "/")
    return sign


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN ")


def greek_letter(match: re.Match) -> str:
    """The name of a Greek letter that stands alone, as in formulas: "π" -> " pi "."""
    return f" {GREEK[match[0].lower()]} "


LONE_GREEK = re.compile(
    rf"(?<![{''.join(GREEK)}\u0370-\u03ff])[{''.join(GREEK)}{''.join(GREEK).upper()}](?![\u0370-\u03ff\u1f00-\u1fff])"
)


# one letter is a sign of a formula, more are a word
_GREEK_WORD = re.compile("[\u0370-\u03ff\u1f00-\u1fff][\u0300-\u03ff\u1f00-\u1fff]+")


def without_unsayable(text: str, signs: frozenset[str]) -> str:
    """A folded `text` with a space for everything that cannot be said, see `unsayable`."""
    if text.isascii():
        return text
    return _narrow(
        "".join(sign if sayable(sign, signs) else " " for sign in _GREEK_WORD.sub(" ", text))
    )


def unsayable(text: str, signs: frozenset[str]) -> list[tuple[str, str]]:
    """(kind, characters) of what in a folded `text` cannot be said: letters of other scripts,
    emoji, signs without a reading.

    signs: the non-ASCII signs that have a reading or are a pause. Kinds are words for a message:
      "Cyrillic letters", "emoji", "signs".
    """
    found: dict[str, str] = {}
    greek = "".join(_GREEK_WORD.findall(text))
    if greek:
        found["Greek letters"] = greek
    for sign in _GREEK_WORD.sub(" ", text):
        if not sayable(sign, signs):
            found[_kind(sign)] = found.get(_kind(sign), "") + sign
    return [
        (kind, "".join(dict.fromkeys(these))[:_SHOWN].encode("utf-8", "backslashreplace").decode())
        for kind, these in found.items()
    ]


def sayable(sign: str, signs: frozenset[str]) -> bool:
    """Whether one character of a folded text has a reading, is a pause, or is silent by nature (a
    mark on a Latin letter).
    """
    if sign.isascii() or sign in signs:
        return True
    category = unicodedata.category(sign)
    if category[0] == "L":
        return _is_latin(sign)
    return (
        sign == "\u0338"
        or (category == "Mn" and "\u0300" <= sign <= "\u036f")
        or category[0] == "P"
    )


def _kind(sign: str) -> str:
    category, name = unicodedata.category(sign), unicodedata.name(sign, "")
    if _EMOJI.match(sign):
        return "emoji"
    if category[0] in "LMN" and name:
        script = name.split()[0]
        return _SCRIPTS.get(script, f"{script.capitalize()} letters")
    return "signs" if category[0] in "SP" else "characters that stand for nothing"
