"""Speech as bytes while it is made: the parts of every format are one stream, which players read as
one piece.
"""

import io
import itertools
import wave

import numpy as np
import pytest
import soundfile
from small_session import asked

from mdmspeech.audio.wave import load_wave, resample, to_int16
from mdmspeech.serving.encoders import FORMATS, Encoder

RATE = 24_000
SPEECH = resample(asked()[:32_000], 16_000, RATE)
# silence first, as most speech begins: frames of mp3 are small there, if their size may vary
QUIET = np.concatenate([np.zeros(RATE, np.float32), SPEECH])
WORD = SPEECH[30_000:30_500]
CUTS = [(15_360,), (1,) * 50 + (15_360,), (0, 480, 0, 7_777), (10**6,), (100, 23_999)]


def parts_of(name, speech, cuts=(15_360,), whole=False):
    encoder, at, parts = Encoder(name, RATE, whole), 0, []
    for size in itertools.cycle(cuts):
        if at >= len(speech):
            break
        parts.append(encoder.push(speech[at : at + size]))
        at += size
    return [*parts, encoder.finish()]


def read(data, name):
    """As libsndfile decodes it, block by block: float [N]."""
    if name == "pcm":
        return np.frombuffer(data, "<i2") / 32768
    if name == "flac":  # soundfile alone stumbles over the end of one that does not say its length
        return load_wave(data, RATE, min_seconds=0, max_seconds=60)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.samplerate == RATE and file.channels == 1
        blocks = []
        while len(block := file.read(4096)):
            blocks.append(block)
        return np.concatenate(blocks)


def late(found, speech):
    """By how many samples the decoder is late."""
    size = 1 << int(np.ceil(np.log2(len(found) + len(speech))))
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(speech, size)), size)
    return (int(product.argmax()) + size // 2) % size - size // 2


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("whole", [False, True])
def test_parts_are_one_stream_without_gaps(name, whole):
    """Traps 1, 5 and 7: one header, all samples to the last one, and nothing where parts meet."""
    for cuts, speech in zip(CUTS, (SPEECH, QUIET, WORD, QUIET, SPEECH), strict=True):
        found = read(b"".join(parts_of(name, speech, cuts, whole)), name)
        if name in ("wav", "flac", "pcm"):
            np.testing.assert_array_equal(to_int16(found), to_int16(speech))
            continue
        delay = late(found, speech) if len(speech) > 1000 else -1
        assert -2 < delay < 0.06 * RATE and len(found) >= len(speech) + delay
        if len(speech) > 1000:
            begin = max(-delay, 0)
            wrong = found[delay + begin : delay + len(speech)] - speech[begin:]
            assert (wrong**2).sum() < 0.05 * (speech**2).sum()


@pytest.mark.parametrize("name", FORMATS)
def test_whoever_reads_the_stream_finds_its_length(name):
    """Trap 2: not nothing, not a day."""
    pytest.importorskip("av")
    import av

    for speech, whole in itertools.product((QUIET, SPEECH[: RATE // 2]), (False, True)):
        data = b"".join(parts_of(name, speech, whole=whole))
        if name != "pcm":
            np.testing.assert_allclose(
                len(load_wave(data, RATE, max_seconds=60)), len(speech), atol=0.08 * RATE
            )
            with av.open(io.BytesIO(data)) as file:  # FFmpeg
                told, frames = file.duration, list(file.decode(audio=0))
            seconds = sum(frame.samples / frame.sample_rate for frame in frames)
            assert seconds == pytest.approx(len(speech) / RATE, abs=0.08)
            # what a player shows: flac may say that it does not know
            if not (name == "flac" and not whole):
                assert told / 1e6 == pytest.approx(len(speech) / RATE, abs=0.1)
        if name == "wav":
            with wave.open(io.BytesIO(data)) as file:
                assert len(file.readframes(10**9)) == 2 * len(speech)
                assert not whole or file.getnframes() == len(speech)


def test_the_header_of_a_streamed_wav():
    """Trap 2: as OpenAI's server writes it; trap 3: nothing behind the samples, so that files can be
    joined.
    """
    data = b"".join(parts_of("wav", SPEECH))
    assert (
        data[:4] == b"RIFF" and data[4:8] == data[40:44] == b"\xff" * 4 and data[36:40] == b"data"
    )
    assert data[44:] == to_int16(SPEECH).astype("<i2").tobytes() and data.count(b"RIFF") == 1
    whole = b"".join(parts_of("wav", SPEECH, whole=True))
    assert int.from_bytes(whole[4:8], "little") == len(whole) - 8
    assert int.from_bytes(whole[40:44], "little") == 2 * len(SPEECH) == len(whole) - 44


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_come_as_samples_come(name):
    """Trap 6: no part waits for the end; at most a second of speech is held back."""
    sizes = np.cumsum([len(part) for part in parts_of(name, QUIET, (RATE // 10,))])
    seconds = 0.1 * np.arange(1, len(sizes) + 1)
    assert sizes[0] == 0 or seconds[np.flatnonzero(sizes)[0]] <= 0.5
    quarters = [sizes[np.searchsorted(seconds, share * seconds[-1])] for share in (0.3, 0.6, 0.9)]
    assert 0 < quarters[0] < quarters[1] < quarters[2] < sizes[-1]
    assert all(part == b"" for part in parts_of(name, SPEECH, whole=True)[:-1])


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_to_say(name):
    """Is no error: a header, perhaps."""
    for whole in (False, True):
        assert len(b"".join(parts_of(name, SPEECH[:0], whole=whole))) < 1000
