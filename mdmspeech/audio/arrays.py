"""Samples in memory: whatever can be seen as numbers, with or without a rate beside them, becomes
float samples at full scale 1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mdmspeech.errors import UserError

# a float wave beyond this is no overdrive: somebody forgot to divide integers by 32768
LOUDEST_FLOAT = 8.0
_MOST_CHANNELS = 32  # more are a spectrogram
_DATASET = ("array", "sampling_rate")  # keys of an audio column of Hugging Face datasets
_SHAPES = "give samples [N], [N, channels] or (samples, rate)"


def split_rate(source: Any, rate: float, name: str) -> tuple[Any, float]:
    """Samples and their rate in Hz, of samples alone (then `rate`), a pair of both in either order,
    or a mapping with "array" and "sampling_rate".

    Librosa, soundfile and torchaudio give (samples, rate), scipy.io.wavfile and Gradio (rate,
    samples): the single number is the rate.

    Raises:
      UserError: a tuple or a mapping of something else, or a rate that cannot be one.
    """
    if isinstance(source, Mapping):
        if not all(key in source for key in _DATASET):
            raise UserError(
                f"{name} is a mapping without {' and '.join(map(repr, _DATASET))}; {_SHAPES}"
            )
        source, rate = (source[key] for key in _DATASET)
    elif (
        isinstance(source, (tuple, list))
        and len(source) == 2
        and _is_number(source[0]) != _is_number(source[1])
    ):
        source, rate = source if _is_number(source[1]) else source[::-1]
    elif isinstance(source, tuple):
        raise UserError(
            f"{name} is a tuple of {len(source)} things of which none, or more than "
            f"one, is a rate; {_SHAPES}"
        )
    return source, checked_rate(rate, name)


def checked_rate(rate: Any, name: str) -> float:
    """The rate, if it can be one."""
    if not _is_number(rate) or not 1000 <= float(np.asarray(rate)) <= 1_000_000:  # also NaN
        raise UserError(
            f"{name} has a sample rate of {rate!r} Hz; give its true rate, 16000 for example"
        )
    value = float(np.asarray(rate))
    return int(value) if value.is_integer() else value


def to_samples(source: Any, name: str, channels_last: bool = False) -> np.ndarray:
    """Float samples [N] or [N, channels] (float32, or float64 as given) of anything NumPy can see
    as an array.

    Integers are divided by their full scale, uint8 is centred on 128 before. Values that fit in
    fewer bits than a wider integer type has were put there from a narrower one: of 16, 24, 32 and
    64 bits the first that holds them all is the scale. Floats are taken as they are. Of two axes
    the shorter one is the channels, unless they are known to be the last.

    Raises:
      UserError: not numbers, NaN or infinite, floats that are integers' values, no samples, or more
        than two axes.
    """
    samples = _as_array(source, name)
    if samples.size == 0:
        raise UserError(f"{name} holds no samples; record or export it again")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1] and not channels_last:
        samples = samples.T
    if samples.ndim not in (1, 2):
        raise UserError(f"{name} has shape {samples.shape}; {_SHAPES}")
    if samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS:
        raise UserError(
            f"{name} has shape {samples.shape}, which is a spectrogram or many "
            f"waves rather than one; {_SHAPES}"
        )
    return _scaled(samples, name)


def _as_array(source: Any, name: str) -> np.ndarray:
    if source is None or isinstance(source, (set, frozenset)) or np.ndim(_or_zero(source)) == 0:
        raise UserError(
            f"{name} is {_described(source)}, not a recording; give a file's path, "
            f"or {_SHAPES.removeprefix('give ')}"
        )
    try:
        return np.asarray(source)
    # ragged lists; tensors on a GPU or with gradients
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot be seen as a NumPy array ({_one_line(error)}); {_SHAPES}"
        ) from error


def _or_zero(source: Any) -> Any:
    """Itself, or a stand-in if it is no scalar but makes trouble of its own, which `_as_array` words."""
    try:
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError):
        return [0]


def _scaled(samples: np.ndarray, name: str) -> np.ndarray:
    kind = samples.dtype
    if str(kind) == "bfloat16":
        samples = samples.astype(np.float32)
    elif kind == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(kind, np.signedinteger):
        largest = max(int(samples.max()), -1 - int(samples.min()))
        bits = next(
            bits
            for bits in (8, 16, 24, 32, 64)
            if bits >= min(8 * kind.itemsize, 16) and largest < 2 ** (bits - 1)
        )
        return (samples / 2.0 ** (bits - 1)).astype(np.float32)
    elif kind.kind == "O" or not np.issubdtype(kind, np.floating):
        what = (
            f"things of different kinds or lengths ({kind})"
            if kind.kind == "O"
            else f"samples of type {kind}"
        )
        raise UserError(f"{name} has {what}; use float, int16, int32 or uint8")
    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise UserError(f"{name} has {bad} NaN or infinite samples; repair or re-export it")
    peak = float(np.abs(samples).max())
    if peak > LOUDEST_FLOAT:
        cure = (
            "divide them by 32768 or pass int16"
            if peak <= 32768
            else "scale them to -1..1 or pass integers"
        )
        raise UserError(f"{name} has float samples up to {peak:.6g}; {cure}")
    return samples


def _is_number(thing: Any) -> bool:
    """Whether it is one real number; no bool."""
    if isinstance(thing, (str, bytes, bool, np.bool_)) or thing is None:
        return False
    try:
        array = np.asarray(thing)
    except (TypeError, ValueError, RuntimeError):
        return False
    return array.ndim == 0 and array.dtype.kind in "iuf"


def _described(thing: Any) -> str:
    return (
        "None"
        if thing is None
        else f"{'an' if type(thing).__name__[0] in 'aeiou' else 'a'} {type(thing).__name__}"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
