"""Text pieces: the shipped list is closed, texts survive, merges follow from the order."""

import pytest

from mdmspeech.text import pieces


def test_merges_follow_from_the_order():
    letters = ["a", "b", "c", "Ġ"]
    made = pieces.Pieces([*letters, "ab", "Ġab", "abc", "Ġabc"])
    assert made.encode("abc ab") == [7, 5]  # " abc" in one piece, then " ab"
    assert made.decode([7, 5]) == "abc ab"


def test_what_cannot_be_merged_has_no_merge():
    assert pieces._last_merge("abcd", {"a": 0, "b": 1, "c": 2, "d": 3, "abcd": 4}) is None
    assert pieces._last_merge(
        "abcd", {"a": 0, "b": 1, "c": 2, "d": 3, "ab": 4, "cd": 5, "abcd": 6}
    ) == ("ab", "cd")


@pytest.mark.parametrize(
    "text", ["What is the capital of Mongolia?", "It's 15:30, isn't it?", "zyzzyva", "naïve café"]
)
def test_texts_survive(text):
    known = pieces.shipped()
    assert known.decode(known.encode(text)) == text


def test_shipped_list():
    names = pieces.shipped_names()
    known = pieces.shipped()
    assert len(known) == len(names) == len(set(names))
    assert known.encode("the") == [names.index("Ġthe")]
    # Every piece can be reached: encoding its own text gives it back.
    reached = sum(
        known._reader.encode(name.replace("Ġ", " ")).ids == [i]
        for i, name in enumerate(names)
        if name.replace("Ġ", "").isalnum()
    )
    assert reached > 0.97 * sum(name.replace("Ġ", "").isalnum() for name in names)


def test_decoding_stops_at_the_end():
    known = pieces.shipped()
    assert known.decode([*known.encode("yes"), len(known), *known.encode("no")]) == "yes"


def test_english_keeps_bytes_and_ascii():
    vocabulary = [chr(300 + i) for i in range(256)] + ["the", "für", "Ġcat", "late"]
    assert pieces.english(vocabulary, limit=259) == [*range(256), 256, 258]
