"""Every row of the table of written texts, and properties that hold for any text."""

import random
import string
import unicodedata
import warnings

import pytest

from mdmspeech.errors import UserError
from mdmspeech.evaluation.reading import table, words
from mdmspeech.text import signs
from mdmspeech.text.characters import fold, unsayable
from mdmspeech.text.normalise import check_speakable, normalise

ROWS = table()


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row.kind}" for n, row in enumerate(ROWS)])
def test_a_written_text_becomes_the_words_that_a_person_says(row):
    assert words(normalise(row.written)) == words(row.said)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.kind in ("lines", "abbreviations")],
    ids=lambda row: row.written[:20],
)
def test_pauses_are_where_a_person_pauses(row):
    assert normalise(row.written) == row.said


def test_the_table_has_all_kinds():
    kinds = [row.kind for row in ROWS]
    assert len(ROWS) >= 150
    assert min(kinds.count(kind) for kind in set(kinds)) >= 10 and {
        "money",
        "signs",
        "numbers",
        "lines",
        "markup",
        "characters",
    } <= set(kinds)


def test_the_words_are_their_own_normal_form():
    assert [normalise(normalise(row.written)) for row in ROWS] == [
        normalise(row.written) for row in ROWS
    ]


def test_any_text_has_a_normal_form_made_of_words_and_pauses():
    rng = random.Random(0)
    hard = [
        "no.", "St.", "$", "5", "12", "½", "€", "\n", " ", " - ", "'", '"', "é", "世界", "😀", "<b>",
        "**",
    ]  # fmt: skip
    bits = [row.written for row in ROWS] + list(string.printable) + hard
    for _ in range(300):
        text = "".join(rng.choice(bits) for _ in range(rng.randint(1, 12)))
        said = normalise(text)
        assert normalise(said) == said, text
        assert not any(c.isdigit() for c in said), (text, said)
        assert all(c.isalpha() or c in "' -.,;:!?" for c in said), (text, said)


COMMON = "€£¥₹₩₽₿₺₴₪฿₫₱₦₡₵₸¢¤§¶©®™°±×÷−√∛∞≈≠≤≥≡∑∏∫∂∇∈∉∩∪⊂⊃∀∃∅∴∝∠→←↑↓↔⇒⇔†‡•·‰№µπΩαβ′″½¼¾⅓²³⁴₂ªº¿¡«»„“”‘’–—…¦¬✓✗№℃℉ℓ"


@pytest.mark.parametrize("frame", ["{}", "word {} word", "5 {} 3", "word{}word", "5{}3"])
def test_no_sign_vanishes_silently(frame):
    """Each is spoken, is a pause, or is named in a warning; quotation marks and apostrophes alone
    are silent.
    """
    plain, vanished = normalise(frame.format(" ")), []
    for sign in sorted({*string.punctuation, *COMMON}):
        text = frame.format(sign)
        said = normalise(text)
        pause = sum(said.count(c) for c in ",;:.!?-") > sum(plain.count(c) for c in ",;:.!?-")
        silent = fold(sign) in signs.SILENT or (
            frame == "{}" and not any(c.isalnum() for c in said)
        )
        if (
            words(said) == words(plain)
            and not pause
            and not silent
            and not unsayable(fold(text), signs.KNOWN)
        ):
            vanished.append(sign)
    assert not vanished


@pytest.mark.parametrize(
    "text", ["", "  ", "...", "!", "—", "?!", "=====", "()", '"', "\n\n", "<b></b>", "- - -"]
)
def test_nothing_to_say_is_one_clear_error(text):
    with pytest.raises(UserError, match="nothing to say"):
        check_speakable(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Привет, мир", "Cyrillic"),
        ("Γειά σου Κόσμε", "Greek"),
        ("你好世界", "Chinese"),
        ("こんにちは", "Japanese"),
        ("안녕", "Korean"),
        ("שלום", "Hebrew"),
        ("مرحبا", "Arabic"),
        ("😀", "emoji"),
        ("नमस्ते", "Devanagari"),
    ],
)
def test_a_text_that_cannot_be_said_at_all_names_its_script(text, named):
    with pytest.raises(UserError, match=named):
        check_speakable(text)


@pytest.mark.parametrize(
    ("text", "named", "said"),
    [
        ("Hello 世界", "世界", "Hello"),
        ("Nice 😀 day", "😀", "Nice day"),
        ("The word мир means peace", "мир", "The word means peace"),
        ("a ⌘ b", "⌘", "a b"),
    ],
)
def test_what_is_left_out_is_named(text, named, said):
    with pytest.warns(UserWarning, match=named):
        assert check_speakable(text) == said


@pytest.mark.parametrize(
    "text", ["Plain words.", "$5 & more", "Café", "π", "x ≤ 5", "“Quoted”", "wait…", "5 €"]
)
def test_what_can_be_said_is_said_without_a_warning(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_speakable(text) == normalise(text)


@pytest.mark.parametrize("length", [16, 34, 400, 5000])
def test_endless_digits_are_read_one_by_one(length):
    assert words(normalise("1" * length)) == ["one"] * length
    assert words(normalise(f"No. {'2' * length}."))[1:] == ["two"] * length


@pytest.mark.parametrize("text", ["café", "naïve", "Zürich", "São Paulo", "don’t"])
def test_decomposed_letters_are_the_composed_ones(text):
    assert (
        normalise(unicodedata.normalize("NFD", text))
        == normalise(text)
        == normalise(unicodedata.normalize("NFC", text))
    )


def test_long_texts_take_time_in_proportion():
    import time

    def seconds(times: int) -> float:
        began = time.process_time()
        normalise(
            "On 3 May he paid $5.50 at 7:30, i.e. 10% of 12 km in the U.S. It is nice - no. 5. "
            * times
        )
        return time.process_time() - began

    seconds(10)
    assert seconds(240) < 20 * seconds(30) + 0.2


@pytest.mark.parametrize(
    ("start", "unit", "end", "said"),
    [
        ("inner", " ", "space", "inner space"),
        ("Hello", " \u4f60", " end", "Hello end"),
        ("Hello", "\u4f60", " end", "Hello end"),
        ("tab", "\t ", "bed", "tab, bed"),
        ("He", " \n", "left.", "He. left."),
        ("", "-", "!", ""),
        ("go", "\n" + "-" * 9, "\non", "go. on"),
        ("<b>x</b> ", "<!-- y -->", "z", "x z"),
        ("one", "\n\n", "two", "one. two"),
    ],
)
def test_runs_of_marks_and_blanks_leave_the_words(start, unit, end, said):
    """Each of these was tried from every character of the run."""
    assert normalise(start + unit * 5000 + end) == said


ENDLESS = [
    "a\n", "1)", "-1", "1-", "1.a", "000 ", "1,1", "911 ", "<img alt='", '<img alt="', "<!--", "<?",
    "1%", "½ ", "(a", "[^", "[a\n",
]  # fmt: skip


@pytest.mark.parametrize("unit", ENDLESS)
def test_endless_repetitions_are_read_to_their_end(unit):
    said = normalise(unit * 700 + " the last words")
    assert said.endswith("the last words") and normalise(said) == said
    assert len(words(said)) > 700


def test_no_class_of_characters_is_a_range_by_accident():
    """A "-" between two signs makes a range: "[+-\u2212]" holds all letters and digits."""
    import importlib
    import pathlib
    import pkgutil
    import re

    import mdmspeech.text

    found = []
    for module in pkgutil.iter_modules(mdmspeech.text.__path__):
        loaded = importlib.import_module(f"mdmspeech.text.{module.name}")
        for name, pattern in vars(loaded).items():
            if isinstance(pattern, re.Pattern):
                found += [
                    (module.name, name, text)
                    for text in re.findall(
                        r"(?<!\\)[+*/=<>(),.:;$%&!?~^|]-[^\\\]\[\x00-\x7f]", pattern.pattern
                    )
                ]
        source = pathlib.Path(loaded.__file__).read_text(encoding="utf-8")
        found += [
            (module.name, text)
            for text in re.findall(
                r"\[[^\]\n]*[+*/=<>(,.:;$%&!?~^|]-[\u2212\u2013\u2014+*/=<>),.:;$%&!?~^|]", source
            )
        ]
    assert not found


@pytest.mark.parametrize("text", ["\ud800", "\udc80 \udfff"])
def test_half_a_character_is_named_in_a_message_that_can_be_printed(text):
    with pytest.raises(UserError, match=r"\\ud[8c][80]0") as raised:
        check_speakable(text)
    str(raised.value).encode("utf-8")
