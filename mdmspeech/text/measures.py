"""Quantities with units in words: "5 km/h", "20 °C", "5'11\\"", "1½ cups", "3/4", "6.02×10²³", and
what a dash or a minus between numbers says.
"""

import re
from collections.abc import Callable

from mdmspeech.text.characters import SUPERSCRIPT
from mdmspeech.text.moments import MONTHS
from mdmspeech.text.numerals import after, before, number, quantity, word_set

_N = r"\d+(?:,\d{3}){0,12}(?:\.\d+)?|\.\d+"
# unit -> singular, plural; where there is one name only, both are the same
_NAMES = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "µm": "micrometer",
    "μm": "micrometer", "nm": "nanometer", "dm": "decimeter",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "µg": "microgram", "μg": "microgram",
    "mcg": "microgram", "t": "ton", "lb": "pound", "oz": "ounce",
    "mi": "mile", "yd": "yard", "ml": "milliliter", "mL": "milliliter", "cl": "centiliter",
    "dl": "deciliter", "dL": "deciliter", "l": "liter", "L": "liter",
    "ℓ": "liter", "gal": "gallon", "qt": "quart", "pt": "pint", "tsp": "teaspoon",
    "tbsp": "tablespoon", "ha": "hectare", "KB": "kilobyte", "kB": "kilobyte",
    "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte", "KiB": "kibibyte",
    "MiB": "mebibyte", "GiB": "gibibyte", "kbit": "kilobit",
    "Mbit": "megabit", "Gbit": "gigabit", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute",
    "mins": "minute", "s": "second", "sec": "second", "secs": "second",
    "ms": "millisecond", "µs": "microsecond", "μs": "microsecond", "ns": "nanosecond", "yr": "year",
    "yrs": "year", "wk": "week", "wks": "week", "mo": "month",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "mW": "milliwatt",
    "V": "volt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliamp",
    "kWh": "kilowatt hour", "MWh": "megawatt hour", "GWh": "gigawatt hour", "Wh": "watt hour",
    "mAh": "milliamp hour", "Ah": "amp hour", "Ω": "ohm", "kΩ": "kilohm", "MΩ": "megohm",
    "J": "joule", "kJ": "kilojoule", "MJ": "megajoule", "cal": "calorie", "kcal": "kilocalorie",
    "N": "newton", "kN": "kilonewton", "Nm": "newton meter",
    "Pa": "pascal", "kPa": "kilopascal", "MPa": "megapascal", "hPa": "hectopascal",
    "mbar": "millibar", "dB": "decibel", "px": "pixel", "mol": "mole", "Å": "angstrom",
    "cc": "cubic centimeter", "eV": "electron volt", "keV": "kiloelectron volt",
    "MeV": "megaelectron volt", "GeV": "gigaelectron volt", "lbs": "pound",
    "°": "degree", "µl": "microliter", "μl": "microliter", "µL": "microliter", "nF": "nanofarad",
    "µF": "microfarad", "μF": "microfarad", "pF": "picofarad",
}  # fmt: skip
_SAME = {
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "THz": "terahertz",
    "mph": "miles per hour", "kph": "kilometers per hour",
    "kmh": "kilometers per hour", "fps": "frames per second", "bpm": "beats per minute",
    "rpm": "revolutions per minute", "Mbps": "megabits per second",
    "Gbps": "gigabits per second", "kbps": "kilobits per second", "dpi": "dots per inch",
    "ppi": "pixels per inch", "mpg": "miles per gallon", "psi": "pounds per square inch",
    "ppm": "parts per million", "ppb": "parts per billion", "hp": "horsepower", "pct": "percent",
    "%": "percent", "‰": "per mille", "wpm": "words per minute",
    "°C": "degrees Celsius", "°F": "degrees Fahrenheit", "lx": "lux", "bar": "bar", "kt": "knots",
    "kn": "knots",
}  # fmt: skip
UNITS = {
    **{unit: (name, name.replace(" meter", " meters") if name.endswith(" meter") else name + "s")
       for unit, name in _NAMES.items()},
    **{unit: (name, name) for unit, name in _SAME.items()},
    "ft": ("foot", "feet"), "in": ("inch", "inches"), "sq ft": ("square foot", "square feet"),
    "sq mi": ("square mile", "square miles"),
    "sq m": ("square meter", "square meters"), "sq km": ("square kilometer", "square kilometers"),
    "cu ft": ("cubic foot", "cubic feet"), "sq in": ("square inch", "square inches"),
    "sq yd": ("square yard", "square yards"), "sq cm": ("square centimeter", "square centimeters"),
    "cu in": ("cubic inch", "cubic inches"), "cu yd": ("cubic yard", "cubic yards"),
    "cu m": ("cubic meter", "cubic meters"), "cu cm": ("cubic centimeter", "cubic centimeters"),
    "st": ("stone", "stone"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "fl oz": ("fluid ounce", "fluid ounces"),
    "century": ("century", "centuries"), "Pa": ("pascal", "pascals"), "dB": ("decibel", "decibels"),
}  # fmt: skip
_BIG = {"K": "thousand", "M": "million", "B": "billion", "bn": "billion", "mn": "million"}
_ATTACHED_ONLY = ("in", "st", "century", "t", "%", "‰", "°")  # "5 in 10" has no inches
_SPACED = "|".join(
    re.escape(u) for u in sorted(set(UNITS) - set(_ATTACHED_ONLY), key=len, reverse=True)
)
_ALL = "|".join(re.escape(u) for u in sorted(UNITS, key=len, reverse=True))
_POWER = r"(?P<power>²|³|\^2|\^3|(?<=[a-z])[23](?!\w))?"
_PER = (
    rf"(?P<per>\s?/\s?(?P<base>{_ALL}|day|week|month|year|hour|minute|second|person"
    r"|night|word|page|unit)(?P<basepower>²|³|\^2|\^3)?(?![\w]))?"
)
_MEASURE = re.compile(
    rf"(?P<article>\b[Aa]n? )?(?<![\w.])(?P<n>{_N})(?:(?P<gap>\s"
    rf"|-)?(?P<unit>{_SPACED})|(?P<attached>in|st(?=\s?\d)"
    rf"|t))(?<![\d]){_POWER}(?![\w°'’]){_PER}(?P<dot>\.(?=\s+[a-z\d(]))?(?P<noun>(?= "
    r"[a-z]+)|-(?=[a-z]))?"
)
_DECADE_BEFORE = re.compile(
    r"\b(?:the|his|her|their|my|your|our|early|late|mid|in)[ -]$|'$", re.IGNORECASE
)
_INCH_DOT = re.compile(rf"(?<![\w.])(?P<n>{_N})\s?in\.(?P<end>(?=\s+[A-Z]|\s*$))?")
_ALONE = re.compile(
    r"(?P<before>\b(?:per|a|each|every|one)\s)?(?<![\w/.])(?P<unit>km/h|m/s|km"
    r"|kg|cm|mm|mph|kph|kHz|MHz|GHz|kWh|mg|kcal)(?P<power>²|³)?(?![\w/.°'-]"
    r"|\.\w)"
)
_RATE = re.compile(
    rf"(?<![\w/.])(?P<unit>{'|'.join(u for u in UNITS if len(u) > 1 and u.isalpha() and u != 'in')}"
    rf"|[mglLJ](?=/[sklL]))/(?P<base>{_SPACED})(?P<power>²|³)?(?![\w/])"
)
_ALONE_WORDS = {"km/h": "kilometers per hour", "m/s": "meters per second"}
# "3 sq. ft." as "3 sq ft."; the last dot stays for the unit
_TWO_WORDS = re.compile(
    r"(?<=\d)(?P<gap>[ -]?)(?P<power>[Ss]q|[Cc]u|[Ff]l)\.? ?(?P<unit>[Ff]t|[Ii]n"
    r"|[Yy]d|[Mm]i|[Oo]z|k?m|cm)(?!\w)"
)
_FEET = re.compile(
    r"(?<![\w.])(?P<f>\d{1,3})\s?(?:'|′|ft\.?|feet"
    r"|foot)\s?(?P<i>\d{1,2}(?:\.\d+)?)\s?(?P<mark>\"|''|″|in\b\.?|inches\b"
    r"|(?=[^\w\"'″]|$))"
)
_ONLY_FEET = re.compile(r"(?<![\w.'])(?P<n>\d+(?:\.\d+)?)\s?(?:(?P<feet>′)|(?P<inches>″|''))(?!\w)")
_APOSTROPHE_FEET = re.compile(
    r"(?<![\w.'])(?P<n>\d{1,3})'(?=\s?(?:x|by|tall|long|wide|high|deep|[.,;!?)]"
    r"|$))(?! ?s\b)|(?<=\sby\s)(?P<m>\d{1,3})'(?!\w)"
)
_INCHES = re.compile(rf'(?<![\w.])(?P<n>{_N})\s?(?:"|″)(?!\w)')
_INCHES_OF_FRACTION = re.compile(
    r'(?<![\w./,])(?P<n>(?P<whole>\d+[ -])?\d{1,3}/\d{1,3})\s?(?:"|″)(?!\w)'
)
_ANGLE = re.compile(
    r"(?<![\w.])(?P<d>\d{1,3}(?:\.\d+)?)\s?°\s?(?:(?P<m>\d{1,2}(?:\.\d+)?)\s?['′]\s?(?:(?P<s>\d{1,2}(?:\.\d+)?)\s?(?:\""
    r"|″|''))?)?\s?(?P<way>[NSEW](?!\w))?"
)
_WAYS = {"N": "north", "S": "south", "E": "east", "W": "west"}
_VULGAR = {
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5",
    "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8",
    "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅐": "1/7", "⅒": "1/10",
}  # fmt: skip
_FRACTION = re.compile(
    r"(?<![\w./,$£€])(?:(?P<whole>\d+)(?:\s|-"
    r"|&))?(?P<a>\d{1,3})/(?P<b>\d{1,3})(?P<plus>)(?![\w/]|[.,]\d"
    r"|/)(?P<next>\s?-?\s?[a-z]+)?"
)
_ON_DAY, _AFTER_DAY = (
    re.compile(r"\b(?:[Oo]n|since|until|till|due) $"),
    re.compile(r"(?:\s(?:at|and|or|in|we|i|he|she|they|it|to|the|but|when|after))?"),
)
_IDIOMS = {
    "24/7": "twenty-four seven",
    "24/7/365": "twenty-four seven three sixty-five",
    "9/11": "nine eleven",
    "20/20": "twenty twenty",
    "50/50": "fifty fifty",
    "24-7": "twenty-four seven",
    "4/20": "four twenty",
}
_IDIOM = re.compile(
    rf"(?<![\w./])(?:{'|'.join(sorted(_IDIOMS, key=len, reverse=True))})(?![\w/]|\.\d)"
)
_SCIENTIFIC = re.compile(
    rf"(?<![\w.])(?P<n>{_N})(?:[eE](?P<e>[-+−]?\d{{1,3}})"
    r"|\s?[×x*·⋅]\s?10(?:\^\(?(?P<caret>[-−+]?\d{1,3})\)?"
    r"|(?P<raised>[⁺⁻]?[⁰¹²³⁴-⁹]+)))(?![\w.]?\d)(?!\w)"
)
_SPACED_GROUPS = re.compile(r"(?<![\d.,])(?<!\d )\d{1,3}(?: \d{3}){1,11}(?!\d|[ ,]\d|\.\d{3})")
_EUROPEAN = re.compile(
    r"(?<![\d.,])(?:\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,})(?![\d.,]*\d)"
)
_SIGN = re.compile(
    r"(?<![\w.%)'])(?P<sign>[-−–])(?=(?:[$£€¥]|US\$)?\.?\d)"
    r"|(?<=[(\s=<>≤≥≈/*×^])(?P<plus>[+±])(?=\.?\d)|^(?P<first>[+±])(?=\.?\d)"
)
_UNIT_TAIL = rf"(?:\s?(?:%|°[CF]?|(?:{_SPACED}|k|M|bn)(?!\w)))?"
_BY = re.compile(
    rf"(?<=\d)(?P<unit>{_UNIT_TAIL}|\s?[\"'″′]|\s?'')\s?x\s?(?=(?:\d+(?:\.\d+)?"
    r"|\.\d+)(?![A-Za-z]{3}))(?<!\b0x)"
)
_RANGE = re.compile(
    rf"(?P<before>(?:\b[\w.]{{1,24}}\s{{1,4}})?)(?<![\w.,/:-])(?P<a>(?:{_N}){_UNIT_TAIL})(?P<dash>\s?[-–—]\s?"
    rf"|\s+−\s+|−)(?P<b>(?:{_N}))(?P<tail>{_UNIT_TAIL})(?![\w]*-\d|:\d)"
)
_RANGE_WORDS = word_set(
    "pages pp p from between ages age aged chapters chapter rows row steps lines line verses days "
    "weeks years about some around roughly approximately sections questions"
)
_MATH_BEFORE, _MATH_AFTER = (
    re.compile(r"[=+×÷*/^(√]\s*$"),
    re.compile(r"\s*(?:[=+×÷*^≤≥<>]|is\b|are\b|equals?\b|makes?\b)"),
)


def join_groups(text: str) -> str:
    """Digits grouped by spaces or dots get commas: "1 000 000" -> "1,000,000", "1.234,5" -> "1234.5"."""
    text = _EUROPEAN.sub(lambda m: m[0].replace(".", "").replace(",", "."), text)
    return _SPACED_GROUPS.sub(lambda m: m[0].replace(" ", ","), text)


def read_signs_of_numbers(text: str) -> str:
    """The dashes before and between numbers as "minus" or "to"; the numbers stay digits."""
    text = _SCIENTIFIC.sub(_scientific, text)
    text = re.sub(r"(?<=\d)\s?[*·]\s?(?=\d)|(?<=\d)\s?x\s?(?=\d[\d.]*\s*=)", " times ", text)
    text = _BY.sub(r"\g<unit> by ", text)
    text = re.sub(r"(?<=\d)\s?[-–]\s?-(?=\d)", " to -", text)
    text = _RANGE.sub(_range, text)
    text = _RANGE.sub(_range, text)
    return _SIGN.sub(
        lambda m: {"+": "plus ", "±": "plus or minus "}.get(m["plus"] or m["first"], "minus "), text
    )


def read_measures(text: str) -> str:
    """Quantities with units, angles, feet and inches, and fractions in words; other numbers stay."""
    text = _IDIOM.sub(lambda m: _IDIOMS[m[0]], text)
    text = re.sub(
        "".join(["[", *_VULGAR, "]"]),
        lambda m: f" {_VULGAR[m[0]]}" if before(m, 1).isalnum() else _VULGAR[m[0]],
        text,
    )
    text = _inches(
        text, _INCHES_OF_FRACTION, lambda m: f"{m['n']} {'inches' if m['whole'] else 'inch'}"
    )
    text = _FRACTION.sub(_fraction, text)
    text = _ANGLE.sub(_angle, text)
    text = _TWO_WORDS.sub(lambda m: f"{m['gap']}{m['power'].lower()} {m['unit'].lower()}", text)
    text = _FEET.sub(_feet, text)
    text = _inches(text, _INCHES, _whole_inches)
    text = _APOSTROPHE_FEET.sub(lambda m: f"{quantity(m['n'] or m['m'])} feet", text)
    text = _ONLY_FEET.sub(
        lambda m: f"{quantity(m['n'])} {UNITS['ft' if m['feet'] else 'in'][m['n'] != '1']}", text
    )
    text = re.sub(
        r"(?<![\w.])(\d{1,2})h([0-5]\d)(?![\w])",
        lambda m: f"{quantity(m[1])} {UNITS['h'][m[1] != '1']} {number(int(m[2]))}",
        text,
    )
    text = _INCH_DOT.sub(
        lambda m: (
            f"{quantity(m['n'])} {UNITS['in'][m['n'] != '1']}"
            + ("." if m["end"] is not None else "")
        ),
        text,
    )
    text = _MEASURE.sub(_measure, text)
    text = re.sub(
        rf"(?<![\w.])({_N})(K|M|B|bn|mn)(?= [a-z]+s\b| people\b)",
        lambda m: f"{quantity(m[1])} {_BIG[m[2]]}",
        text,
    )
    return re.sub(rf"(?<![\w.])({_N})\s?%", lambda m: f"{quantity(m[1])} percent", text)


def read_lone_units(text: str) -> str:
    """Units without a number: "per km", "in km/h", "mg/kg"."""
    return _RATE.sub(
        lambda m: f"{UNITS[m['unit']][1]} per {_base(m['base'], m['power'])}",
        _ALONE.sub(_alone, text),
    )


def _scientific(match: re.Match) -> str:
    power = (
        match["e"] or match["caret"] or "".join(SUPERSCRIPT[sign] for sign in match["raised"] or "")
    )
    value = number(int(power.lstrip("+-−")))
    return (
        f"{quantity(match['n'])} times ten to the power of "
        f"{'minus ' if power[0] in '-−' else ''}{value}"
    )


def _range(match: re.Match) -> str:
    """ "10-12 kg" is a range, "5 - 3" and "x = 5-3" a difference, "5 - 10 people" a range again."""
    dash, following = match["dash"], after(match)
    math = (
        bool(_MATH_BEFORE.search(before(match) + match["before"]) or _MATH_AFTER.match(following))
        or "−" in dash
    )
    plain = not re.search(r"[^\d.,]", match["a"]) and not match["tail"]
    if plain and not math and dash.strip() == "-" and dash != "-":
        rising = float(match["a"].replace(",", "")) < float(match["b"].replace(",", ""))
        word = match["before"].strip().rstrip(".").lower()
        math = not (
            rising
            and (
                word in _RANGE_WORDS
                or re.match(r"\s+(?!and\b|or\b|but\b|then\b|in\b|to\b)[a-z]+", following)
            )
        )
    return f"{match['before']}{match['a']} {'minus' if math else 'to'} {match['b']}{match['tail']}"


def _unit(unit: str, many: bool, power: str | None) -> str:
    name = UNITS[unit][many]
    return {"2": "square ", "3": "cubic "}.get(
        {"²": "2", "³": "3"}.get((power or "").lstrip("^"), (power or "").lstrip("^")), ""
    ) + name


def _base(unit: str, power: str | None) -> str:
    """What comes after "per": an area or a volume, but seconds squared."""
    name = UNITS[unit][0] if unit in UNITS else unit
    if power and name == "second":
        return f"second {'cubed' if power[-1] in '3³' else 'squared'}"
    return _unit(unit, False, power) if unit in UNITS else name


# Units that are also letters or words: no measure after a hyphen.
_LETTERS_OR_WORDS = (
    "N", "W", "J", "V", "L", "g", "h", "l", "m", "s", "t", "kn", "kt", "pt", "mo", "cal", "bar",
)  # fmt: skip


def _measure(match: re.Match) -> str:
    unit, n = match["unit"] or match["attached"], match["n"]
    if unit in _LETTERS_OR_WORDS and match["gap"] == "-":
        return match[0]
    if (
        unit == "s"
        and not match["gap"]
        and n.endswith("0")
        and (len(n) == 4 or "60" <= n <= "90" or _DECADE_BEFORE.search(before(match)))
    ):
        return match[0]
    adjective = (
        match["gap"] == "-"
        or match["noun"] == "-"
        or (match["article"] is not None and match["noun"] is not None)
    ) and unit not in _SAME
    said = _unit(unit, n not in ("1", "1.0") and not adjective, match["power"])
    if match["per"]:
        said += " per " + _base(match["base"], match["basepower"])
    return f"{match['article'] or ''}{quantity(n)}{'-' if match['gap'] == '-' else ' '}{said}" + (
        match["noun"] or ""
    )


def _alone(match: re.Match) -> str:
    if match["unit"] in _ALONE_WORDS:
        return (match["before"] or "") + _ALONE_WORDS[match["unit"]]
    return (match["before"] or "") + _unit(match["unit"], not match["before"], match["power"])


def _feet(match: re.Match) -> str:
    if not match["mark"] and "'" not in match[0] and "′" not in match[0]:
        return match[0]
    return f"{quantity(match['f'])} foot {quantity(match['i'])}"


def _inches(text: str, marked: re.Pattern, read: Callable[[re.Match], str]) -> str:
    """12" is twelve inches where the mark closes no quotation."""
    return marked.sub(
        lambda match: match[0] if _in_quotation(before(match, 300)) else read(match), text
    )


def _in_quotation(text: str) -> bool:
    """Whether a quotation is open at the end of `text`: a mark after a digit opens none, it is one
    of inches.
    """
    is_open = False
    for match in re.finditer(r'(\d\s?)?"', text):
        is_open = not is_open and match[1] is None
    return is_open


def _whole_inches(match: re.Match) -> str:
    adjective = re.match(
        (
            r"-(?=[a-z])| (?!and\b|or\b|long\b|wide\b|by\b|x\b|in\b|tall\b|high\b"
            r"|of\b|is\b)[a-z]{3,}"
        ),
        after(match),
    )
    single = match["n"] == "1" or (adjective is not None and not before(match, 4).endswith(" by "))
    return f"{quantity(match['n'])} {UNITS['in'][not single]}"


def _angle(match: re.Match) -> str:
    if match["m"] is None and match["way"] is None:
        return match[0]
    said = [f"{quantity(match['d'])} {UNITS['°'][match['d'] != '1']}"]
    said += (
        [f"{quantity(match['m'])} {'minute' if match['m'] == '1' else 'minutes'}"]
        if match["m"]
        else []
    )
    said += (
        [f"{quantity(match['s'])} {'second' if match['s'] == '1' else 'seconds'}"]
        if match["s"]
        else []
    )
    return " ".join(said + ([_WAYS[match["way"]]] if match["way"] else []))


def _fraction(match: re.Match) -> str:
    whole, a, b, following = match["whole"], int(match["a"]), int(match["b"]), match["next"] or ""
    said = ""
    if whole is None and a >= b and b and a <= 10:
        said = f"{number(a)} out of {number(b)}" if a == b else ""
    if (
        not said
        and whole is None
        and b > 10
        and 1 <= a <= 12
        and b <= 31
        and not re.match(r"\s?(?:of|inch|cup|in|mile)\b", following.lstrip("- "))
        and b != 16
        and b != 12
    ):
        said = f"{MONTHS[a - 1]} {number(b, ordinal=True)}"
    if (
        whole is None
        and 1 <= a <= 12
        and 1 <= b <= 31
        and _ON_DAY.search(before(match))
        and _AFTER_DAY.fullmatch(following)
    ):
        said = f"{MONTHS[a - 1]} {number(b, ordinal=True)}"
    if not said and a and 1 < b <= 100 and (a < b or b <= 10):
        part = {2: "half", 4: "quarter"}.get(b) or number(b, ordinal=True)
        many = {2: "halves"}.get(b, part + "s")
        said = f"{number(a)} {part if a == 1 else many}" if whole is None or a != 1 else f"a {part}"
    if not said:
        return (
            match[0] if whole else f"{quantity(match['a'])} over {quantity(match['b'])}{following}"
        )
    name = following.strip(" -")
    if name in UNITS and name not in ("in", "st", "s"):
        following = following[0] * (following[0] in " -") + UNITS[name][whole is not None]
    return (f"{quantity(whole)} and {said}" if whole else said) + following
