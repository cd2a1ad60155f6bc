"""Symbols of a growing text: the same as of the whole text, never taken back, cut into segments
alike.
"""

import numpy as np
import pytest
from small_speech import spell

from mdmspeech.inference.paced_synthesizer import pronounce_text
from mdmspeech.inference.symbols import LONGEST, PIECE, SymbolStream, cut, read_text

TEXT = "The apple is red. Is it ripe and sweet now. " * 4 + "Yes it is."


def whole(stream):
    return [(s.symbols, s.owner, s.closed) for s in stream.segments]


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_a_stream_gives_the_segments_of_the_whole_text(size):
    stream = SymbolStream(spell)
    for at in range(0, len(TEXT), size):
        stream.feed(TEXT[at : at + size])
    stream.end()
    assert whole(stream) == whole(read_text(spell, TEXT))
    assert len(stream.segments) > 1
    assert stream.words == spell(TEXT).words


def test_what_was_given_out_never_changes():
    stream, before = SymbolStream(spell), []
    for character in TEXT:
        stream.feed(character)
        now = [symbol for segment in stream.segments for symbol in segment.symbols]
        assert now[: len(before)] == before
        before = now
    assert before


def test_a_word_waits_for_its_successor():
    stream = SymbolStream(spell)
    stream.feed("the ")
    assert not stream.words
    stream.feed("app")
    assert not stream.words
    stream.feed("le ")
    assert stream.words == ["the"]


def test_a_number_waits_for_its_end():
    stream = SymbolStream(spell)
    stream.feed("it costs 3 ")
    assert not stream.words
    stream.feed("million pounds ")
    assert stream.words == ["it", "costs", "3", "million"]


def test_the_words_after_a_change_of_mind_are_still_said_once():
    """A pronouncer that says earlier words anew must not make the stream repeat or lose words."""

    def fickle(text):
        spoken = spell(text)
        return spoken._replace(
            symbols=np.where(spoken.symbols > 0, 1 + (spoken.symbols + len(text)) % 30, 0)
        )

    stream = SymbolStream(fickle)
    for word in ("one ", "two ", "three ", "four"):
        stream.feed(word)
    stream.end()
    assert stream.words == ["one", "two", "three", "four"]
    assert [w for w in dict.fromkeys(stream.segments[0].owner) if w >= 0] == [0, 1, 2, 3]


def test_segments_begin_and_end_with_a_boundary_and_hold_whole_sentences():
    for segment in read_text(spell, TEXT).segments:
        assert segment.symbols[0] == segment.symbols[-1] == 0
        assert len(segment.symbols) < 150


def test_nothing_to_say():
    stream = read_text(spell, " . ")
    assert not stream.words
    assert whole(stream) == [([0, 0], [-1, -1], True)]


LONG = {
    "no end": "word and more " * 100,
    "clauses": "it had rained for a week, and the river rose; nobody knew why: " * 20,
    "no space": "a" * 1500,
    "digits": "1 22 333 " * 100,
    "numbers": "It rose from 3 to 5 million in 1990. In the 4th year of St. John it fell, Dr. No said. "
    * 8,
    "lines": "Milk\nEggs\nOrange juice\nBread, sliced\n" * 12,
    "wrapped": (
        "The old road to the coast was closed for\nthe winter and nobody went "
        "there. It was\nquiet.\n\nThen came spring.\n"
    )
    * 5,
    "marks": "Really?! \u201cYes.\u201d (No.) Well\u2026 Then go! " * 20,
    "tags": "<b>One thing. Two</b> things <break time='1 s'/> and a < b then. " * 10,
    "spaces": ("one" + " " * 500 + "two.\t\n") * 3,
    "other capitals": "It was \u00c9mile. \u00c9mile went home. " * 20,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("pronounce", [spell, pronounce_text])
def test_a_long_text_streamed_is_the_whole_text(text, pronounce):
    expected = read_text(pronounce, text)
    assert max(len(segment.symbols) for segment in expected.segments) <= LONGEST
    rng = np.random.default_rng(len(text))
    stream, at = SymbolStream(pronounce), 0
    while at < len(text):
        size = int(rng.integers(1, 60))
        stream.feed(text[at : at + size])
        at += size
    stream.end()
    assert whole(stream) == whole(expected) and stream.words == expected.words


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_pieces_are_the_text_and_none_is_long(text):
    over, last = cut(text)
    assert "".join("".join([*over, last]).split()) == "".join(text.split())
    assert max(len(piece) for piece in [*over, last]) <= PIECE + 1


@pytest.mark.parametrize(
    "text",
    [
        "At Dr. Smith's.",
        "J. K. Rowling came.",
        "From 1990. To 2000.",
        "It is no. 5 here.",
        "so (etc.) and on",
        "He said. and went",
        "Oak St. It",
    ],
)
def test_what_may_not_be_an_end_is_none(text):
    assert cut(text) == ([], text)


@pytest.mark.parametrize("words", [100, 400, 1600])
def test_the_cost_of_a_growing_text_is_linear(words):
    """Characters that are pronounced, a word: the same for a text of any length."""
    pronounced = []

    def counting(text):
        pronounced.append(len(text))
        return spell(text)

    stream = SymbolStream(counting)
    for n in range(words):
        stream.feed("apples are red. " if n % 50 == 49 else "apples and ")
    stream.end()
    assert sum(pronounced) < words * PIECE


def test_words_of_a_sentence_come_before_its_end():
    stream = SymbolStream(spell)
    for n in range(40):
        stream.feed(f"{'apple' if n % 2 else 'pear'} ")
    assert len(stream.words) >= 38
