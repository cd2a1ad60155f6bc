"""Numbers and symbols in words."""

import pytest

from mdmspeech.text.normalise import normalise, number, sentence, year


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It costs $3.50.", "It costs three dollars and fifty cents."),
        ("1,250 people", "one thousand two hundred fifty people"),
        ("2.5% of it", "two point five percent of it"),
        ("the 21st of May", "the twenty-first of May"),
        ("-5 degrees", "minus five degrees"),
        ("in 1984", "in nineteen eighty-four"),
        ("12 km", "twelve kilometers"),
        ("agent 007", "agent zero zero seven"),
        ("`he said so' and don't", "he said so and don't"),
        ("no numbers here", "no numbers here"),
        ("The answer is no.", "The answer is no."),
        ("I said no. Five people left.", "I said no. Five people left."),
        ("Room no. 5 is free.", "Room number five is free."),
        ("", ""),
    ],
)
def test_normalise(written, said):
    assert normalise(written) == said


def test_nothing_of_a_number_is_left():
    assert not any(
        c.isdigit()
        for c in normalise(
            "On 3/4/2021 at 7:05 pm, 1,234,567.89 of H2O and 50% for £5 or 10-12 kg, no. 7"
        )
    )


def test_number_and_year():
    assert (number(0), number(-7), number(115), number(3, ordinal=True)) == (
        "zero",
        "minus seven",
        "one hundred fifteen",
        "third",
    )
    assert (year(1999), year(2000), year(2024)) == (
        "nineteen ninety-nine",
        "two thousand",
        "twenty twenty-four",
    )


def test_sentence():
    assert (
        sentence("the end") == "The end."
        and sentence("really?") == "Really?"
        and sentence("well, ") == "Well."
    )
