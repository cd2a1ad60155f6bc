"""Files and streams: sizes that are not true, files that were cut off, streams, and what is no
audio at all.
"""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mdmspeech.audio.wave import AudioWarning, load_wave
from mdmspeech.errors import UserError

RATE = 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def content(form="WAV", subtype=None, wave=TONE, rate=RATE, endian=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=form, subtype=subtype, endian=endian)
    return buffer.getvalue()


def with_sizes(wav, riff, data):
    """The same file with other sizes in its header."""
    at = wav.index(b"data") + 4
    return (
        wav[:4]
        + struct.pack("<I", riff & 0xFFFFFFFF)
        + wav[8:at]
        + struct.pack("<I", data & 0xFFFFFFFF)
        + wav[at + 4 :]
    )


@pytest.fixture(autouse=True)
def no_other_warnings():
    """A recording that is whole is loaded without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        yield


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 0),
        (-1, -1),
        (36, 0),
        (0x7FFFF024, 0x7FFFF000),
        (-1, 0x80000000),
        (0, -36),
        (0x7FFF0024, 0x7FFF0000),
        (36, 0xFFFFFF00),
    ],
    ids=[
        "zeros",
        "ffmpeg",
        "riff only",
        "sox",
        "arecord",
        "minus a header",
        "GStreamer",
        "browser",
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW"])
def test_wavs_that_were_piped_are_read_to_their_end(sizes, subtype):
    whole = content(subtype=subtype)
    if subtype != "PCM_16":  # drop the chunk behind the samples, as a pipe has none
        at = whole.index(b"data")
        whole = whole[: at + 8 + struct.unpack("<I", whole[at + 4 : at + 8])[0]]
    np.testing.assert_array_equal(
        load_wave(io.BytesIO(with_sizes(whole, *sizes))),
        load_wave(io.BytesIO(content(subtype=subtype))),
    )


def test_a_piped_wav_on_disk_and_with_chunks_before_the_samples(tmp_path):
    wav = content()
    listed = wav[:36] + b"LIST" + struct.pack("<I", 5) + b"hello\0" + wav[36:]
    (tmp_path / "q.wav").write_bytes(with_sizes(listed, -1, -1))
    np.testing.assert_array_equal(load_wave(tmp_path / "q.wav"), load_wave(wav))


def test_half_a_last_sample_is_dropped():
    for odd in (1, 3):
        np.testing.assert_array_equal(
            load_wave(with_sizes(content()[:-odd], 0, 0)), load_wave(content())[: -(odd + 1) // 2]
        )
    stereo = content(wave=np.stack([TONE, TONE], axis=1))[:-1]
    assert len(load_wave(with_sizes(stereo, 0, 0))) == RATE - 1


def test_a_wav_without_samples_is_empty_not_read_over_its_other_chunks():
    empty = content(wave=np.zeros(0, np.float32))
    chunk = b"LIST" + struct.pack("<I", 4000) + bytes(4000)
    for wav in (empty, with_sizes(empty + chunk, len(empty) - 8 + len(chunk), 0)):
        with pytest.raises(UserError, match="no samples"):
            load_wave(wav)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        *(
            ("WAV", kind)
            for kind in (
                "PCM_16",
                "PCM_24",
                "PCM_U8",
                "DOUBLE",
                "ALAW",
                "ULAW",
                "IMA_ADPCM",
                "GSM610",
            )
        ),
        *(
            ("WAVEX", "PCM_16"),
            ("RF64", "PCM_16"),
            ("AIFF", "PCM_16"),
            ("AU", "PCM_16"),
            ("FLAC", "PCM_16"),
        ),
    ],
)
def test_a_file_that_was_cut_off_is_used_and_what_is_missing_is_said(form, subtype):
    rate = 8000 if subtype == "GSM610" else RATE
    rng = np.random.default_rng(0)  # noise, so that compressed files shrink as others do
    whole = content(form, subtype, (0.1 * rng.normal(size=2 * rate)).astype(np.float32), rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        np.testing.assert_allclose(len(load_wave(whole)), 2 * RATE, rtol=0.1)
    with pytest.warns(
        AudioWarning, match=r"was cut off: (0\.9|1\.[012])\d s of (1\.9|2\.0)\d s are missing"
    ) as told:
        cut = load_wave(whole[: len(whole) // 2])
    assert 0.7 * RATE < len(cut) < 1.05 * RATE
    assert f"only the first {len(cut) / RATE:.2f} s are used" in str(told[0].message)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        *(
            ("WAV", kind)
            for kind in (
                "PCM_24",
                "PCM_32",
                "PCM_U8",
                "FLOAT",
                "DOUBLE",
                "ALAW",
                "ULAW",
                "MS_ADPCM",
                "G721_32",
            )
        ),
        *(
            ("WAVEX", "PCM_24"),
            ("RF64", "FLOAT"),
            ("W64", "PCM_16"),
            ("AIFF", "PCM_24"),
            ("CAF", "ALAC_16"),
        ),
        *(("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_24")),
    ],
)
@pytest.mark.parametrize("how", ["path", "stream"])
def test_what_libsndfile_reads(tmp_path, form, subtype, how):
    if how == "path":
        (tmp_path / "q.raw").write_bytes(content(form, subtype))  # the name means nothing
        wave = load_wave(tmp_path / "q.raw")
    else:
        wave = load_wave(Pipe(content(form, subtype)))
    assert abs(len(wave) - RATE) < 0.15 * RATE
    middle = wave[4000:12000]
    assert 0.9 * 0.3 < np.abs(middle).max() < 1.1 * 0.3
    assert abs(np.fft.rfft(middle).__abs__().argmax() * 2 - 440) <= 2


def test_big_endian_wav():
    np.testing.assert_allclose(load_wave(content(endian="BIG")), TONE, atol=1e-4)
    assert len(load_wave(content(endian="BIG")[:4] + bytes(4) + content(endian="BIG")[8:])) == RATE


class Pipe:
    """Bytes that come once, in pieces, from something without seek."""

    def __init__(self, data, piece=1000):
        self.data, self.piece = io.BytesIO(data), piece

    def read(self, size=-1):
        return self.data.read(self.piece if size < 0 else min(size, self.piece))


class Whole(Pipe):
    def read(self):
        return self.data.read()


def test_streams_of_every_sort(tmp_path):
    wav = content()
    path = tmp_path / "q.wav"
    path.write_bytes(wav)
    after = io.BytesIO(b"a letter before it" + wav)
    after.seek(18)
    text = io.TextIOWrapper(io.BytesIO(wav))
    with (
        open(path, "rb") as file,
        open(path, "rb", buffering=0) as raw,
        zipfile.ZipFile(tmp_path / "q.zip", "w") as archive,
    ):
        archive.writestr("q.wav", wav)
        with archive.open("q.wav") as member:
            for source in (
                file,
                raw,
                member,
                Pipe(wav),
                Whole(wav),
                after,
                text,
                wav,
                bytearray(wav),
                memoryview(wav),
            ):
                np.testing.assert_array_equal(load_wave(source), load_wave(path))
            assert file.read(0) == b"" and not file.closed and not raw.closed


def test_a_named_pipe_and_standard_input(tmp_path):
    os.mkfifo(tmp_path / "q.wav")
    writer = threading.Thread(
        target=(tmp_path / "q.wav").write_bytes, args=(with_sizes(content(), -1, -1),)
    )
    writer.start()
    assert len(load_wave(tmp_path / "q.wav")) == RATE
    writer.join()
    code = (
        "import sys; from mdmspeech.audio.wave import load_wave; "
        "print(len(load_wave(sys.argv[1] if sys.argv[1:] else sys.stdin)))"
    )
    for argument in ([], ["/dev/stdin"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *argument],
            input=content(),
            capture_output=True,
            check=True,
        )
        assert int(done.stdout) == RATE


def test_endless_streams_end(monkeypatch):
    class Endless:
        def read(self, size):
            return bytes(size)

    monkeypatch.setattr("mdmspeech.audio.files._MOST_STREAMED", 4 << 20)
    with pytest.raises(UserError, match="more than 4 MiB"):
        load_wave(Endless())


def closed():
    file = io.BytesIO(content())
    file.close()
    return file


def written():
    file = io.BytesIO()
    soundfile.write(file, TONE, RATE, format="WAV")
    return file


class Coroutine:
    async def read(self, size=-1):
        return b""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (closed, "closed file"),
        (written, r"rewind it with seek\(0\)"),
        (lambda: io.StringIO("a letter"), r"open\(path, 'rb'\)"),
        (lambda: io.BytesIO(), "is empty"),
        (lambda: Whole(b""), "is empty"),
        (
            lambda: type("Lines", (), {"read": lambda self, size: "text"})(),
            "gives str where bytes are needed",
        ),
        (
            lambda: type("Waits", (), {"read": lambda self, size: None})(),
            "gives NoneType where bytes",
        ),
        (lambda: b"", "is empty"),
    ],
)
def test_streams_that_give_no_audio(make, message):
    with pytest.raises(UserError, match=message):
        load_wave(make())


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("q.wav", content())
    return buffer.getvalue()


def numpy_file():
    buffer = io.BytesIO()
    np.save(buffer, TONE)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"This is a letter.\n" * 20, "is not readable audio: it is a text; give a recording"),
        ("Grüße".encode() * 2000, "it is a text"),
        ("hello".encode("utf-16"), "it is a text"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "a web page; download the recording itself"),
        (b"\n <HTML><head>", "a web page"),
        (b"<?xml version='1.0'?>", "an XML text"),
        (b'{"error": "not found"}', "JSON"),
        (b"#EXTM3U\nfile:///etc/passwd", "a playlist; give one of the recordings in it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
        (zipped(), "a zip archive .*unpack it"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive"),
        (numpy_file(), "numpy.load"),
        (b"%PDF-1.7 " + bytes(50), "PDF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(50), "a picture"),
        (b"MThd" + bytes(50), "notes, no sound"),
        (b"\x7fELF" + bytes(50), "a program"),
        (np.random.default_rng(0).bytes(5000), "is not readable audio .*use wav, flac, ogg or mp3"),
        (bytes(5000), "is not readable audio"),
        (b"\xff" * 5000, "is not readable audio"),
        (content()[:30], "is not readable audio"),
        (content()[:44], "no samples|was cut off|is not readable"),
        (content("FLAC")[:60], "is not readable audio|no samples"),
        (content("OGG", "VORBIS")[:80], "is not readable audio"),
        (with_sizes(content()[:20] + bytes(4) + content()[24:], 0, 0), "is not readable audio"),
    ],
    # some of them hold random numbers
    ids=lambda value: None if isinstance(value, str) else value[:8].hex(),
)
def test_files_that_are_no_audio_are_called_by_their_name(tmp_path, data, message):
    path = tmp_path / "q.wav"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        load_wave(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the path is empty"),
        ("x" * 300, r"^x{60}\.\.\.x{60} cannot be opened: File name too long"),
        ("d/" * 3000 + "q.wav", "cannot be opened: File name too long"),
        ("q\0.wav", "NUL character"),
        ("https://example.com/q.wav", "download the recording and give its path"),
        ("file:///tmp/q.wav", "is an address"),
        ("no such file.wav", "does not exist"),
        ("~nobody-of-this-name/q.wav", "cannot be opened|does not exist"),
        (Path("no such folder") / "q.wav", "does not exist"),
        (".", "is a folder"),
        ("/dev/null", "is empty"),
        (f"{__file__}/q.wav", "cannot be opened: Not a directory"),
    ],
)
def test_paths_that_lead_nowhere(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_wave(path)
    assert len(str(caught.value)) < 300


def test_paths_of_every_type(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frage ü.wav").write_bytes(content())
    (tmp_path / "~").mkdir()

    class Entry:
        def __fspath__(self):
            return str(tmp_path / "frage ü.wav")

    for path in (
        "~/frage ü.wav",
        Path("~/frage ü.wav"),
        "frage ü.wav",
        Entry(),
        tmp_path / "frage ü.wav",
    ):
        assert len(load_wave(path)) == RATE


@pytest.mark.parametrize("sizes", [None, (0, 0), (-1, -1)])
def test_an_hour_is_refused_before_it_is_read(sizes, tmp_path):
    path = tmp_path / "hour.wav"
    head = content()[:44]
    with open(path, "wb") as file:
        file.write(with_sizes(head, *(sizes or (3600 * 2 * RATE + 36, 3600 * 2 * RATE))))
        file.truncate(44 + 3600 * 2 * RATE)
    with pytest.raises(UserError, match=r"too long: 3600\.0 s"):
        load_wave(path)
