"""Answers from a closed list (numbers, times of day, letters, days, months): which of them is the
answer, and which are only what was asked with.

An item after "after", "than", "plus" and the like is given; the others are claimed. The last one
claimed has to be the wanted one (or the first, before "is"), and what else is claimed has to be the
question's. So "seven comes after eight" is not "eight comes after seven", and 115 is not 15.
"""

import calendar as days_and_months
import itertools
import re
from collections.abc import Collection, Sequence

from mdmspeech.evaluation.claims import BREAK, STOP, Claims, Words, beyond, content, tokens

_GIVEN = frozenset({
    "after", "before", "behind", "ahead", "of", "than", "from", "follows", "follow", "following",
    "precedes", "in", "into", "plus",
    "minus", "times", "multiplied", "divided", "by", "to", "with", "past",
})  # fmt: skip
_ORDER = frozenset(
    {"after", "before", "behind", "ahead", "than", "follows", "follow", "following", "precedes"}
)  # what stands behind these was asked with
_SAID_TO = frozenset({
    "equal", "equals", "comes", "adds", "sums", "amounts", "converts", "up", "corresponds",
})  # fmt: skip
_BETWEEN = frozenset({
    "the", "number", "letter", "month", "day", "just", "right", "exactly", "immediately",
    "directly", "amount", "a", "of", "weekday",
    "oclock",
})  # fmt: skip
_LINKS = frozenset({
    "is", "are", "comes", "equals", "makes", "gives", "follows", "means", "stands", "was", "will",
})  # fmt: skip
# before "one"
_NO_NUMBER = frozenset(
    ["the", "which", "this", "that", "no", "any", "each", "only", "another", "other", "every"]
)
_OPERATORS = frozenset({"plus", "minus", "times", "divided"})
_EARLIER, _LATER = (
    frozenset({"before", "ahead", "precedes"}),
    frozenset({"after", "behind", "follows", "following", "follow"}),
)
_FIRST, _LAST = (
    frozenset({"first", "1st", "begins", "starts", "begin", "start"}),
    frozenset({"last", "ends", "end"}),
)
_UNITS = {
    "mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "metre": "meter",
    "metres": "meter", "g": "gram", "mg": "milligram", "kg": "kilogram",
    "ft": "foot", "feet": "foot", "in": "inch", "inches": "inch", "yd": "yard", "lb": "pound",
    "lbs": "pound", "oz": "ounce", "l": "liter", "ml": "milliliter",
    "cl": "centiliter", "centuries": "century", "litre": "liter", "litres": "liter",
}  # fmt: skip
_UNIT_NAMES = frozenset({
    "hour", "minute", "second", "day", "week", "year", "month", "century", "kilometer", "meter",
    "centimeter", "millimeter", "foot",
    "inch", "yard", "mile", "kilogram", "gram", "milligram", "pound", "ounce", "liter",
    "milliliter", "centiliter", "gallon", "quart",
    "pint", "cup",
})  # fmt: skip
DAYS = frozenset(day.lower() for day in days_and_months.day_name)
MONTHS = frozenset(month.lower() for month in days_and_months.month_name[1:])


def plain_numbers(words: Sequence[str]) -> Words:
    """The numbers among words, as digits: "one" is 1 unless it stands for a thing."""
    return [item for _, item in _numbers(words)]


def _numbers(words: Sequence[str]) -> list[tuple[int, str]]:
    found = []
    for i, word in enumerate(words):
        if re.fullmatch(r"-?[\d.]*\d[^\s]*", word) and not re.fullmatch(r"\d+(st|nd|rd|th)", word):
            found.append((i, word.removesuffix(".0")))
        elif (
            word == "one"
            and not (i and words[i - 1] in _NO_NUMBER)
            and words[i + 1 : i + 2] not in (["of"], ["who"], ["that"], ["you"])
        ):
            found.append((i, "1"))
    return found


def _claimed(
    words: Words, items: list[tuple[int, str]], question: Collection[str]
) -> tuple[list[tuple[int, str]], bool]:
    """(items that are claimed, whether all that is given is the question's)."""
    claimed, consistent = [], True
    for i, item in items:
        before = [word for word in words[:i] if word not in _BETWEEN or word == "of"][-2:]
        # "ahead of"
        before = before[:1] if before[1:] == ["of"] and before[0] in _ORDER else before
        given = (
            bool(before)
            and before[-1] in _GIVEN
            and not (before[-1] == "to" and before[0] in _SAID_TO)
        )
        if given and item not in question and before[-1] in _ORDER:
            consistent = False
        if not given or (item not in question and before[-1] not in _ORDER):
            claimed.append((i, item))
    return claimed, consistent


def _is_the_claim(
    words: Words,
    items: list[tuple[int, str]],
    value: str,
    question: Collection[str],
    also: Collection[str] = (),
) -> bool:
    claimed, consistent = _claimed(words, items, question)
    named = [item for _, item in claimed]
    if (
        not consistent
        or value not in named
        or {*named} - {value, *question, *also}
        or _either(words, claimed)
    ):
        return False
    first_of_all = (
        named[0] == value
        and words[claimed[0][0] + 1 : claimed[0][0] + 3]
        and {*words[claimed[0][0] + 1 : claimed[0][0] + 3]} & _LINKS
    )
    return named[-1] == value or bool(first_of_all and {*named[1:]} <= {*question})


def _either(words: Words, claimed: list[tuple[int, str]]) -> bool:
    """Two that are claimed one as much as the other: "Monday or Tuesday", "Monday and Tuesday", "It
    is Monday. It is Tuesday.".
    """
    between = [
        {*words[i + 1 : j]} for (i, one), (j, other) in itertools.pairwise(claimed) if one != other
    ]
    return any(
        "or" in gap
        or (gap & {"and", BREAK, STOP} and gap <= {"and", BREAK, STOP, "it", "is", "the"})
        for gap in between
    )


def _sense(words: Collection[str], wanted: Collection[str]) -> bool:
    """False when before is said for after, or first for last."""
    for one, other in ((_EARLIER, _LATER), (_FIRST, _LAST)):
        for sense, opposite in ((one, other), (other, one)):
            if (
                {*wanted} & sense
                and not {*wanted} & opposite
                and {*words} & opposite
                and not {*words} & sense
            ):
                return False
    return True


def number(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """The result of a sum, the next number, an amount in another unit, an atomic number."""
    asked, expected = plain_numbers(question), plain_numbers(wanted)
    new = list(expected)
    for one in asked:
        if one in new:
            new.remove(one)
    value = (new or expected[-1:] or [""])[0] if question else (expected[-1:] or [""])[0]
    words = beyond(said.words, question) if value in asked else said.words
    items = _numbers(words)
    if value in asked and not ({*words} & _LINKS or len(content(words)) <= 1):
        return False
    if family == "arithmetic" and {*words} & _OPERATORS and not {*words} & _OPERATORS <= {*wanted}:
        return False
    if family == "units" and not _same_unit(words, wanted, value):
        return False
    if family == "number order" and not _sense(words, wanted):
        return False
    if not question and not {*expected} <= {item for _, item in items}:
        return False
    return _is_the_claim(
        words, items, value, asked, _worked(said.words, value) if family == "units" else ()
    ) and (family != "elements" or _same_thing(said.words, wanted, question))


def _worked(words: Words, value: str) -> set[str]:
    """Numbers of sums that come to `value`: 8 and 100 of "8 times 100 is 800"."""
    found: set[str] = set()
    for a, sign, b, c in re.findall(
        r"(-?\d+) (plus|minus|times|divided by) (\d+) (?:is|equals|gives|makes) (-?\d+)",
        " ".join(words).replace("one ", "1 "),
    ):
        x, y = int(a), int(b)
        result = {
            "plus": x + y,
            "minus": x - y,
            "times": x * y,
            "divided by": x / y if y else None,
        }[sign]
        if c == value and result == int(c):
            found |= {a, b}
    return found


def _unit(word: str) -> str:
    return _UNITS.get(word, word.removesuffix("s"))


def _same_unit(words: Words, wanted: Words, value: str) -> bool:
    """The wanted number does not come in another unit."""

    def after(where: Words) -> list[str]:
        return [
            _unit(where[i + 1])
            for i, item in _numbers(where)
            if item == value and i + 1 < len(where)
        ]

    right = {unit for unit in after(wanted) if unit in _UNIT_NAMES}
    found = [unit for unit in after(words) if unit in _UNIT_NAMES]
    return not found or not right or bool({*found} & right)


def _same_thing(words: Words, wanted: Words, question: Words) -> bool:
    """The element asked for, or none."""
    subject = [word for word in content(wanted) if word in question and not word.isdigit()]
    return bool({*subject} & {*words}) or not [
        word for word in content(words) if word not in question and not word.isdigit()
    ]


def sequence(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """Every number of a list, in order, and no other; what stands before "are" is not the list."""

    def listed(words: Words) -> Words:
        return plain_numbers(words[words.index("are") :] if "are" in words else words)

    right = listed(wanted)
    singly = (
        [item for part in re.split(r"\s+", said.text) for item in plain_numbers(_words_of(part))]
        if BREAK not in said.words
        else []
    )
    return "or" not in said.words and (
        listed(beyond(said.words, question, 4)) == right or singly == right
    )


def _words_of(text: str) -> Words:
    return [word for word in tokens(text) if word not in (BREAK, STOP)]


def letters(text: str) -> list[str]:
    """Runs of two or more single letters, upper case: "C-A-T is not d, o, g" -> ["CAT", "DOG"]."""
    text = re.sub(r"[\"“”`*]|(?<!\w)'|'(?!\w)", " ", text)
    text = re.sub(r"\bdouble[ -]([A-Za-z])\b", r"\1, \1", text)
    runs = re.findall(
        r"(?<![\w'])[A-Za-z](?:(?:[\s,.:-]|\band\b|\bthen\b)+[A-Za-z](?![\w']))+", text
    )
    found = ["".join(re.findall(r"\b[A-Za-z]\b", run)) for run in runs]
    return [(run[1:] if run[0] == "a" and run[1:].isupper() else run).upper() for run in found]


def spelling(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """The letters one by one, and no other letters."""
    right = (
        "".join(
            word
            for word in wanted[wanted.index("spelled") + 1 :]
            if len(word) == 1 and word.isalpha()
        ).upper()
        if "spelled" in wanted
        else ""
    )
    named = re.search(r"(\w+) is spelled", " ".join(said.words))
    word = wanted[0]
    about = named is None or named[1] in (word, "it", "that", "this")
    return about and letters(said.text) == [right] and not said.denied


def _single(said: Claims) -> list[tuple[int, str]]:
    """Single letters among the words; "a" and "I" only where they must be letters."""
    found = []
    last = len(said.words) - 1
    capital = (
        re.search(r"(?<![\w'])A(?![\w'])", re.sub(r"^\W*A\b|[.!?]\s+A\b", "", said.text))
        is not None
    )
    for i, word in enumerate(said.words):
        sure = (
            i == last
            or said.words[i + 1] in (STOP, BREAK, *_LINKS)
            or said.words[i - 1 : i] == ["letter"]
            or (word == "a" and capital)
        )
        if (
            re.fullmatch(r"[a-z]", word)
            and (word not in "ai" or sure)
            and not (word == "i" and said.words[i + 1 : i + 2] in (["am"], ["have"]))
        ):
            found.append((i, word))
    return found


def letter(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """One letter: of the alphabet, or of a word."""
    asked = (
        [word for word in question if re.fullmatch("[a-z]", word)] if family == "alphabet" else []
    )
    value = wanted[-1]
    return _sense(said.words, wanted) and _is_the_claim(said.words, _single(said), value, asked)


def letter_or_count(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """How many letters a word has, or its first or last one."""
    subject = next((word for word in reversed(question) if word in content(wanted)), "")
    known = {*question, *wanted, *_FIRST, *_LAST, "contains", "consists"}
    named = re.findall(
        (
            r"\b(?:letter of|word) (?:the word )?([a-z]{2,})|([a-z]{2,}) (?:begins"
            r"|starts|ends|has)"
        ),
        " ".join(said.words),
    )
    known = {
        "", "it", "that", "which", "this", "word", "the", "is", "has", "begins", "starts", "ends",
        subject,
    }  # fmt: skip
    if {name for pair in named for name in pair} - known:
        return False
    strange = [
        word
        for word in content(said.words)
        if word not in known and len(word) > 1 and not word.isdigit()
    ]
    if subject and subject not in said.words and strange:
        return False
    if wanted[-1] != "letters":
        return (
            not _more_numbers(said.words, {*question, *wanted})
            and letter(said, wanted, question, family)
            and subject not in _after(said.words, "is")
        )
    return not _single(said) and _is_the_claim(
        said.words, _numbers(said.words), wanted[-2], plain_numbers(question)
    )


def _after(words: Words, mark: str) -> Words:
    return words[words.index(mark) :] if mark in words else []


def symbol(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """An element's symbol, letter by letter or as it is written."""
    right = "".join(
        word for word in wanted[wanted.index("is") + 1 :] if re.fullmatch("[a-z]", word)
    )
    subject = next((word for word in content(wanted) if word in question), "")
    strange = [
        word
        for word in content(said.words)
        if word not in {*question, *wanted, "symbols", "chemical", "labeled", "as", right}
        and len(word) > 1
    ]
    if subject not in said.words and strange:
        return False
    runs = [run.lower() for run in letters(said.text)]
    if len(right) == 1:
        return not runs and [item for _, item in _single(said)] == [right]
    written = re.findall(
        rf"(?<![\w'])(?:{right.capitalize()}|{right}(?=\W*$)|(?<=^){right}\b)(?![\w'])",
        said.text.strip(),
    )
    singles = [item for _, item in _single(said) if item not in right]
    return (
        not said.denied
        and "or" not in said.words
        and (
            runs == [right]
            or (not runs and bool(written) and not singles and not _symbols(said.text, right))
        )
    )


def _symbols(text: str, right: str) -> list[str]:
    """Other words that look like symbols."""
    return [
        word
        for word in re.findall(r"(?<=\s)[A-Z][a-z]?(?![\w'])", text)
        if word.lower() not in (right, "i", "a")
    ]


def calendar(said: Claims, wanted: Words, question: Words, family: str) -> bool:
    """A day, a month, how long a month is, or its place in the year."""
    if not _sense(said.words, wanted):
        return False
    ordinal = next(
        (
            word
            for word in wanted
            if re.fullmatch(r"\d+(st|nd|rd|th)", word) and word not in question
        ),
        "",
    )
    if ordinal:
        named = [word for word in said.words if re.fullmatch(r"\d+(st|nd|rd|th)?", word)]
        return (
            "or" not in said.words
            and bool(named)
            and {re.sub(r"\D", "", word) for word in named} == {re.sub(r"\D", "", ordinal)}
            and _only(said.words, question, MONTHS | DAYS)
        )
    if wanted[-1] == "days":
        expected, found = plain_numbers(wanted), plain_numbers(said.words)
        return (
            found == expected
            and ("or" in wanted or "or" not in said.words)
            and _only(said.words, question, MONTHS | DAYS)
        )
    names = DAYS if {*wanted} & DAYS else MONTHS
    asked = [word for word in question if word in names]
    value = next(
        (word for word in wanted if word in names and word not in asked), asked[-1] if asked else ""
    )
    words = beyond(said.words, question) if value in asked else said.words
    items = [(i, word) for i, word in enumerate(words) if word in names]
    return (
        _is_the_claim(words, items, value, asked)
        and _only(words, question, (DAYS | MONTHS) - names)
        and not _more_numbers(words, question)
    )


def _more_numbers(words: Words, question: Collection[str]) -> bool:
    """A number or an ordinal that the question does not hold, where a name is wanted."""
    return bool({word for word in words if word[:1].isdigit()} - {*question})


def _only(words: Words, question: Words, names: Collection[str]) -> bool:
    return {*words} & {*names} <= {*question}
