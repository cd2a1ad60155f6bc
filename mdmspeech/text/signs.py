"""Signs that are left when numbers, addresses and markup have been read: each has words, is a
pause, or is silent by nature. None vanishes unnoticed.
"""

import re

from mdmspeech.text.characters import GREEK, LONE_GREEK, SUBSCRIPT, SUPERSCRIPT, greek_letter
from mdmspeech.text.numerals import before

SPOKEN = {
    "%": "percent", "‰": "per mille", "&": "and", "+": "plus", "=": "equals", "<": "less than",
    ">": "greater than", "@": "at", "#": "hash",
    "$": "dollar", "^": "to the power of", "~": "about", "\\": "backslash", "/": "slash",
    "*": "star", "_": "underscore",
    "°": "degrees", "§": "section", "¶": "paragraph", "©": "copyright", "®": "registered",
    "™": "trademark", "℠": "service mark",
    "±": "plus or minus", "∓": "minus or plus", "−": "minus", "×": "times", "∗": "times",
    "⋅": "times", "∙": "times", "⨯": "times", "÷": "divided by",
    "√": "square root of", "∛": "cube root of", "∜": "fourth root of", "∝": "proportional to",
    "∞": "infinity", "≈": "approximately", "≃": "approximately",
    "≅": "approximately", "∼": "about", "≠": "is not equal to", "≡": "is identical to",
    "≤": "less than or equal to", "⩽": "less than or equal to",
    "≥": "greater than or equal to", "⩾": "greater than or equal to", "≪": "much less than",
    "≫": "much greater than", "∀": "for all",
    "∃": "there exists", "∄": "there does not exist", "∈": "in", "∉": "not in", "∋": "contains",
    "∅": "empty set", "∂": "partial", "∇": "nabla",
    "∆": "delta", "∏": "product", "∑": "sum", "∫": "integral", "∮": "contour integral",
    "∠": "angle", "∧": "and", "∨": "or", "¬": "not",
    "∩": "intersection", "∪": "union", "⊂": "subset of", "⊃": "superset of", "⊆": "subset of",
    "⊇": "superset of", "⊕": "plus", "⊗": "times",
    "⊥": "perpendicular to", "∥": "parallel to", "∴": "therefore", "∵": "because", "→": "to",
    "⟶": "to", "⇒": "implies", "⟹": "implies", "⇔": "if and only if",
    "←": "from", "↑": "up", "↓": "down", "↔": "to and from", "⇐": "from", "′": "prime",
    "″": "double prime", "‴": "triple prime", "†": "dagger",
    "‡": "double dagger", "º": "degrees", "ª": "a", "µ": "micro", "¢": "cents", "£": "pounds",
    "¤": "currency", "¥": "yen", "€": "euros", "₹": "rupees",
    "₽": "rubles", "₩": "won", "₿": "bitcoin", "₺": "lira", "₴": "hryvnias", "₪": "shekels",
    "฿": "baht", "₫": "dong", "₱": "pesos", "₦": "naira",
    "₲": "guaranis", "₡": "colones", "₵": "cedis", "₸": "tenge", "₼": "manats", "₾": "laris",
    "ƒ": "florins", "₤": "lira", "₨": "rupees", "₣": "francs",
    "₮": "tugriks", "₭": "kips", "✓": "check", "✔": "check", "✗": "cross", "✘": "cross",
    "☐": "unchecked", "☑": "checked", "ℓ": "liters", "℮": "estimated",
    "½": "one half", "¼": "one quarter", "¾": "three quarters", "⅓": "one third", "⅔": "two thirds",
    "⅕": "one fifth", "⅖": "two fifths",
    "⅗": "three fifths", "⅘": "four fifths", "⅙": "one sixth", "⅚": "five sixths",
    "⅛": "one eighth", "⅜": "three eighths", "⅝": "five eighths",
    "⅞": "seven eighths", "⅑": "one ninth", "⅐": "one seventh", "⅒": "one tenth",
}  # fmt: skip
COMBINED = {
    "<=>": "is equivalent to", "<->": "to and from", "<=": "less than or equal to",
    ">=": "greater than or equal to", "!=": "is not equal to",
    "==": "equals", "=>": "implies", "->": "to", "<-": "from", "<>": "is not equal to", "&&": "and",
    "||": "or", "+/-": "plus or minus", "+-": "plus or minus",
    ":=": "is defined as", "≥=": "greater than or equal to",
}  # fmt: skip
PAUSES = "()[]{}|¦•‣◦▪▫●○■□◆◇·¡¿–—„、。〈〉《》【】〔〕〜؟،؛।"
SILENT = "\"'`"  # marks that no one says: quotation marks, apostrophes
# Signs beyond ASCII that the reading knows, for `characters.unsayable`.
KNOWN = frozenset(
    {*SPOKEN, *PAUSES, *SUPERSCRIPT, *SUBSCRIPT, *GREEK, *(letter.upper() for letter in GREEK)}
)
POWERS = {"2": "squared", "3": "cubed"}
_RULE = re.compile(r"([^\w\s.!?])\1{2,}")
_COMBINED = re.compile(
    "|".join(re.escape(sign) for sign in sorted(COMBINED, key=len, reverse=True))
)
_SPOKEN = re.compile(f"[{re.escape(''.join(SPOKEN))}]")
_PAUSE = re.compile(
    rf"[{re.escape(PAUSES)}]|(?<=\s)-+(?=\s|$)|(?<!\w)-+(?=\w)|(?<=\w)-+(?!\w)|-{{2,}}"
)
# punctuation of other scripts is a pause too
_OTHER = re.compile(rf"[^\w\s{re.escape(SILENT)}.,;:!?-]")
_MARKS = re.compile("[\u0300-\u036f]")
_SUPERSCRIPT = re.compile(f"[{''.join(SUPERSCRIPT)}]+")
_SUBSCRIPT = re.compile(f"[{''.join(SUBSCRIPT)}]+")
_NAMES = [(re.compile(r"\bC\+\+"), "C plus plus"), (re.compile(r"\b([CF])#"), r"\1 sharp"),
    (re.compile(r"\bg\+\+"), "G plus plus"),
          (re.compile(r"(?<![\w.])\.(?=[A-Z]{2,}\b)"), "dot "),
          (re.compile(r"\b([A-DF])-(?=[\s.,;!?)]|$)"), r"\1 minus"),
          (re.compile(r"(?<=[a-z])\((?:s|es)\)"), "s"),
          (re.compile(r"(?<!\w)<((?![b-zB-HJ-Z] )[A-Za-z][\w' -]{0,60})>|(?<=\w)<([A-Za-z][\w-]{0,60})>"), r", \1\2, "),
          (re.compile(r"(?<!\w)#(?=[A-Za-z])"), " hashtag "), (re.compile(r"(?<!\w)#(?=\s?\d)"), " number "),
          (re.compile(r"(?<!\S)<3(?!\S)"), "heart"),
          (re.compile(r"(?<=\d)!(?=\s*[=+*/×÷)-])"), " factorial "),
          (re.compile(r"(?<![\w-])-(?=[A-Za-z]\b)(?!\w-)"), " minus ")]  # fmt: skip


def powers(text: str) -> str:
    """Super- and subscripts in words: "10⁻³" -> "10 to the power of minus 3", "x²" -> "x squared",
    "x₁" -> "x 1".
    """

    def raised(match: re.Match) -> str:
        plain = "".join(SUPERSCRIPT[sign] for sign in match[0])
        if not before(match, 2).strip():
            return f" {plain} "
        return f" {POWERS[plain]} " if plain in POWERS else f" to the power of {_signed(plain)} "

    text = _SUPERSCRIPT.sub(raised, text)
    text = re.sub(
        r"(?<=[\w)])\^\(?([-−+]?\w+)\)?",
        lambda m: f" {POWERS[m[1]]} " if m[1] in POWERS else f" to the power of {_signed(m[1])} ",
        text,
    )
    return _SUBSCRIPT.sub(
        lambda match: f" {_signed(''.join(SUBSCRIPT[sign] for sign in match[0]))} ", text
    )


def _signed(plain: str) -> str:
    return re.sub(r"[-−]", " minus ", plain).replace("+", " plus ")


def names(text: str) -> str:
    """Signs whose reading depends on their neighbours: "C++", "#1", "#tag", "3 x 4", "A-"."""
    for pattern, reading in _NAMES:
        text = pattern.sub(reading, text)
    return text


def speak(text: str) -> str:
    """Every sign that is left as words or as a pause (a comma)."""
    text = _RULE.sub(" , ", text)
    text = _COMBINED.sub(lambda match: f" {COMBINED[match[0]]} ", text)
    text = LONE_GREEK.sub(greek_letter, text)
    text = _SPOKEN.sub(lambda match: f" {SPOKEN[match[0]]} ", text)
    return _OTHER.sub(" , ", _PAUSE.sub(" , ", _MARKS.sub("", text)))


def tidy(text: str) -> str:
    """Quotation marks gone, spaces and pauses in order: no pause at the start, one at a time, the
    stronger one kept.
    """
    text = re.sub(r"(?<!\w)'(n|N)'(?!\w)", "and", text)
    text = re.sub(r'(?<=\w)"(?=\w)', " ", text).replace('"', "")
    text = re.sub(r"(?<=\w)`(?=\w)", " ", text).replace("`", "")
    text = re.sub(r"(?<!\w)'+|'+(?!\w)|'{2,}", "", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    text = re.sub(r"[,;:]+(?=[.!?])", "", text)
    text = re.sub(r"([.!?])[,;:]+(?=(\s?))", lambda m: m[1] if m[2] else m[1] + " ", text)
    text = re.sub(r"([,;:])[,;:]+", r"\1", text)
    text = re.sub(r"(?<!\.)\.{2}(?!\.)|\.{4,}", lambda m: "." if len(m[0]) == 2 else "...", text)
    text = re.sub(r"([!?])\.+", r"\1", text)
    text = re.sub(r"([!?])[!?]+", lambda m: "?" if "?" in m[0] else "!", text)
    text = re.sub(r"([,;:!?])(?=[^\W\d_])", r"\1 ", text)
    text = re.sub(r"^[\s,;:.!?-]+", "", text)
    return re.sub(r"[\s,;:]+$", "", text)
