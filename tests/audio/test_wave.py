"""What may be handed in as a wave, and the one clear line for what may not."""

import io

import numpy as np
import pytest
import soundfile

from mdmspeech.audio.wave import load_wave, resample, to_int16
from mdmspeech.audio.writer import save_wave
from mdmspeech.errors import UserError

RATE = 16_000


def _tone(rate=RATE, seconds=0.5, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(
        np.float32
    )


@pytest.mark.parametrize(
    "samples",
    [
        _tone().astype(np.float64),
        to_int16(_tone()),
        (_tone().astype(np.float64) * 2**31).astype(np.int32),
        np.round(_tone() * 128 + 128).astype(np.uint8),
        np.stack([_tone(), _tone()], axis=1),
        np.stack([_tone(), _tone()], axis=0),
    ],
    ids=["float64", "int16", "int32", "uint8", "stereo", "channels-first"],
)
def test_arrays_of_any_kind(samples):
    wave = load_wave(samples)
    assert wave.dtype == np.float32 and wave.shape == (RATE // 2,)
    np.testing.assert_allclose(wave, _tone(), atol=5e-3)


def test_other_rates_are_resampled():
    wave = load_wave((_tone(8000), 8000))
    assert wave.shape == (RATE // 2,)
    np.testing.assert_allclose(wave[500:-500], _tone()[500:-500], atol=2e-3)
    assert len(resample(_tone(24_000), 24_000, RATE)) == RATE // 2


def test_files(tmp_path):
    path = tmp_path / "tone.flac"
    save_wave(path, _tone(), RATE)
    np.testing.assert_allclose(load_wave(path), _tone(), atol=1e-4)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(load_wave(file), load_wave(path))
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([_tone(8000)] * 2, axis=1), 8000, subtype="DOUBLE")
    assert load_wave(stereo).shape == (RATE // 2,)


def test_saving_clips_and_names_bad_targets(tmp_path):
    save_wave(tmp_path / "loud.wav", np.array([2.0, -2.0] * 2000), RATE)
    assert np.abs(load_wave(tmp_path / "loud.wav")).max() <= 1.0
    with pytest.raises(UserError, match=r"cannot write .*answer\.xyz"):
        save_wave(tmp_path / "answer.xyz", _tone(), RATE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"this is a text, not audio", "is not readable audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "is not readable audio"),
    ],
    ids=["empty", "text", "truncated"],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_wave(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_wave(tmp_path / "no.wav")
    with pytest.raises(UserError, match="is a folder"):
        load_wave(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros(RATE, np.float32), "only silence"),
        (_tone(seconds=0.05), "too short: 0.050 s"),
        (np.tile(_tone(), 80), "too long: 40.0 s, the limit is 30 s"),
        (np.where(np.arange(RATE) == 7, np.nan, 0.1), "1 NaN or infinite"),
        (_tone() * 32768, "float samples up to"),
        (np.zeros(0), "no samples"),
        (np.zeros((2, 2, 2)), "has shape"),
        (np.array(["a"] * RATE), "samples of type"),
        ((_tone(), 0), "sample rate of 0"),
    ],
    ids=["silence", "short", "long", "nan", "unscaled", "empty", "3d", "text", "rate"],
)
def test_bad_arrays(source, message):
    with pytest.raises(UserError, match=message):
        load_wave(source)


def test_length_of_a_file_is_checked_before_it_is_decoded():
    class Header(io.BytesIO):
        """Fails when more than the header of the 60 s file is read."""

        def readinto(self, buffer):
            assert self.tell() < 1000, "samples were decoded"
            return super().readinto(buffer)

    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile(_tone(), 120), RATE, format="WAV")
    with pytest.raises(UserError, match=r"too long: 60\.0 s"):
        load_wave(Header(buffer.getvalue()))


def test_limits_are_arguments():
    assert len(load_wave(_tone()[:800], min_seconds=0.01)) == 800
    assert len(load_wave(np.tile(_tone(), 80), max_seconds=None)) == 40 * RATE


@pytest.mark.parametrize("extra", [1, 16, 160, 1599])
def test_a_wave_just_over_the_limit_is_not_called_as_long_as_the_limit(extra):
    with pytest.raises(UserError, match=r"too long: 1\.0\d*[1-9]\d* s, the limit is 1 s"):
        load_wave(np.sin(np.arange(RATE + extra)), max_seconds=1.0)


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, float("-inf")])
@pytest.mark.parametrize("option", ["min_seconds", "max_seconds"])
def test_a_limit_that_is_none_is_named(option, seconds):
    with pytest.raises(UserError, match=f"{option} is"):
        load_wave(np.sin(np.arange(RATE)), **{option: seconds})
