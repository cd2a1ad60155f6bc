"""Text -> symbols: the same sounds as the library, words that own their symbols."""

import numpy as np
import pytest

from mdmspeech.text.pronounce import (
    BOUNDARY,
    MAX_SENTENCE,
    import_hibari,
    pronouncer,
    split_at_boundaries,
)

hibari = pytest.importorskip("hibari")

TEXTS = [
    "Hello there, my friend.",
    "The capital of France is Paris. It has two million people!",
    "I can't, she's gone; what a pity!",
    "twenty-one times",
]


@pytest.mark.parametrize("text", TEXTS)
def test_symbols_are_the_library_s(text):
    library = hibari.Hibari.__new__(hibari.Hibari)
    library.vocab, library._g2p, library.voice = (
        dict(zip(pronouncer().symbols[1:], pronouncer().native_ids[1:], strict=True)),
        None,
        "heart",
    )
    ours = [
        pronouncer().native_ids[[0, *s, 0]].tolist()
        for s in split_at_boundaries(pronouncer()(text))
    ]
    assert ours == [library.ids(p) for p in library.phonemize(text)]


@pytest.mark.parametrize(
    "text",
    [
        "The answer is no.",
        "I said no. Five people left.",
        "As seedy as a fig.",
        "He sat. The sun. A gen. What ch.",
    ],
)
def test_no_word_is_replaced(text):
    """The text is words already; a second normaliser once made "number" and "figure" of these."""
    alone = [pronouncer().phonemes(pronouncer()(word)).strip("|.") for word in text.split()]
    spoken = pronouncer()(text)
    assert spoken.words == text.split()
    phonemes = pronouncer().phonemes(spoken)
    last = phonemes.strip("|").replace("|", " ").split()[-1]
    assert last.strip("ˈˌ.") == alone[-1].strip("ˈˌ.")
    assert "nˈʌmbəɹ" not in phonemes and "fˈɪɡjəɹ" not in phonemes


def test_boundaries_stand_at_both_ends_and_between_sentences():
    spoken = pronouncer()("One thing. Another thing. A third.")
    assert (
        np.flatnonzero(spoken.symbols == BOUNDARY).tolist()[0] == 0
        and spoken.symbols[-1] == BOUNDARY
    )
    assert (spoken.symbols == BOUNDARY).sum() == 4 and len(split_at_boundaries(spoken)) == 3
    assert (spoken.word_of_symbol[spoken.symbols == BOUNDARY] == -1).all()


def test_every_symbol_belongs_to_its_word_in_order():
    spoken = pronouncer()("Hello there, my friend. How are you?")
    assert spoken.words == ["Hello", "there,", "my", "friend.", "How", "are", "you?"]
    owners = spoken.word_of_symbol[spoken.word_of_symbol >= 0]
    assert (np.diff(owners) >= 0).all() and set(owners) == set(range(7))
    there = "".join(
        pronouncer().symbols[s]
        for s, w in zip(spoken.symbols, spoken.word_of_symbol, strict=True)
        if w == 1
    )
    assert there == "ðˈɛɹ, "


def test_no_space_stands_beside_a_boundary():
    for sentence in split_at_boundaries(pronouncer()("  Well , so it goes .  And on. ")):
        ends = {pronouncer().symbols[sentence[0]], pronouncer().symbols[sentence[-1]]}
        assert " " not in ends


def test_ids_are_dense_and_stable():
    symbols = pronouncer().symbols
    assert len(set(symbols)) == len(symbols) == pronouncer().vocabulary_size == 115
    # A trained Talker depends on these numbers: they may never change.
    assert symbols[0] == "" and (symbols[1], symbols[14], symbols[-1]) == (";", " ", "ᵻ")


def test_nothing_to_say():
    for text in ("", "   ", "\n"):
        spoken = pronouncer()(text)
        assert (
            spoken.symbols.tolist() == [BOUNDARY, BOUNDARY]
            and spoken.words == []
            and not split_at_boundaries(spoken)
        )


def test_unknown_words_and_strange_characters_are_still_read():
    assert len(pronouncer()("zxqvorbly").symbols) > 4
    assert len(pronouncer()("日本 ok").words) >= 1


@pytest.mark.parametrize("text", ["and so it goes on, " * 60, "word " * 300])
def test_overlong_sentences_are_cut(text):
    spoken = pronouncer()(text)
    parts = split_at_boundaries(spoken)
    assert len(parts) > 1 and max(map(len, parts)) <= MAX_SENTENCE
    assert len(spoken.words) == len(text.split())


@pytest.mark.parametrize(
    "word",
    [
        "supercalifragilisticexpialidocious",
        "donaudampfschifffahrtsgesellschaft",
        "zxqvorbly" * 9,
        "floccinaucinihilipilificationism",
        "na" * 30,
        "é" * 30,
        "abcdé" * 8,
    ],
)
def test_a_word_of_any_length_is_said_to_its_end(word):
    """The network reads 24 letters and once left the rest unsaid."""
    for times in (1, 4):
        spoken = pronouncer()(word * times)
        assert spoken.words == [word * times]
        parts = [pronouncer()(word[i : i + 12]) for i in range(0, len(word), 12)]
        assert len(spoken.symbols) - 2 > 0.7 * times * sum(len(part.symbols) - 2 for part in parts)


def test_words_that_the_network_can_read_are_read_at_once():
    whole = import_hibari("hibari.g2p.oov").OOV()
    for word in ("zxqvorbly", "blorptastic", "frimbulationizedly", "strengthsandweaknessesqq"):
        assert pronouncer()._g2p.oov(word) == whole(word)
    assert pronouncer()._g2p.oov("") is None
