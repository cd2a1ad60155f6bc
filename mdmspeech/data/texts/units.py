"""Conversions that come out even: `pint` (BSD) does the arithmetic."""

from mdmspeech.data.texts.family import Family
from mdmspeech.text.normalise import number

SOURCE = "pint (BSD)"
# large unit, small unit, as they are said in the singular; plural by adding s unless given in PLURALS
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


def families() -> list[Family]:
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
            SOURCE,
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
