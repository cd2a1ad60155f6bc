"""Thoughts told apart from answers while they stream, however their tags are cut into tokens."""

import itertools

import pytest

from mdmspeech.text.thinking import ThoughtFilter, opens_thought


def _filtered(parts, inside=False):
    """(text, indices of its tokens, text as it came)."""
    one = ThoughtFilter(inside)
    pieces = [one.push(part, i) for i, part in enumerate(parts)]
    pieces.append(one.finish())
    return (
        "".join(text for text, _ in pieces),
        [i for _, tokens in pieces for i in tokens],
        [text for text, _ in pieces],
    )


@pytest.mark.parametrize(
    ("parts", "text", "tokens"),
    [
        (["Yes", ",", " it", " is", "."], "Yes, it is.", [0, 1, 2, 3, 4]),
        (["<think>", "\n", "hm", "\n", "</think>", "\n\n", "Yes", "."], "Yes.", [6, 7]),
        (["<", "th", "ink", ">", "hm", "</", "think", ">", "\n\n", "Yes"], "Yes", [9]),
        (["<think>\n\n</think>\n\nYes"], "Yes", [0]),  # all in one token
        # a token that begins before a thought, one that ends after it
        ([" <think>a</thi", "nk> b"], " b", [0, 1]),
        (["Yes", " <", " 3"], "Yes < 3", [0, 1, 2]),
        (["a <th", "e>"], "a <the>", [0, 1]),
        (["Yes <"], "Yes <", [0]),  # never became a tag
        (["Yes <t"], "Yes <t", [0]),
        (["Yes", " <", "thi"], "Yes ", [0, 1]),  # cut off in a tag
        (["<think>", "on and on"], "", []),  # never closed
        (["<think>", "a", "</thin"], "", []),
        # a tag without its beginning is no text either
        (["one", "</think>", " two"], "onetwo", [0, 2]),
        (["<think>a</think>", "b", "<think>c</think>", " d"], "bd", [1, 3]),
        (["", "a", "", "b"], "ab", [0, 1, 2, 3]),  # tokens that complete no character
        (["<think>", "</think>", "", "é"], "é", [2, 3]),
        (["<think>", "<think>", "a", "</think>", "b"], "b", [4]),
        (["<THINK>", "a"], "<THINK>a", [0, 1]),
        ([], "", []),
    ],
)
def test_answers_without_thoughts(parts, text, tokens):
    found = _filtered(parts)
    assert found[:2] == (text, tokens)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["hm", "</think>", "\n\n", "Yes"], "Yes"),
        (["hm"], ""),
        (["<think>", "hm</think>Yes"], "Yes"),
        (["\n</thi", "nk>", " Yes"], "Yes"),
    ],
)
def test_a_thought_that_the_prompt_has_opened(parts, text):
    assert _filtered(parts, inside=True)[0] == text


def test_every_way_to_cut_gives_the_same_text():
    text, wanted = "A <think>x < y</think> \n B <b>", "A B <b>"
    for count in (1, 2, 3):
        for cuts in itertools.combinations(range(1, len(text)), count):
            parts = [text[a:b] for a, b in itertools.pairwise((0, *cuts, len(text)))]
            assert _filtered(parts)[0] == wanted, parts


def test_nothing_waits_without_need():
    assert _filtered(["a", "b <", "b", "c"])[2] == ["a", "b ", "<b", "c", ""]


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("assistant\n", False),
        ("assistant\n<think>\n", True),
        ("<think>\n\n</think>\n\n", False),
        ("<think></think><think>", True),
        ("", False),
    ],
)
def test_prompts_that_open_a_thought(prompt, opened):
    assert opens_thought(prompt) is opened
