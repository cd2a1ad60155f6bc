"""Answers that repeat themselves are ended, in the same place whether they are streamed or made in
a batch.
"""

import pytest
from small_speech import thinker

from mdmspeech.inference.thinker_runner import is_repetition


@pytest.mark.parametrize(
    "ids", [[5, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6], [7, 7, 7, 7], [9, 1, 2, 1, 2, 1, 2, 1, 2]]
)
def test_circles(ids):
    assert is_repetition(ids)
    assert not is_repetition(ids[:-1])


@pytest.mark.parametrize(
    "ids", [[], [1], [1, 1, 1], [1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 1, 2, 3, 4, 5], list(range(40))]
)
def test_no_circles(ids):
    assert not is_repetition(ids)


def test_streamed_and_batched_end_in_the_same_place():
    one = thinker(stop_repetition=True)
    questions = [
        one.question(text) for text in ("what is it ?", "is a red apple good ?", "yes and no")
    ]
    streamed = [
        "".join(piece.text for piece in one.answer(one.read([q]))).strip() for q in questions
    ]
    assert one.answer_many(questions) == streamed
    assert any(len(text.split()) < one.max_new for text in streamed)
    assert streamed != thinker().answer_many(questions)
