"""The shipped release, end to end: it is asked its own question by its own voice. Runs wherever the release is in the package."""

from importlib import resources

import numpy as np
import pytest

import mdmspeech

SHIPPED = (resources.files("mdmspeech") / "assets" / "compact" / "config.json").is_file()


@pytest.mark.skipif(not SHIPPED, reason="no release in mdmspeech/assets/compact yet")
def test_it_hears_answers_and_speaks():
    model = mdmspeech.load("compact")
    asked = model.say("What is the capital of France?")
    assert 0.8 < len(asked.audio) / asked.sample_rate < 4.0
    reply = model.chat((asked.audio, asked.sample_rate), steps=4)
    assert reply.text and reply.stop_reason == "length"
    assert len(reply.audio) > reply.sample_rate / 2 and np.isfinite(reply.audio).all()
    assert np.abs(reply.audio).max() > 0.02
    np.testing.assert_array_equal(model.say(reply.text).tokens, reply.tokens)
