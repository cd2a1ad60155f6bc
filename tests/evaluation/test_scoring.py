import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.evaluation.scoring import Score, canonical, score


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is seven thirty.", "It's 7:30"),
        ("Cat is spelled C, A, T.", "cat is spelled C-A-T"),
        ("Twenty-one plus four is twenty-five.", "21 + 4 = 25."),
        ("Ten minus three is seven.", "10 - 3 = 7"),
        ("six, seven, eight, nine", "6, 7, 8, 9"),
        ("One thousand two hundred fifty.", "1,250"),
        ("Nineteen eighty-four.", "1984"),
        ("It costs one hundred.", "it costs 100"),
        ("Five point two percent.", "5.2%"),
        ("The colour isn't grey.", "the color is not gray"),
    ],
)
def test_same_words_are_the_same_however_they_are_written(one, other):
    assert canonical(one) == canonical(other)


def test_different_words_stay_different():
    assert canonical("six, seven") != canonical("six, eleven")
    assert canonical("minus three") != canonical("three")
    assert canonical("C, A, T") != canonical("C, A, D")


def test_errors_are_counted_over_the_corpus_and_not_averaged_over_clips():
    found = score(["one word here and there", "two"], ["one word here and there", "ten"])
    # "ten" is the digits 1 0 against 2: two errors; the mean of clips would be 1
    assert found.wer == pytest.approx(2 / 6)
    assert score(["a big house"], ["a big red house"]).wer == pytest.approx(1 / 3)
    assert score(["a big house"], [""]).wer == 1.0
    assert found.report()["words"] == 6


def test_a_number_with_too_many_zeros_is_one_error():
    found = score(["they call one thousand a lot"], ["they call 1,000,000,000 a lot"])
    assert found.word_errors_U.sum() == 1


def test_references_without_words_are_left_out():
    assert score(["...", "good day"], ["noise", "good day"]).wer == 0.0
    with pytest.raises(UserError, match="no reference"):
        score(["?!"], ["x"])
    with pytest.raises(UserError, match="pair up"):
        score(["a"], [])


def test_the_interval_holds_the_rate_and_narrows_with_more_clips():
    few = Score(np.array([1.0, 0, 0, 0]), np.full(4, 5.0), np.zeros(4), np.ones(4))
    many = Score(
        np.tile(few.word_errors_U, 50), np.tile(few.words_U, 50), np.zeros(200), np.ones(200)
    )
    for found in (few, many):
        low, high = found.interval()
        assert low <= found.wer <= high
    assert np.ptp(many.interval()) < np.ptp(few.interval())
