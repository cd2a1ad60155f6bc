"""Fixtures of the command-line tests: `mdmspeech.load` opens a small random assistant."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import small_corpus`
sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))  # for `import small_speech`
# for `import small_cosyvoice2`
sys.path.insert(0, str(Path(__file__).parents[1] / "codec" / "cosyvoice2"))

import small_corpus
import small_published
import small_speech

import mdmspeech
from mdmspeech.cli import main


@pytest.fixture(scope="session")
def assistant():
    return small_speech.assistant(small_speech.small_codec())


@pytest.fixture
def small_model(assistant, monkeypatch):
    monkeypatch.setattr(mdmspeech, "load", lambda name, **how: assistant)
    return assistant


@pytest.fixture
def no_model(monkeypatch):
    def fail(name, **how):
        raise AssertionError("the model was opened")

    monkeypatch.setattr(mdmspeech, "load", fail)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    small_published.publish(root)
    return root


@pytest.fixture(scope="session")
def system(published, tmp_path_factory):
    """Of random parts; not to be changed."""
    folder = tmp_path_factory.mktemp("systems") / "small"
    assert main(small_published.arguments(published, folder)) == 0
    return folder


@pytest.fixture(scope="session")
def small_home(tmp_path_factory):
    """What MDMSPEECH_HOME names: a small corpus; not to be changed."""
    root = tmp_path_factory.mktemp("home") / "corpus"
    small_corpus.write(root)
    return root
