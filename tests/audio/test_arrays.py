"""Samples in memory: which numbers are the rate, which scale integers have, what is no recording."""

import array
import collections

import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.audio.wave import load_wave, to_int16
from mdmspeech.errors import UserError

RATE = 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)
SHORTS = to_int16(TONE)
SLOW = (0.3 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)).astype(np.float32)


class Tensor:
    """What PyTorch's tensors are to us: an object with the array protocol."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)


class Gradient(Tensor):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    "source",
    [
        SHORTS.astype(np.int32),
        SHORTS.astype(np.int64),
        SHORTS.astype(">i2"),
        SHORTS.tolist(),
        (SHORTS.tolist(), RATE),
        array.array("h", SHORTS.tolist()),
        (SHORTS.astype(np.int64) * 256).astype(np.int32),
        SHORTS.astype(np.int64) * 65536,
        TONE.tolist(),
        TONE.astype(np.float16),
        TONE.astype(np.longdouble),
        np.round(TONE * 128).astype(np.int16) * 256,
        jnp.asarray(TONE),
        jnp.asarray(TONE, jnp.bfloat16),
        Tensor(TONE),
        np.ma.masked_array(TONE),
        np.asfortranarray(np.stack([TONE] * 2)),
        [TONE, TONE],
        TONE[:, None],
        TONE[None],
        TONE[::-1][::-1],
    ],
    ids=[
        *(
            "int16 in int32",
            "int16 in int64",
            "big-endian int16",
            "list of ints",
            "list and rate",
            "array.array",
        ),
        *(
            "24 bits in int32",
            "32 bits in int64",
            "list of floats",
            "float16",
            "longdouble",
            "8 bits in int16",
        ),
        *(
            "jax",
            "bfloat16",
            "array protocol",
            "masked",
            "Fortran order",
            "list of channels",
            "one column",
            "one row",
            "strided",
        ),
    ],
)
def test_the_same_wave_in_many_types(source):
    np.testing.assert_allclose(load_wave(source), TONE, atol=1e-2)


def test_the_scale_of_integers_is_the_narrowest_that_holds_them():
    for largest, scale in (
        (20_000, 2**15),
        (-32_768, 2**15),
        (32_768, 2**23),
        (2**23 - 1, 2**23),
        (2**23, 2**31),
        (2**62, 2**63),
    ):
        values = np.where(np.arange(RATE) % 2 == 0, largest, 0)
        assert np.abs(load_wave(values)).max() == pytest.approx(abs(largest) / scale)
    assert np.abs(
        load_wave(np.where(np.arange(RATE) % 2, 100, 0).astype(np.int8))
    ).max() == pytest.approx(100 / 128)


@pytest.mark.parametrize(
    "source",
    [
        (SLOW, 8000),
        (8000, SLOW),
        [8000, SLOW],
        (np.int64(8000), to_int16(SLOW)),
        (SLOW, np.float64(8000.0)),
        (SLOW, np.array(8000)),
        (8000, np.stack([SLOW, SLOW], axis=1)),
        (jnp.asarray(SLOW), 8000),
        {"array": SLOW, "sampling_rate": 8000, "path": None},
        collections.namedtuple("Audio", "rate data")(8000, SLOW),
    ],
    ids=[
        "librosa",
        "scipy",
        "a list",
        "NumPy's int",
        "NumPy's float",
        "0-d",
        "scipy stereo",
        "jax",
        "Hugging Face datasets",
        "named tuple",
    ],
)
def test_the_single_number_is_the_rate(source):
    wave = load_wave(source)
    assert len(wave) == RATE // 2
    np.testing.assert_allclose(wave[500:-500], TONE[500:-500], atol=5e-3)


def test_two_numbers_in_a_list_are_samples():
    assert len(load_wave([0.1, -0.1], min_seconds=0)) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the wave is None, not a recording"),
        (5, "an int, not a recording"),
        (np.float32(0.5), "not a recording"),
        (True, "a bool, not a recording"),
        (object(), "an object, not a recording"),
        ({1.0, 2.0}, "a set, not a recording"),
        ((x for x in TONE), "a generator, not a recording"),
        ({"audio": TONE}, "mapping without 'array' and 'sampling_rate'"),
        ((TONE,), "tuple of 1 things"),
        ((TONE, RATE, 1), "tuple of 3 things"),
        ((TONE, TONE), "tuple of 2 things"),
        ((RATE, 8000), "tuple of 2 things"),
        ((TONE, "16000"), "tuple of 2 things"),
        ((TONE, None), "tuple of 2 things"),
        ((TONE, True), "tuple of 2 things"),
        ((TONE, float("nan")), "sample rate of nan"),
        ((TONE, -16_000), "sample rate of -16000"),
        ((TONE, 16), "sample rate of 16 Hz; give its true rate"),
        ((TONE, 1e12), "sample rate of"),
        (TONE > 0, "samples of type bool"),
        (TONE.astype(complex), "samples of type complex128"),
        (SHORTS.astype(np.uint16), "samples of type uint16"),
        (TONE.astype(object), "different kinds or lengths"),
        ([0.1, None, "a"] * RATE, "different kinds or lengths|samples of type"),
        ([TONE[:5], TONE], "cannot be seen as a NumPy array"),
        (Gradient(TONE), "requires grad"),
        (["a.wav", "b.wav"], "samples of type"),
        (SHORTS.astype(np.float32), "float samples up to .*divide them by 32768 or pass int16"),
        (TONE * 1e9, "float samples up to .*scale them"),
        (np.where(np.arange(RATE) == 3, 1e300, 0.1), "float samples up to"),
        (np.where(np.arange(RATE) == 3, np.inf, 0.1), "1 NaN or infinite"),
        ([], "no samples"),
        (np.zeros((0, 2)), "no samples"),
        (np.ones((80, 300)), "spectrogram"),
        (np.full(RATE, 0.25), "only silence"),
        (np.full(RATE, 8192, np.int16), "only silence"),
    ],
)
def test_what_is_no_recording_is_said(source, message):
    with pytest.raises(UserError, match=message) as caught:
        load_wave(source)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_the_wanted_rate_is_checked_too():
    with pytest.raises(UserError, match="sample rate of 0"):
        load_wave(TONE, 0)
