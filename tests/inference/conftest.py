"""Fixtures of the inference tests: small random parts."""

import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import small_speech`

import small_speech

from mdmspeech.inference.fixed_anchor_synthesizer import FixedAnchorSynthesizer
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.prefix_synthesizer import PrefixSynthesizer


@pytest.fixture(scope="session")
def codec():
    return small_speech.small_codec()


@pytest.fixture(scope="session")
def voice(codec):
    return PacedSynthesizer(
        small_speech.TALKER, small_speech.talker_params(), codec, pronounce=small_speech.spell
    )


@pytest.fixture(scope="session")
def ntp_voice(codec):
    return PacedSynthesizer(
        small_speech.TALKER,
        small_speech.talker_params(),
        codec,
        mode="ntp",
        pronounce=small_speech.spell,
    )


@pytest.fixture(scope="session")
def thoughts():
    return small_speech.thinker()


@pytest.fixture(scope="session")
def state_voice(codec, thoughts):
    return FixedAnchorSynthesizer(
        small_speech.FIXED, small_speech.ending_params(small_speech.FIXED), codec, thoughts
    )


@pytest.fixture(scope="session")
def prefix_voice(codec):
    return PrefixSynthesizer(
        small_speech.PREFIX,
        small_speech.ending_params(small_speech.PREFIX, likely=12),
        codec,
        small_speech.text_tokenizer(),
    )


@pytest.fixture(scope="session")
def assistant(codec):
    return small_speech.assistant(codec)


@pytest.fixture(scope="session")
def talkative(assistant):
    """An assistant for sessions, see small_session."""
    import small_session

    return small_session.model(assistant)


@pytest.fixture
def compiled():
    """Names of events of XLA's compiler since it was emptied."""
    heard = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: heard.append(event) if "backend_compile" in event else None
    )
    return heard
