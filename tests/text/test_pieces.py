"""Text pieces: the shipped list is closed, texts survive, merges follow from the order."""

import pytest

from mdmspeech.errors import UserError
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


@pytest.mark.parametrize("count", [pieces.PIECES, 23_793])
def test_shipped_lists(count):
    names = pieces.shipped_names(count)
    known = pieces.shipped(count)
    assert len(known) == count == len(names) == len(set(names))
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


def test_rare_words_are_written_in_their_own_pieces():
    """The first release's list lacked these, and its ear wrote "repared" and "air lines"."""
    known, first = pieces.shipped(), pieces.shipped(23_793)
    for word in ("repaired", "airlines", "Bangladesh", "voyage", "fossils"):
        assert len(known.encode(word)) < len(first.encode(word)), word
    assert "ĠSehr" not in pieces.shipped_names()  # and German it need not write


def test_no_list_of_so_many():
    with pytest.raises(UserError, match="writes 12 pieces, this program knows lists of 30000 and"):
        pieces.shipped(12)


LETTERS = [chr(300 + i) for i in range(246)] + [*"abcü", "Ġ", "A", "B", "C", "1", "["]
VOCABULARY = [*LETTERS, "ab", "Ġab", "abc", "Ġü", "Ġabc", "Ġ1", "Ġ11", "11", "Ġ[", "ĠC", "Ġc"]
SIGNS = ["Ġ1", "Ġ11", "11", "Ġ["]


def of(words, count):
    return [VOCABULARY[i] for i in pieces.english(VOCABULARY, words, 256 + count)][256:]


@pytest.mark.parametrize(
    ("words", "count", "kept"),
    [
        # numbers and signs, whatever the words are
        ({}, 10, SIGNS),
        ({"ü": 1.0}, 10, SIGNS),  # a byte each
        # all that a word is merged from comes along
        ({"abc": 1.0}, 7, ["ab", "Ġab", "Ġabc", *SIGNS]),
        # a word that has no room is left out, one that has it is kept
        ({"abc": 1.0, "c": 0.1}, 5, [*SIGNS, "Ġc"]),
        # with a capital, a word counts for less
        ({"c": 1.0}, 5, [*SIGNS, "Ġc"]),
        ({"c": 1.0}, 6, [*SIGNS, "ĠC", "Ġc"]),
    ],
)
def test_which_pieces_are_kept(words, count, kept):
    assert len(LETTERS) == 256
    assert of(words, count) == kept


@pytest.mark.parametrize(("share", "kept"), [(0.01, "Ġb"), (0.0001, "Ġa")])
def test_a_rare_word_weighs_the_root_of_its_share(share, kept):
    """Ten words of a hundredth each outweigh one of a half, whose root is 0.71."""
    vocabulary = [*LETTERS, "Ġa", "Ġb"]
    words = {"a": 0.5, **{"b" + "a" * n: share for n in range(1, 11)}}
    assert [vocabulary[i] for i in pieces.english(vocabulary, words, 257)][256:] == [kept]
