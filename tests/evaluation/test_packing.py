import numpy as np

from mdmspeech.evaluation.packing import GAP_SECONDS, WINDOW_SECONDS, join, pack


def test_every_clip_is_in_one_window_and_no_window_is_too_long():
    seconds = list(np.random.default_rng(0).uniform(0.5, 9, 60))
    windows = pack(seconds)
    assert sorted(i for window in windows for i in window) == list(range(60))
    lengths = [
        sum(seconds[i] for i in window) + GAP_SECONDS * (len(window) - 1) for window in windows
    ]
    assert max(lengths) <= WINDOW_SECONDS
    assert len(windows) < 60 / 3


def test_a_clip_longer_than_a_window_is_alone():
    assert pack([2.0, 40.0, 2.0]) == [[0], [1], [2]]


def test_joined_clips_have_gaps_between_them_and_none_at_the_end():
    wave = join([np.ones(10), np.ones(20)], 100)
    assert len(wave) == 10 + 80 + 20
    assert not wave[10:90].any()
    assert wave[-1] == 1
