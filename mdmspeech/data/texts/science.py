"""Chemical elements: symbols and atomic numbers from `periodictable` (public domain); and
conversions of units that come out even: `pint` (BSD) does the arithmetic.
"""

from mdmspeech.data.texts.family import Family, spelled
from mdmspeech.text.normalise import number

ELEMENTS_SOURCE, UNITS_SOURCE = "periodictable (public domain)", "pint (BSD)"
# large unit, small unit, as they are said in the singular;
# plural by adding s unless given in PLURALS
EXACT = [
    ("hour", "minute"),
    ("minute", "second"),
    ("day", "hour"),
    ("week", "day"),
    ("hour", "second"),
    ("year", "month"),
    ("century", "year"),
    ("kilometer", "meter"),
    ("meter", "centimeter"),
    ("centimeter", "millimeter"),
    ("foot", "inch"),
    ("yard", "foot"),
    ("yard", "inch"),
    ("mile", "yard"),
    ("mile", "foot"),
    ("kilogram", "gram"),
    ("gram", "milligram"),
    ("pound", "ounce"),
    ("liter", "milliliter"),
    ("liter", "centiliter"),
    ("gallon", "quart"),
    ("gallon", "pint"),
    ("quart", "pint"),
    ("gallon", "cup"),
]
PLURALS = {"foot": "feet", "inch": "inches", "century": "centuries"}
AMOUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 20)


def elements() -> list[Family]:
    """Symbols, numbers and names of the 118 elements."""
    import periodictable

    found = [e for e in periodictable.elements if e.number > 0]
    facts = [
        {"name": e.name, "symbol": spelled(e.symbol), "number": number(e.number)} for e in found
    ]
    return [
        Family(
            "elements",
            "symbol",
            ELEMENTS_SOURCE,
            [
                "What is the chemical symbol for {name}?",
                "What's the symbol of {name}?",
                "Tell me the symbol for the element {name}.",
                "How is {name} written in chemistry?",
            ],
            ["Which letters stand for {name} in the periodic table?"],
            ["The symbol for {name} is {symbol}."],
            facts,
            per_fact=3,
            test_count=8,
        ),
        Family(
            "elements",
            "number",
            ELEMENTS_SOURCE,
            [
                "What is the atomic number of {name}?",
                "Which number does {name} have in the periodic table?",
                "How many protons does {name} have?",
                "Tell me the atomic number of {name}.",
            ],
            ["{name} is an element. What is its atomic number?"],
            ["The atomic number of {name} is {number}.", "{name} has the atomic number {number}."],
            facts,
            per_fact=3,
            test_count=8,
        ),
        Family(
            "elements",
            "name",
            ELEMENTS_SOURCE,
            [
                "Which element has the atomic number {number}?",
                "What is element number {number}?",
                "Which element has {number} protons?",
            ],
            ["Name the element with the number {number} in the periodic table."],
            ["Element number {number} is {name}."],
            facts,
            per_fact=2,
            test_count=6,
        ),
    ]


def units() -> list[Family]:
    """How many of the small unit make so many of the large one."""
    import pint

    registry = pint.UnitRegistry()
    facts = []
    for large, small in EXACT:
        for amount in AMOUNTS:
            result = (amount * registry(large)).to(small).magnitude
            whole = round(result)
            assert abs(result - whole) < 1e-6 * max(1, whole), (large, small)
            facts.append(
                {
                    "amount": said(amount, large),
                    "verb": "is" if amount == 1 else "are",
                    "small": plural(small),
                    "result": said(whole, small),
                }
            )
    return [
        Family(
            "units",
            "even",
            UNITS_SOURCE,
            [
                "How many {small} are in {amount}?",
                "How many {small} are there in {amount}?",
                "Convert {amount} to {small}.",
                "What is {amount} in {small}?",
            ],
            ["I have {amount}. How much is that in {small}?", "Express {amount} in {small}."],
            ["{amount} {verb} {result}.", "There are {result} in {amount}."],
            facts,
            per_fact=3,
            test_count=18,
        )
    ]


def plural(unit: str) -> str:
    """ "foot" -> "feet"."""
    return PLURALS.get(unit, unit + "s")


def said(amount: int, unit: str) -> str:
    """ "three feet"."""
    return f"{number(amount)} {unit if amount == 1 else plural(unit)}"
