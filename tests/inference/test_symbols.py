"""Symbols of a growing text: the same as of the whole text, never taken back, cut into segments alike."""

import numpy as np
import pytest
from small_speech import spell

from mdmspeech.inference.symbols import SymbolStream, read_text

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
        return spoken._replace(symbols=np.where(spoken.symbols > 0, 1 + (spoken.symbols + len(text)) % 30, 0))

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
