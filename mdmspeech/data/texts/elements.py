"""Chemical elements: symbols and atomic numbers from `periodictable` (public domain)."""

from mdmspeech.data.texts.family import Family, spelled
from mdmspeech.text.normalise import number

SOURCE = "periodictable (public domain)"


def families() -> list[Family]:
    """Symbols, numbers and names of the 118 elements."""
    import periodictable

    found = [e for e in periodictable.elements if e.number > 0]
    facts = [{"name": e.name, "symbol": spelled(e.symbol), "number": number(e.number)} for e in found]
    return [
        Family(
            "elements",
            "symbol",
            SOURCE,
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
            SOURCE,
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
            SOURCE,
            ["Which element has the atomic number {number}?", "What is element number {number}?", "Which element has {number} protons?"],
            ["Name the element with the number {number} in the periodic table."],
            ["Element number {number} is {name}."],
            facts,
            per_fact=2,
            test_count=6,
        ),
    ]
