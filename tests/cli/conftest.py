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
from tests.support.bucket_server import bucket_server, reached


@pytest.fixture(scope="module")
def server():
    with bucket_server("bucket") as proxy:
        yield proxy


@pytest.fixture
def bucket(server):
    """gs://bucket on this machine, for file systems that are opened anew."""
    server.reset()
    with reached(server, retry_seconds=1):
        _forget()
        yield server
    _forget()


def _forget():
    """File systems that were opened, by etils and by fsspec: a process acts as one account."""
    from etils.epath import backend

    from mdmspeech.remote.google_storage import GoogleStorage

    backend.fsspec_backend._get_filesystem.cache_clear()
    GoogleStorage.clear_instance_cache()


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
