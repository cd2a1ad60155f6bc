"""Fixtures of the inference tests: a small random voice."""

import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import small_speech`

from small_speech import CODEC, TALKER, spell, talker_params

from mdmspeech.codec.compact.bound import CompactCodec
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.inference.voice import Voice


@pytest.fixture(scope="session")
def codec():
    return CompactCodec(CODEC, CompactCodecModel(CODEC).init(jax.random.key(0)))


@pytest.fixture(scope="session")
def voice(codec):
    return Voice(TALKER, talker_params(), codec, pronounce=spell)


@pytest.fixture(scope="session")
def ntp_voice(codec):
    return Voice(TALKER, talker_params(), codec, mode="ntp", pronounce=spell)
