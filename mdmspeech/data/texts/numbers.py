"""Arithmetic, comparison, counting, and the clock: computed here, put into words by num2words. Test
questions use numbers that training never pairs.
"""

import random
from collections.abc import Callable, Sequence

from mdmspeech.data.texts.family import Fact, Family, listed
from mdmspeech.text.normalise import number

SOURCE = "computed; words by num2words (LGPL)"
UNSEEN_SHARE = 0.08  # of all pairs of numbers; these are asked in the test only


def families() -> list[Family]:
    """Arithmetic in four kinds, comparison, counting, number order, the clock."""
    return [*_arithmetic(), *_comparison(), *_counting(), _clock()]


def _split(facts: Sequence[Fact], count: int, seed: int) -> tuple[list[Fact], list[Fact]]:
    """`count` training facts and the unseen test facts. A pair of numbers is held out in both
    orders: if 3 + 5 is tested, 5 + 3 is not trained.
    """
    drawn = list(facts)
    random.Random(seed).shuffle(drawn)
    held_pairs = {
        frozenset((f["a"], f["b"])) for f in drawn[: max(1, int(len(drawn) * UNSEEN_SHARE / 2))]
    }
    test = [f for f in drawn if frozenset((f["a"], f["b"])) in held_pairs]
    return [f for f in drawn if frozenset((f["a"], f["b"])) not in held_pairs][:count], test


def _pairs(
    values_a: Sequence[int], values_b: Sequence[int], result: Callable[[int, int], int]
) -> list[Fact]:
    return [
        {"a": number(a), "b": number(b), "c": number(result(a, b))}
        for a in values_a
        for b in values_b
    ]


def _arithmetic() -> list[Family]:
    plus, plus_test = _split(_pairs(range(1, 51), range(1, 51), lambda a, b: a + b), 700, 1)
    minus, minus_test = _split(
        [f for a in range(1, 51) for f in _pairs([a], range(0, a + 1), lambda a, b: a - b)], 500, 2
    )
    times, times_test = _split(_pairs(range(0, 21), range(0, 13), lambda a, b: a * b), 250, 3)
    divided, divided_test = _split(
        [
            {"a": number(b * c), "b": number(b), "c": number(c)}
            for b in range(1, 13)
            for c in range(1, 16)
        ],
        160,
        4,
    )
    return [
        Family(
            "arithmetic",
            "plus",
            SOURCE,
            [
                "What is {a} plus {b}?",
                "How much is {a} plus {b}?",
                "Add {a} and {b}.",
                "What do you get when you add {b} to {a}?",
                "What's the sum of {a} and {b}?",
            ],
            [
                "Can you work out {a} plus {b} for me?",
                "If I have {a} and get {b} more, how many is that?",
            ],
            ["{a} plus {b} is {c}."],
            plus,
            plus_test,
            per_fact=2,
            test_count=16,
        ),
        Family(
            "arithmetic",
            "minus",
            SOURCE,
            [
                "What is {a} minus {b}?",
                "How much is {a} minus {b}?",
                "Subtract {b} from {a}.",
                "What do you get when you take {b} away from {a}?",
            ],
            [
                "Can you work out {a} minus {b} for me?",
                "If I have {a} and lose {b}, how many are left?",
            ],
            ["{a} minus {b} is {c}."],
            minus,
            minus_test,
            per_fact=2,
            test_count=14,
        ),
        Family(
            "arithmetic",
            "times",
            SOURCE,
            [
                "What is {a} times {b}?",
                "How much is {a} times {b}?",
                "Multiply {a} by {b}.",
                "What is {a} multiplied by {b}?",
            ],
            ["Can you work out {a} times {b} for me?"],
            ["{a} times {b} is {c}."],
            times,
            times_test,
            per_fact=3,
            test_count=12,
        ),
        Family(
            "arithmetic",
            "divided",
            SOURCE,
            [
                "What is {a} divided by {b}?",
                "How much is {a} divided by {b}?",
                "Divide {a} by {b}.",
                "How many times does {b} go into {a}?",
            ],
            ["Can you work out {a} divided by {b} for me?"],
            ["{a} divided by {b} is {c}."],
            divided,
            divided_test,
            per_fact=3,
            test_count=8,
        ),
    ]


def _comparison() -> list[Family]:
    rng = random.Random(5)
    facts, seen = [], set()
    while len(facts) < 700:
        a, b = rng.randrange(1, 1000), rng.randrange(1, 1000)
        if a != b and (a, b) not in seen:
            seen |= {(a, b), (b, a)}
            facts.append(
                {
                    "a": number(a),
                    "b": number(b),
                    "more": number(max(a, b)),
                    "less": number(min(a, b)),
                }
            )
    train, test = _split(facts, 600, 6)
    return [
        Family(
            "comparison",
            "larger",
            SOURCE,
            [
                "Which number is larger, {a} or {b}?",
                "What is more, {a} or {b}?",
                "Is {a} or {b} the bigger number?",
            ],
            ["Out of {a} and {b}, pick the higher number."],
            ["{more} is larger than {less}."],
            train,
            test,
            per_fact=1,
            test_count=10,
        ),
        Family(
            "comparison",
            "smaller",
            SOURCE,
            ["Which number is smaller, {a} or {b}?", "What is less, {a} or {b}?"],
            ["Out of {a} and {b}, pick the lower number."],
            ["{less} is smaller than {more}."],
            train[:300],
            test,
            per_fact=1,
            test_count=6,
        ),
    ]


def _counting() -> list[Family]:
    counts = []
    for first in range(0, 90):
        for length in (4, 5, 6):
            values = [number(v) for v in range(first, first + length)]
            counts.append(
                {
                    "a": values[0],
                    "b": values[-1],
                    "up": ", ".join(values),
                    "down": ", ".join(reversed(values)),
                }
            )
    train, test = _split(counts, 240, 7)
    order = [
        {"a": number(a), "after": number(a + 1), "before": number(a - 1)} for a in range(1, 400)
    ]
    by_twos = [
        {
            "step": number(s),
            "list": listed([number(s * k) for k in range(1, n + 1)]),
            "n": number(n),
        }
        for s in range(2, 13)
        for n in (3, 4, 5)
    ]
    return [
        Family(
            "counting",
            "up",
            SOURCE,
            [
                "Count from {a} to {b}.",
                "Please count up from {a} to {b}.",
                "Can you count from {a} to {b}?",
            ],
            ["Start at {a} and count to {b}."],
            ["{up}."],
            train,
            test,
            per_fact=2,
            test_count=8,
        ),
        Family(
            "counting",
            "down",
            SOURCE,
            ["Count down from {b} to {a}.", "Please count backwards from {b} to {a}."],
            ["Start at {b} and count back to {a}."],
            ["{down}."],
            train[:150],
            test,
            per_fact=2,
            test_count=6,
        ),
        Family(
            "number order",
            "after",
            SOURCE,
            [
                "What number comes after {a}?",
                "Which number follows {a}?",
                "What comes right after {a}?",
            ],
            ["Add one to {a} and tell me the number."],
            ["The number after {a} is {after}.", "After {a} comes {after}."],
            order,
            per_fact=1,
            test_count=8,
        ),
        Family(
            "number order",
            "before",
            SOURCE,
            [
                "What number comes before {a}?",
                "Which number is one less than {a}?",
                "What comes right before {a}?",
            ],
            ["Take one from {a} and tell me the number."],
            ["The number before {a} is {before}.", "Before {a} comes {before}."],
            order,
            per_fact=1,
            test_count=8,
        ),
        Family(
            "counting",
            "multiples",
            SOURCE,
            [
                "Tell me the first {n} multiples of {step}.",
                "What are the first {n} multiples of {step}?",
                "Count in steps of {step}, {n} times.",
            ],
            ["I need the first {n} numbers in the {step} times table."],
            ["The first {n} multiples of {step} are {list}."],
            by_twos,
            per_fact=3,
            test_count=5,
        ),
    ]


def _clock() -> Family:
    facts = []
    for hour in range(1, 13):
        for minutes in (0, 15, 30, 45):
            for hours, more in [(h, m) for h in (0, 1, 2, 3, 4, 5) for m in (0, 15, 30)][1:]:
                end = hour * 60 + minutes + hours * 60 + more
                facts.append(
                    {
                        "a": _time(hour, minutes),
                        "b": _wait(hours, more),
                        "end": _time((end // 60 - 1) % 12 + 1, end % 60),
                    }
                )
    train, test = _split(facts, 400, 8)
    return Family(
        "clock",
        "later",
        SOURCE,
        [
            "What time is it {b} after {a}?",
            "It is {a}. What time will it be in {b}?",
            "If it is {a} now, what time is it in {b}?",
        ],
        ["A film starts at {a} and lasts {b}. When does it end?"],
        ["{b} after {a} it is {end}."],
        train,
        test,
        per_fact=2,
        test_count=14,
    )


def _time(hour: int, minutes: int) -> str:
    return f"{number(hour)} o'clock" if not minutes else f"{number(hour)} {number(minutes)}"


def _wait(hours: int, minutes: int) -> str:
    said = [f"{number(hours)} {'hour' if hours == 1 else 'hours'}"] if hours else []
    return " and ".join([*said, f"{number(minutes)} minutes"] if minutes else said)
