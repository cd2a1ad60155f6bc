"""Fixtures of the command-line tests: `mdmspeech.load` opens a small random assistant."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))  # for `import small_speech`
sys.path.insert(0, str(Path(__file__).parents[1] / "codec" / "cosyvoice2"))  # for `import small_cosyvoice2`

import small_speech

import mdmspeech


@pytest.fixture(scope="session")
def assistant():
    return small_speech.assistant(small_speech.small_codec())


@pytest.fixture
def small_model(assistant, monkeypatch):
    monkeypatch.setattr(mdmspeech, "load", lambda name, voice=None: assistant)
    return assistant


@pytest.fixture
def no_model(monkeypatch):
    def fail(name, voice=None):
        raise AssertionError("the model was opened")

    monkeypatch.setattr(mdmspeech, "load", fail)
