"""Settings of the codec that a request names reach the codec, in one go and as a stream, and only
for that request.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "codec" / "cosyvoice2"))

from small_cosyvoice2 import CONFIG, small_params, small_voice
from small_speech import TALKER, small_codec, spell, talker_params

from mdmspeech.cli import voice_options
from mdmspeech.codec.cosyvoice2.codec import CosyVoice2Codec
from mdmspeech.errors import UserError
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer

SETTINGS = {"steps": 2, "guidance": 0.0}


@pytest.fixture(scope="module")
def voice():
    return PacedSynthesizer(
        TALKER,
        talker_params(),
        CosyVoice2Codec(CONFIG, small_params(), small_voice(0)),
        pronounce=spell,
    )  # no prompt to read


@pytest.mark.slow
def test_a_stream(voice):
    plans = [voice.stream(vocoder=given)._codec._mel._plan for given in (SETTINGS, None, {})]
    assert [(plan.steps, plan.guidance) for plan in plans] == [(2, 0.0), (10, 0.7), (10, 0.7)]


def test_in_one_go(voice, monkeypatch):
    used = []

    def decode(self, tokens):
        used.append((self.plan.steps, self.plan.guidance))
        return [np.zeros(len(row) * self.token_samples, np.float32) for row in tokens]

    monkeypatch.setattr(CosyVoice2Codec, "decode", decode)
    voice.say("abc.", vocoder=SETTINGS)
    voice.say_many(["abc.", "de."])
    assert used == [(2, 0.0), (10, 0.7)]


def test_what_a_codec_does_not_have_is_refused_before_anything_is_spoken(voice):
    with pytest.raises(UserError, match="at least 1 Euler step"):
        voice.say("abc.", vocoder={"steps": 0})
    with pytest.raises(UserError, match="no setting 'speed'"):
        voice.stream(vocoder={"speed": 3})
    compact = PacedSynthesizer(TALKER, talker_params(), small_codec(), pronounce=spell)
    with pytest.raises(UserError, match="the compact codec has no setting steps"):
        compact.say("abc.", vocoder={"steps": 2})


def test_on_the_command_line():
    parser = argparse.ArgumentParser()
    voice_options.add_voice_options(parser, "x.wav")
    assert "vocoder" not in voice_options.generation(parser.parse_args([]))
    args = parser.parse_args(["--vocoder-steps", "2", "--vocoder-guidance", "0"])
    assert voice_options.generation(args)["vocoder"] == SETTINGS
