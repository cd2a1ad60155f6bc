"""From a recording to a voice: what is cut, the level, what the three extractors hear, and what is
refused.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from campplus_graph import write_campplus
from small_cosyvoice2 import CONFIG, small_params, small_voice

from mdmspeech.audio.fbank import kaldi_fbank
from mdmspeech.audio.wave import resample
from mdmspeech.codec.cosyvoice2.campplus import CamPlus
from mdmspeech.codec.cosyvoice2.flow_batch import check_prompt
from mdmspeech.codec.cosyvoice2.prompt import clean, prepare_voice
from mdmspeech.codec.cosyvoice2.s3_speech import S3Tokenizer
from mdmspeech.codec.cosyvoice2.voice import voice_params, voice_prompt, voice_shapes
from mdmspeech.errors import UserError

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"
RATE = 24_000


@pytest.fixture(scope="module")
def speech():
    """6 s."""
    return np.tile(np.load(GOLDEN / "waveform.npz")["in.wav_24k"], 2).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return S3Tokenizer(CONFIG.tokenizer, small_params()["tokenizer"])


@pytest.fixture(scope="module")
def campplus(tmp_path_factory):
    path = tmp_path_factory.mktemp("campplus") / "campplus.onnx"
    write_campplus(path)
    return path


@pytest.mark.slow
def test_a_voice(speech, tokenizer, campplus, tmp_path):
    prompt = prepare_voice((speech, RATE), tokenizer, CamPlus(campplus))
    check_prompt(CONFIG.flow, prompt, "it")
    wave = clean(speech, RATE)
    assert abs(len(prompt.ids) - len(wave) / 960) <= 1 and prompt.ids.dtype == np.int32
    np.testing.assert_array_equal(
        prompt.ids, tokenizer.encode([resample(wave, RATE, 16_000)])[0][: len(prompt.ids)]
    )
    # Frames belong to tokens: those of the pause at the end
    # have next to no energy, those of the speech have.
    assert prompt.mel[-6:].mean() < -8 and prompt.mel[:-20].mean() > prompt.mel[-6:].mean() + 3


def test_the_speaker_vector_is_that_of_features_without_their_mean(speech, campplus):
    wave = resample(speech, RATE, 16_000)
    features = kaldi_fbank(wave)
    expected = np.abs(features - features.mean(axis=0)).mean(axis=0) @ write_campplus(campplus)
    np.testing.assert_allclose(CamPlus(campplus)(wave), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="at least 25 ms"):
        CamPlus(campplus)(wave[:300])


def test_silence_around_the_speech_and_its_level_do_not_matter(speech):
    noise = 1e-4 * np.random.default_rng(0).normal(size=3 * RATE).astype(np.float32)
    plain, padded = (
        clean(speech, RATE),
        clean(0.05 * np.concatenate([noise, speech, noise[:RATE]]), RATE),
    )
    assert abs(len(padded) - len(plain)) < 0.15 * RATE
    loud = lambda wave: np.sqrt(np.mean(np.square(wave)))
    assert 0.03 < loud(plain) < 0.1 and abs(loud(padded) / loud(plain) - 1) < 0.05
    assert not plain[-int(0.2 * RATE) :].any() and np.abs(plain).max() <= 0.8 + 1e-6
    click = speech.copy()
    click[RATE] = 1.0
    assert np.abs(clean(click, RATE)).max() <= 0.8 + 1e-6


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (
            lambda speech: speech[: 2 * RATE],
            r"has [12]\.\d s of speech; a voice needs 3 to 30 s: record more",
        ),
        (
            lambda speech: np.tile(speech, 6),
            r"has 3\d\.\d s of speech; a voice needs 3 to 30 s: cut it",
        ),
        (
            lambda speech: np.concatenate([speech[:RATE], np.zeros(9 * RATE, np.float32)]),
            "record more",
        ),
        (lambda speech: 0 * speech, "only silence"),
        (lambda speech: np.full_like(speech, np.nan), "NaN"),
    ],
)
def test_recordings_that_are_refused(speech, tokenizer, wave, message):
    with pytest.raises(UserError, match=message):
        prepare_voice((wave(speech), RATE), tokenizer, lambda heard: np.ones(192, np.float32))


def test_a_speaker_encoder_gone_wrong(speech, tokenizer):
    with pytest.raises(UserError, match="no finite vector"):
        prepare_voice((speech, RATE), tokenizer, lambda heard: np.full(192, np.nan))


def test_graphs_that_are_refused(tmp_path):
    path = tmp_path / "campplus.onnx"
    with pytest.raises(UserError, match=r"campplus\.onnx does not exist"):
        CamPlus(path)
    path.write_bytes(b"PK no graph")
    with pytest.raises(UserError, match=r"campplus\.onnx is no readable ONNX graph") as caught:
        CamPlus(path)
    assert "\n" not in str(caught.value)
    for sizes in (dict(num_mels=40), dict(axes=2)):
        write_campplus(path, **sizes)
        with pytest.raises(
            UserError,
            match=r"is another graph: it takes input .* not features \[batch, frames, 80\]",
        ):
            CamPlus(path)


def test_as_a_part_of_a_release():
    prompt = small_voice(9)
    config, params = voice_params(prompt)
    assert {name: value.shape for name, value in params.items()} == {
        name: leaf.shape for name, leaf in voice_shapes(config).items()
    }
    half = {name: value.astype(np.float16) for name, value in params.items()}
    np.testing.assert_array_equal(voice_prompt(half).ids, prompt.ids)
    again = voice_prompt(params)
    for name in ("ids", "mel", "speaker"):
        np.testing.assert_array_equal(getattr(again, name), getattr(prompt, name))
