"""Days, months, seasons, and dates: Python's `calendar`."""

import calendar

from mdmspeech.data.texts.family import Family
from mdmspeech.text.normalise import number, year

SOURCE = "Python's calendar module"
DAYS, MONTHS = list(calendar.day_name), list(calendar.month_name)[1:]
MEETS = {
    "one day": 1,
    "two days": 2,
    "three days": 3,
    "four days": 4,
    "five days": 5,
    "six days": 6,
    "a week": 7,
}
ORDINALS = [number(n, ordinal=True) for n in range(1, 13)]


def families() -> list[Family]:
    """Days later and earlier, months later, month lengths and numbers, weekdays of dates, leap years."""
    return [*_days(), *_months(), *_dates()]


def _days() -> list[Family]:
    shifts = [
        {"day": day, "span": span, "later": DAYS[(i + n) % 7], "earlier": DAYS[(i - n) % 7]}
        for i, day in enumerate(DAYS)
        for span, n in MEETS.items()
    ]
    return [
        Family(
            "calendar",
            "days later",
            SOURCE,
            [
                "Today is {day}. What day will it be in {span}?",
                "What day comes {span} after {day}?",
                "If today is {day}, what day is it in {span}?",
            ],
            ["It's {day} now. Tell me the weekday {span} from today."],
            ["{span} after {day} it is {later}."],
            shifts,
            per_fact=3,
            test_count=8,
        ),
        Family(
            "calendar",
            "days earlier",
            SOURCE,
            ["Today is {day}. What day was it {span} ago?", "What day is {span} before {day}?"],
            ["It's {day} now. Tell me the weekday {span} back."],
            ["{span} before {day} it is {earlier}."],
            shifts,
            per_fact=2,
            test_count=5,
        ),
    ]


def _months() -> list[Family]:
    facts = [
        {
            "month": m,
            "next": MONTHS[(i + 1) % 12],
            "last": MONTHS[i - 1],
            "nth": ORDINALS[i],
            "days": "twenty-eight or twenty-nine"
            if i == 1
            else number(calendar.monthrange(2023, i + 1)[1]),
        }
        for i, m in enumerate(MONTHS)
    ]
    return [
        Family(
            "calendar",
            "next month",
            SOURCE,
            [
                "What month comes after {month}?",
                "Which month follows {month}?",
                "What is the month after {month}?",
            ],
            ["{month} is over. Which month begins?"],
            ["{next} comes after {month}."],
            facts,
            per_fact=3,
            test_count=4,
        ),
        Family(
            "calendar",
            "last month",
            SOURCE,
            ["What month comes before {month}?", "Which month is before {month}?"],
            ["Tell me the month just ahead of {month}."],
            ["{last} comes before {month}."],
            facts,
            per_fact=2,
            test_count=3,
        ),
        Family(
            "calendar",
            "month length",
            SOURCE,
            [
                "How many days are in {month}?",
                "How many days does {month} have?",
                "How long is {month}?",
            ],
            ["Tell me the number of days in {month}."],
            ["{month} has {days} days."],
            facts,
            per_fact=3,
            test_count=4,
        ),
        Family(
            "calendar",
            "month number",
            SOURCE,
            ["Which month of the year is {month}?", "What number is the month of {month}?"],
            ["Where in the year does {month} stand?"],
            ["{month} is the {nth} month of the year."],
            facts,
            per_fact=2,
            test_count=3,
        ),
        Family(
            "calendar",
            "nth month",
            SOURCE,
            ["What is the {nth} month of the year?", "Which month is the {nth} of the year?"],
            ["Name the {nth} month."],
            ["The {nth} month of the year is {month}."],
            facts,
            per_fact=2,
            test_count=3,
        ),
    ]


def _dates() -> list[Family]:
    years = [
        {"year": year(y), "is": "is" if calendar.isleap(y) else "is not"} for y in range(1960, 2061)
    ]
    return [
        Family(
            "leap years",
            "is",
            SOURCE,
            [
                "Is {year} a leap year?",
                "Was or is {year} a leap year?",
                "Does {year} have a leap day?",
            ],
            ["Tell me whether {year} counts as a leap year."],
            ["{year} {is} a leap year."],
            years,
            per_fact=2,
            test_count=8,
        )
    ]
