"""What browsers and phones record, made and read by PyAV; and what is said without it."""

import io
import sys
import warnings

import av
import numpy as np
import pytest

from mdmspeech.audio.kinds import kind_of
from mdmspeech.audio.media import CURE
from mdmspeech.audio.wave import AudioWarning, load_wave
from mdmspeech.cli.chat import FORMATS
from mdmspeech.errors import UserError

RATE = 48_000
SECONDS = 1.5


def recording(container, codec, channels=1, seconds=SECONDS, rate=RATE, video=False, **options):
    """A tone of 440 Hz, as a program of browsers or phones would have written it."""
    buffer = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    with av.open(buffer, "w", format=container, options=options) as out:
        pictures = out.add_stream("mpeg4", rate=5) if video else None
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if pictures:
            pictures.width = pictures.height = 32
            for _ in range(int(seconds * 5)):
                out.mux(
                    pictures.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)))
                )
            out.mux(pictures.encode())
        stream.bit_rate = 96_000
        time = np.arange(int(seconds * rate)) / rate
        tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([tone] * channels), "fltp", layout)
        frame.sample_rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


CASES = {
    "m4a of a phone": ("mp4", "aac"),
    "stereo m4a": ("mp4", "aac", 2),
    "5.1 m4a": ("mp4", "aac", 6),
    "lossless m4a": ("mp4", "alac"),
    "mov": ("mov", "aac"),
    "3gp": ("3gp", "aac"),
    "mp4 video": ("mp4", "aac", 1, SECONDS, RATE, True),
    "bare aac": ("adts", "aac"),
    "webm of Chrome": ("webm", "libopus"),
    "stereo webm": ("webm", "libopus", 2),
    "mka": ("matroska", "aac"),
    "ogg of Firefox": ("ogg", "libopus"),
    "wma": ("asf", "wmav2", 2, SECONDS, 44_100),
    "flv": ("flv", "aac", 1, SECONDS, 44_100),
    "avi": ("avi", "mp3"),
    "transport stream": ("mpegts", "aac"),
    "WavPack": ("wv", "wavpack"),
    "AC-3": ("ac3", "ac3", 2),
    "mp3 in wav": ("wav", "mp3"),
}


@pytest.fixture(scope="module", params=CASES)
def recorded(request):
    name = request.param
    try:
        return recording(*CASES[name])
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
        pytest.skip(f"this FFmpeg cannot write {name}: {error}")


def test_the_tone_comes_out(recorded, tmp_path):
    (tmp_path / "q.wav").write_bytes(recorded)  # the name means nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        waves = [load_wave(tmp_path / "q.wav"), load_wave(io.BytesIO(recorded))]
    np.testing.assert_array_equal(*waves)
    assert abs(len(waves[0]) / 16_000 - SECONDS) < 0.15
    middle = waves[0][6000:14000]
    assert abs(np.abs(np.fft.rfft(middle)).argmax() * 2 - 440) <= 2
    assert 0.2 < np.abs(middle).max() < 0.4


def test_most_of_them_can_be_made_here():
    """So that skipping does not hide a broken reader."""
    for name in ("m4a of a phone", "bare aac", "webm of Chrome", "mp4 video"):
        assert len(recording(*CASES[name])) > 1000


def test_streams_that_cannot_seek():
    class Pipe(io.RawIOBase):
        data = io.BytesIO(recording("mp4", "aac"))

        def read(self, size=-1):
            return self.data.read(size)

    assert abs(len(load_wave(Pipe())) / 16_000 - SECONDS) < 0.15


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "aac", {}),
        ("webm", "libopus", {}),
        ("webm", "libopus", {"live": "1"}),
        ("adts", "aac", {}),
    ],
    ids=[
        "told by the container",
        "told by webm",
        "a live webm that does not tell",
        "an aac that does not tell",
    ],
)
def test_too_long_is_noticed_before_all_is_decoded(container, codec, options, monkeypatch):
    data = recording(container, codec, seconds=20.0, rate=RATE, **options)
    decoded = []
    true = np.concatenate
    monkeypatch.setattr(
        "mdmspeech.audio.media.np.concatenate",
        lambda *args, **kw: decoded.append(1) or true(*args, **kw),
    )
    with pytest.raises(UserError, match="too long"):
        load_wave(io.BytesIO(data), max_seconds=3.0)
    assert not decoded


def test_a_webm_that_was_cut_off_says_so():
    whole = recording("webm", "libopus", seconds=4.0)
    with pytest.warns(AudioWarning, match=r"was cut off: \d\.\d\d s of [34]\.\d\d s are missing"):
        assert len(load_wave(whole[: len(whole) * 2 // 3])) < 3.2 * 16_000


def without_sound():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: recording("mp4", "aac")[:-2000],
            "MP4, M4A, MOV or 3GP file that is damaged or was cut off",
        ),
        (lambda: b"\0\0\0\x20ftypM4A " + bytes(3000), "is not readable audio: an MP4"),
        (
            lambda: b"\x1a\x45\xdf\xa3" + bytes(3000),
            "is not readable audio: a WebM or Matroska file",
        ),
        (lambda: b"\xff\xf1" + bytes(3000), "is not readable audio: an AAC file"),
        (lambda: b"#!AMR\n" + b"\xff" * 300, "is not readable audio: an AMR file"),
        (lambda: recording("webm", "libopus")[:600], "is not readable audio: a WebM"),
        (without_sound, "without sound"),
    ],
)
def test_damaged_media_is_one_clear_error(make, message):
    with pytest.raises(UserError, match=message):
        load_wave(io.BytesIO(make()))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x20ftypisom", "an MP4, M4A, MOV or 3GP file"),
        (b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
        (b"\xff\xf1\x50\x80", "an AAC file"),
        (b"#!AMR\n", "an AMR file"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    ],
)
def test_without_pyav_the_kind_and_the_cure_are_named(head, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert kind_of(head).words == words
    with pytest.raises(
        UserError,
        match=f"is {words}; reading it needs PyAV, which is not installed: pip install av",
    ):
        load_wave(io.BytesIO(head + bytes(100)))


def test_the_help_says_what_is_read_with_and_without():
    assert CURE in FORMATS and all(
        name in FORMATS
        for name in ("wav", "flac", "ogg", "mp3", "m4a", "aac", "webm", "mp4", "3gp")
    )


def test_playlists_open_nothing(tmp_path):
    """FFmpeg would follow them, to files and addresses: none of its demuxers is ever guessed."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(recording("wav", "pcm_s16le"))
    for text in (
        f"#EXTM3U\n#EXTINF:1,\n{secret}\n",
        f"ffconcat version 1.0\nfile {secret}\n",
        f"file '{secret}'\n",
    ):
        with pytest.raises(UserError, match="is not readable audio: it is a"):
            load_wave(text.encode())
