"""Numbers that are no quantities: phone numbers, IP addresses, versions, flight and room numbers,
long identifiers, letters with digits.
"""

import re

from mdmspeech.text.characters import SUBSCRIPT
from mdmspeech.text.numerals import LONGEST, code, digits, number, quantity

_EDGE, _END = r"(?<![\w.,:/$£€+-])", r"(?![\w-]|[.,:/]\d)"
_PHONE = re.compile(
    r"(?<![\w.,:/$£€-])(?:(?P<plus>\+)(?P<land>\d{1,3})[\s.-]?"
    r"|(?P<long>[01])[\s.-])?(?P<area>\(\d{2,5}\)\s?"
    rf"|\d{{3}}[\s.-])?(?P<rest>\d{{3}}[\s.-]\d{{4}}){_END}"
)
_ABROAD = re.compile(
    rf"(?<![\w.])\+(?P<land>\d{{1,3}})(?P<rest>(?:[\s.-]?\(?\d{{1,5}}\)?){{2,6}}){_END}"
)
_PLUS_DIGITS = re.compile(rf"(?<![\w.])\+(?P<all>\d{{9,15}}){_END}")
_VANITY = re.compile(rf"{_EDGE}1-(?P<area>8\d\d)-(?P<word>[A-Z]{{3,}}(?:-[A-Z]+)*)\b")
_GROUPS = re.compile(
    rf"{_EDGE}\d{{1,6}}(?:-\d{{1,7}}){{2,6}}{_END}|{_EDGE}\d{{4}}(?: "
    rf"\d{{4}}){{2,5}}{_END}|{_EDGE}0\d{{2,5}}(?:[\s-]\d{{2,8}}){{1,3}}{_END}"
)
_IP = re.compile(
    r"(?<![\w.])(?P<ip>(?:\d{1,3}\.){3}\d{1,3})(?::(?P<port>\d{1,5}))?(?:/(?P<mask>\d{1,2}))?(?![\w]"
    r"|\.\d)"
)
_NAMES_OF_VERSIONS = (
    "Python|Java|JDK|Node|iOS|iPadOS|Android|macOS|Ubuntu|Debian|Fedora|Linux|PHP|Ruby|Perl|CUDA|"
    "GCC|Django|Kubernetes|PostgreSQL|MySQL|OpenSSL|[Vv]ersion|[Rr]elease"
)
_VERSION = re.compile(
    r"(?<![\w.])(?P<v>[vV]\.?\s?(?=\d)"
    rf"|(?:{_NAMES_OF_VERSIONS})\s?(?=\d+\.\d))(?P<n>\d+(?:\.\d+)*)(?:-?(?P<tag>alpha"
    r"|beta|rc|dev|preview)\.?(?P<t>\d*))?(?![\w]|\.\d)"
)
_DOTTED = re.compile(r"(?<![\w.,])\d+(?:\.\d+){2,}(?![\w]|\.\d)")
_EMERGENCY = re.compile(
    r"(?<![\w.,:/$£€+#'-])(?:9-1-1|911)(?![\w%°'\"-]|[.,:/]\d)(?! (?!is\b|was\b"
    r"|has\b)[a-z]+s\b| (?:people|percent|km|kg|mi|m|cm|mm|ft|lb|of|million"
    r"|thousand|or)\b)"
)
_DIALLED = re.compile(
    r"\b(?P<verb>[Cc]all(?:ed|ing)?|[Dd]ial(?:l?ed|l?ing)?|[Tt]ext(?:ed|ing)?"
    r"|[Pp]hone[ds]?|[Pp]ress|extension|ext\.?|PIN|pin|code|ZIP|zip) "
    r"(?P<n>\d{3,8})(?![\w%°]|[.,:/]\d| [a-z]+s\b| (?:people|times|of|men"
    r"|women)\b)"
)
_PLACE = re.compile(
    r"\b(?P<what>[Rr]oom|[Ff]light|[Rr]oute|[Hh]ighway|[Ii]nterstate"
    r"|[Aa]partment|[Ss]uite|[Gg]ate|[Bb]us|[Bb]oeing|[Aa]irbus|[Uu]nit"
    r"|[Cc]ourse)(?P<gap>\s#?)(?P<n>\d{3,4})(?:-(?P<more>\d{2,3}))?(?![\w%°]"
    r"|[.,:/]\d)"
)
_ZIP = re.compile(
    r"\b(?P<state>A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]"
    r"|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]) "
    r"(?P<zip>\d{5})(?:-(?P<more>\d{4}))?(?!\d)"
)
_HEX = re.compile(
    r"\b0x([0-9A-Fa-f]+)\b|(?<![\w&])#((?=[0-9A-Fa-f]*\d)[0-9A-Fa-f]{6}"
    r"|(?=[0-9A-Fa-f]*\d)(?=[0-9A-Fa-f]*[A-Fa-f])[0-9A-Fa-f]{3})\b"
)
_LONG = re.compile(rf"(?<![\d.,])\d{{{LONGEST + 1},}}(?![\d.,]*\d)")
_FORMULA = re.compile(
    r"(?<![\w.])(?=[\w()]{0,60}[₀-₉])(?:[A-Z][a-z]?[₀-₉]*"
    r"|\((?:[A-Z][a-z]?[₀-₉]*)+\)[₀-₉]*)+(?!\w)"
)
_PLAIN_FORMULA = re.compile(
    r"\b(?:H2O2?|CO2|SO[234]|NO[23]|NH[34]|CH4|O[23]|N2|H2|H2SO4|HNO3|CaCO3|Fe2O3"
    r"|Al2O3|C6H12O6|NaHCO3|N2O)\b"
)
_ELEMENT = re.compile(r"([A-Z][a-z]?|\((?=[A-Z])|\))(\d*)")
_NAME_NUMBER = re.compile(
    r"(?<![\w.,])(?P<name>[A-Za-z]*[A-Z][A-Za-z]*)[-–](?P<n>\d{1,4})(?P<more>[A-Za-z]?)(?![\w-]"
    r"|[.,]\d)"
)
_MIX = re.compile(
    r"(?<![\w.,])(?=[A-Za-z]*\d+[A-Za-z]"
    r"|\d*[A-Za-z]+\d)[A-Za-z\d]+(?:-(?=\w*\d)[A-Za-z\d]+)*(?![\w])"
)
_KEPT_MIX = re.compile(r"\d+(?:st|nd|rd|th|s|ers?|ish|fold|some)", re.IGNORECASE)
_PARTS = re.compile(r"\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[A-Z]")


def read_codes(text: str) -> str:
    """Telephone numbers, addresses of computers, versions, room numbers and long digits of `text`
    in words; other numbers stay.
    """
    text = _HEX.sub(lambda m: f"{'zero x' if m[1] else 'hash'} {_spelled(m[1] or m[2])}", text)
    text = _IP.sub(_ip, text)
    text = _VANITY.sub(lambda m: f"one, {code(m['area'])}, {m['word'].replace('-', ' ')}", text)
    text = _PHONE.sub(_phone, text)
    text = _ABROAD.sub(_abroad, text)
    text = _PLUS_DIGITS.sub(lambda m: f"plus {digits(m['all'])}", text)
    text = _GROUPS.sub(lambda m: ", ".join(map(digits, re.split(r"[\s-]", m[0]))), text)
    text = _VERSION.sub(_version, text)
    text = _DOTTED.sub(lambda m: " point ".join(map(_part, m[0].split("."))), text)
    text = _EMERGENCY.sub(lambda m: digits(m[0].replace("-", "")), text)
    text = _DIALLED.sub(lambda m: f"{m['verb']} {digits(m['n'])}", text)
    text = _PLACE.sub(
        lambda m: f"{m['what']} {code(m['n'])}" + (f" {code(m['more'])}" if m["more"] else ""), text
    )
    text = _ZIP.sub(
        lambda m: (
            f"{m['state']} {digits(m['zip'])}" + (f", {digits(m['more'])}" if m["more"] else "")
        ),
        text,
    )
    text = re.sub(
        (
            r"(?<![\w.])(\d+(?:\.\d+)?)x(?= (?:faster|slower|more|less|better"
            r"|bigger|larger|smaller|higher|lower|cheaper|as|the|speed|zoom)\b)"
        ),
        r"\1 times",
        text,
    )
    return _LONG.sub(lambda m: digits(m[0]), text)


def read_mixes(text: str) -> str:
    """Letters with digits, when units and ordinals have been read: "H2O", "Fe₂O₃", "COVID-19",
    "mp3", "B2B", "4K".
    """
    text = _FORMULA.sub(_formula, text)
    text = _PLAIN_FORMULA.sub(_formula, text)
    text = _NAME_NUMBER.sub(
        lambda m: (
            _letters(m["name"], True)
            + code(m["n"])
            + (f" {m['more'].upper()}" if m["more"] else "")
        ),
        text,
    )
    return _MIX.sub(_mix, text)


def _part(written: str) -> str:
    return code(written) if len(written) < 4 else quantity(written)


def _ip(match: re.Match) -> str:
    parts = match["ip"].split(".")
    if any(int(part) > 255 for part in parts):
        return match[0]
    said = " dot ".join(map(code, parts))
    said += f" colon {digits(match['port'])}" if match["port"] else ""
    return said + (f" slash {number(int(match['mask']))}" if match["mask"] else "")


def _phone(match: re.Match) -> str:
    land, area = match["land"] or match["long"], re.sub(r"\D", "", match["area"] or "")
    if not area and not land and not re.fullmatch(r"\d{3}-\d{4}", match["rest"]):
        return match[0]
    groups = [
        *([("plus " if match["plus"] else "") + digits(land)] if land else []),
        *([code(area) if area.endswith("00") else digits(area)] if area else []),
    ]
    return ", ".join([*groups, *map(digits, re.split(r"[\s.-]", match["rest"]))])


def _abroad(match: re.Match) -> str:
    groups = re.findall(r"\d+", match["rest"])
    if len("".join(groups)) < 6:
        return match[0]
    return ", ".join([f"plus {digits(match['land'])}", *map(digits, groups)])


def _version(match: re.Match) -> str:
    name = match["v"].strip()
    said = (
        ("version" if name.rstrip(".") in ("v", "V") else name)
        + " "
        + " point ".join(map(_part, match["n"].split(".")))
    )
    if match["tag"]:
        said += f" {'release candidate' if match['tag'] == 'rc' else match['tag']}" + (
            f" {number(int(match['t']))}" if match["t"] else ""
        )
    return said


def _formula(match: re.Match) -> str:
    said, plain = [], "".join(SUBSCRIPT.get(sign, sign) for sign in match[0])
    for element, count in _ELEMENT.findall(plain):
        said += [
            *(element.upper() if element.isalpha() else ""),
            *([number(int(count))] if count else []),
        ]
    return " ".join(said)


def _letters(name: str, before_number: bool = False) -> str:
    """A part made of letters: a word as it is, without a vowel letter by letter; "A" joined with
    its number, so that it is no article.
    """
    if name in ("A", "a") and before_number:
        return "A-"
    if len(name) < 2 or (len(name) < 5 and not re.search("[aeiouy]", name, re.IGNORECASE)):
        name = name.upper()
    return name + (" " if before_number else "")


def _mix(match: re.Match) -> str:
    if _KEPT_MIX.fullmatch(match[0]):
        return match[0]
    said = ""
    parts = _PARTS.findall(match[0])
    for n, part in enumerate(parts):
        following = parts[n + 1 : n + 2]
        if (
            n
            and following
            and len(part) < 3
            and parts[n - 1].isdecimal()
            and following[0].isdecimal()
        ):
            part = " ".join(part.upper())  # letters between digits are no word
            said += f"{part}{'-' if part.endswith('A') else ' '}"
            continue
        said += (
            f"{code(part)} "
            if part.isdecimal()
            else _letters(part, bool(following) and following[0].isdecimal()).ljust(len(part) + 1)
        )
    return said.replace("- ", "-").strip()


def _spelled(written: str) -> str:
    return " ".join(number(int(sign)) if sign.isdecimal() else sign.upper() for sign in written)
