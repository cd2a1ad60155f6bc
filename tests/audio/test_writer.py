"""Waves written as they are made: a file has its name when it is complete, an interruption leaves
what can be played, pipes get a header that is true or open.
"""

import io
import os
import resource

import numpy as np
import pytest
import soundfile

from mdmspeech.audio.wave import to_int16
from mdmspeech.audio.writer import WaveWriter, save_wave
from mdmspeech.errors import UserError

RATE = 24_000
TONE = (0.3 * np.sin(np.arange(6000) / 7)).astype(np.float32)


def read(source):
    samples, rate = soundfile.read(source, dtype="int16")
    assert rate == RATE
    return samples


@pytest.mark.parametrize("name", ["a.wav", "a.WAV", "a.flac", "two.dots.wav"])
def test_written_in_pieces_is_written_at_once(tmp_path, name):
    path = tmp_path / name
    with WaveWriter(path, RATE) as out:
        for at in range(0, len(TONE), 1000):
            out.write(TONE[at : at + 1000])
            assert not path.exists()
    np.testing.assert_array_equal(read(path), to_int16(TONE))
    assert os.listdir(tmp_path) == [name] and out.samples == len(TONE)


def test_what_is_written_so_far_can_be_played_before_the_end(tmp_path):
    """As after a kill."""
    with WaveWriter(tmp_path / "a.wav", RATE) as out:
        out.write(TONE)
        np.testing.assert_array_equal(read(tmp_path / "a.part.wav"), to_int16(TONE))


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, RuntimeError])
def test_an_interruption_keeps_what_was_said_and_the_older_file(tmp_path, name, error):
    save_wave(tmp_path / name, TONE[:10], RATE)
    out = WaveWriter(tmp_path / name, RATE)
    with pytest.raises(error), out:  # noqa: PT012
        out.write(TONE)
        raise error
    np.testing.assert_array_equal(read(out.kept), to_int16(TONE))
    assert len(read(tmp_path / name)) == 10


def test_nothing_said_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), WaveWriter(tmp_path / "a.wav", RATE):
        raise KeyboardInterrupt
    with WaveWriter(tmp_path / "a.wav", RATE) as out:
        out.drop()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_full_disk_is_one_error_and_no_half_file(tmp_path, name):
    save_wave(tmp_path / name, TONE[:10], RATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        refused = pytest.raises(UserError, match=f"cannot write .*{name}")
        with refused, WaveWriter(tmp_path / name, RATE) as out:
            for seed in range(20):
                out.write(np.random.default_rng(seed).uniform(-1, 1, 10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [name] and len(read(tmp_path / name)) == 10


def test_a_link_leads_to_its_file(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.wav").symlink_to(tmp_path / "there" / "b.wav")
    save_wave(tmp_path / "a.wav", TONE, RATE)
    assert (tmp_path / "a.wav").is_symlink() and len(read(tmp_path / "there" / "b.wav")) == len(
        TONE
    )


class Pipe(io.BytesIO):
    def seekable(self):
        return False


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_a_stream_gets_a_wav(kind):
    file = kind()
    file.write(b"before")
    with WaveWriter(file, RATE) as out:
        out.write(TONE[:4000])
        out.write(TONE[4000:])
    data = file.getvalue()[6:]
    np.testing.assert_array_equal(read(io.BytesIO(data)), to_int16(TONE))
    size = int.from_bytes(data[40:44], "little")
    assert size == (0xFFFFFFFF if kind is Pipe else 2 * len(TONE)) and len(data) == 44 + 2 * len(
        TONE
    )
    assert not file.closed


def test_a_file_that_is_appended_to_is_not_patched(tmp_path):
    path = tmp_path / "all.bin"
    path.write_bytes(b"before")
    with open(path, "ab") as file, WaveWriter(file, RATE) as out:
        out.write(TONE)
    assert len(path.read_bytes()) == 6 + 44 + 2 * len(TONE)


def test_devices_are_written_to():
    save_wave("/dev/null", TONE, RATE)
    with pytest.raises(UserError, match="cannot write /dev/full"):
        save_wave("/dev/full", np.tile(TONE, 10), RATE)


@pytest.mark.parametrize("name", ["a.mp3", "a", "no/such/folder/a.wav"])
def test_bad_names(tmp_path, name):
    with pytest.raises(UserError, match="cannot write"):
        WaveWriter(tmp_path / name, RATE)
