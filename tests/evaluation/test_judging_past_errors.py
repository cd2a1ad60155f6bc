"""Answers of the compact model that were once judged wrongly, either way."""

import pytest

from mdmspeech.evaluation.judging import is_right


@pytest.mark.parametrize(
    ("family", "question", "expected", "said"),
    [
        (
            "spelling",
            "Letter by letter, how is agree written?",
            "Agree is spelled A, G, R, E, E.",
            "Let her buy the letter How is agree.",
        ),
        (
            "spelling",
            "Letter by letter, how is sight written?",
            "Sight is spelled S, I, G, H, T.",
            "Let her by letter how is sight.",
        ),
        (
            "spelling",
            "Letter by letter, how is separate written?",
            "Separate is spelled S, E, P, A, R, A, T, E.",
            "The letter is written as SEPARATE",
        ),
        (
            "arithmetic",
            "Can you work out two times one for me?",
            "Two times one is two.",
            "Can you work out two times one?",
        ),
        (
            "arithmetic",
            "Can you work out ten times one for me?",
            "Ten times one is ten.",
            "Can you work out ten times one",
        ),
        (
            "arithmetic",
            "Can you work out two times one for me?",
            "Two times one is two.",
            "Two times one.",
        ),
        (
            "neighbours",
            "Give me a country that lies right beside Guinea-Bissau.",
            "Guinea borders Guinea-Bissau.",
            "The country of Guinea-Bissau lies right beside Guinea-Bissau.",
        ),
        (
            "alphabet",
            "What stands right behind C?",
            "The letter after C is D.",
            "The letter C stands right behind the letter D.",
        ),
        (
            "alphabet",
            "What stands just ahead of F?",
            "The letter before F is E.",
            "The letter F stands just ahead of the letter E.",
        ),
        (
            "neighbours",
            "Give me a country that lies right beside Guinea.",
            "Guinea-Bissau borders Guinea.",
            "Guinea-Bissau is beside Angola.",
        ),
        (
            "cities",
            "Tell me the country where Mexicali lies.",
            "Mexicali is in Mexico.",
            "The country where Mexico is located is Mexico.",
        ),
        (
            "cities",
            "Tell me the country where Gold Coast lies.",
            "Gold Coast is in Australia.",
            "The country where gold is found is Australia.",
        ),
    ],
)
def test_what_the_compact_model_said_and_was_once_counted_for(family, question, expected, said):
    if family in ("neighbours", "cities"):
        pytest.importorskip("countryinfo", reason="the data extra is not installed")
    assert not is_right(said, expected, family, question)


@pytest.mark.parametrize(
    ("family", "question", "expected", "said"),
    [
        (
            "languages",
            "In Colombia, what language would I hear?",
            "People in Colombia speak Spanish.",
            "In Colombia, the language is Spanish.",
        ),
        (
            "people",
            "Someone was born in Jamaica. What are they called?",
            "A person from Jamaica is Jamaican.",
            "The person born in Jamaica is called a Jamaican.",
        ),
        (
            "opposites",
            "I need the contrary of sorrow.",
            "The opposite of sorrow is joy.",
            "The contrary of sorrow is joy.",
        ),
        (
            "currencies",
            "If I travel to Belgium, which currency do I need?",
            "The currency of Belgium is the euro.",
            "I need to convert to Euro.",
        ),
        (
            "elements",
            "Which letters stand for boron?",
            "The symbol for boron is B.",
            "The letter 'B' stands for boron.",
        ),
        (
            "areas",
            "Compare the United States and Cabo Verde.",
            "The United States is larger than Cabo Verde.",
            "The United States has more land.",
        ),
        (
            "kinds",
            "To which group of things does a honeybee belong?",
            "A honeybee is an animal.",
            "The honeybee belongs to the kingdom of animals.",
        ),
    ],
)
def test_what_the_compact_model_said_rightly_and_was_not_counted_for(
    family, question, expected, said
):
    assert is_right(said, expected, family, question)
