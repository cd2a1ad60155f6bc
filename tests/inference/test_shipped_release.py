"""The shipped release, end to end: it is asked its own question by its own voice. Runs wherever the
release is in the package.
"""

import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import mdmspeech
from mdmspeech.audio.wave import load_wave
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig

RATE = 16_000
SHIPPED = (resources.files("mdmspeech") / "assets" / "compact" / "config.json").is_file()


@pytest.fixture(scope="module")
def model():
    return mdmspeech.load("compact")


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED, reason="no release in mdmspeech/assets/compact yet")
def test_it_hears_answers_and_speaks(model):
    asked = model.say("What is the capital of France?")
    assert 0.8 < len(asked.audio) / asked.sample_rate < 4.0
    reply = model.chat((asked.audio, asked.sample_rate), steps=4)
    assert reply.text and reply.stop_reason == "length"
    assert len(reply.audio) > reply.sample_rate / 2 and np.isfinite(reply.audio).all()
    assert np.abs(reply.audio).max() > 0.02
    np.testing.assert_array_equal(model.say(reply.text).tokens, reply.tokens)
    _holds_a_conversation(model, asked)


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED, reason="no release in mdmspeech/assets/compact yet")
def test_what_was_heard_so_far_changes_no_transcript(model):
    """Of the shipped adaptor, whatever it is given as a draft."""
    wave = load_wave(str(resources.files("mdmspeech") / "assets" / "question.wav"))
    whole = model.frontend.encode(wave)
    drafts = [model.frontend.encode(wave[: int(RATE * s)]).written for s in (1.0, 1.7, 2.4)]
    for draft in [*drafts, whole.written, whole.written[::-1]]:
        again = model.frontend.encode(wave, draft)
        assert again.transcript == whole.transcript
        np.testing.assert_array_equal(again.written, whole.written)
    assert not np.array_equal(drafts[0], drafts[2])


def _holds_a_conversation(model, asked):
    """In a session the answer is there when the turn is over. (The context is that for which the
    Thinker was compiled above.)
    """
    session = Session(model, SessionConfig(warm_up=False, context=320, steps=4))
    pause = np.zeros(asked.sample_rate, np.float32)
    found, sound = [], np.concatenate([pause, asked.audio, pause])
    for at in range(0, len(sound), 480):
        session.push_audio(sound[at : at + 480], asked.sample_rate)
        while session.work():
            pass
        while (event := session.events.get()) is not None:
            found.append(event)
    kinds = [type(event).__name__ for event in found]
    assert kinds[:5] == [
        "SessionOpened",
        "SpeechStarted",
        "SpeechStopped",
        "Transcript",
        "ResponseStarted",
    ]
    assert "France" in found[3].text and found[-1].reason == "completed" and found[-1].text


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED, reason="no release in mdmspeech/assets/compact yet")
def test_it_hears_speech_and_nothing_else(model):
    """Sounds that were answered once ("[Pause]", "(humming)"), and the shipped question, soft, in
    noise and with hum: one batch of at most 3 s.
    """
    rng, time = np.random.default_rng(0), np.arange(2 * RATE) / RATE
    asked = load_wave(str(resources.files("mdmspeech") / "assets" / "question.wav"), RATE)
    loud = np.sqrt(np.mean(np.square(asked)))
    speech = [asked, 0.01 * asked, asked + loud * rng.normal(size=len(asked)).astype(np.float32)]
    other = {
        "white noise": 0.1 * rng.normal(size=len(time)),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * time),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time),
        "constant and dither": 0.2 + rng.integers(-8, 9, len(time)) / 32768,
        "clicks": np.where(rng.random(len(time)) < 3e-4, 0.8, 0.0),
    }
    heard = model.transcripts([*speech, *other.values()], unheard="nothing")
    for text in heard[:3]:
        assert "know the capital city of Den" in text
    assert dict(zip(other, heard[3:], strict=True)) == dict.fromkeys(other, "nothing")


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED, reason="no release in mdmspeech/assets/compact yet")
def test_the_questions_of_the_demo_are_answered_rightly(model):
    """Those that the Makefile asks: a fact, a sum, a sentence to repeat."""
    expected = {
        "fact.wav": "Addis Ababa",
        "sum.wav": "nine",
        "repeat.wav": "blinks twice before dawn",
    }
    text = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    files = re.search(r"^QUESTION \?= \$\(addprefix (\S+/),(.*)\)$", text, re.M)
    assert files[2].split() == list(expected)
    assets = resources.files("mdmspeech") / "assets"
    assert files[1] == "mdmspeech/assets/"
    for name, told in expected.items():
        reply = model.chat(str(assets / name))
        assert told in reply.text, (reply.heard, reply.text)
        assert len(reply.audio) > reply.sample_rate / 2
