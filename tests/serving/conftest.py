"""One small random assistant for the tests of the server, and its engine."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))  # for `import small_speech`


@pytest.fixture(scope="session")
def assistant():
    """With answers of several words, see tests/inference/small_session.py."""
    import small_session
    import small_speech

    return small_session.model(small_speech.assistant(small_speech.small_codec()))
