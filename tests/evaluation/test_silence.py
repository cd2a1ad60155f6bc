import numpy as np
import pytest
from fakes import RATE, tone

from mdmspeech.evaluation.silence import silences, timing


def test_silence_is_found_before_inside_and_after():
    quiet = np.zeros(RATE, np.float32)
    found = silences(
        np.concatenate([quiet[: RATE // 2], tone(1), quiet, tone(1), quiet[: RATE // 4]]), RATE
    )
    assert found["lead_s"] == pytest.approx(0.5, abs=0.03)
    assert found["longest_s"] == pytest.approx(1.0, abs=0.05)
    assert found["tail_s"] == pytest.approx(0.25, abs=0.03)


def test_nothing_but_silence_is_all_tail():
    assert silences(np.zeros(RATE), RATE)["tail_s"] == 1.0
    assert silences(np.zeros(0), RATE)["tail_s"] == 0.0


def test_duration_ratio_ignores_silence_at_the_ends():
    padded = np.concatenate([np.zeros(RATE), tone(2), np.zeros(RATE)]).astype(np.float32)
    found = timing([padded, tone(3)], [tone(2), tone(2)], RATE)
    assert found["duration_ratio"] == pytest.approx(1.25, abs=0.03)
    assert found["tail_s_max"] == pytest.approx(1.0, abs=0.05)
    assert found["silence_runs"] == 0
