"""TFDS builder `speech`: recordings of one voice with their text, and where known phoneme times and
F0 (24 kHz in this project's corpus).
"""

import numpy as np
import tensorflow_datasets as tfds

from mdmspeech.data.datasets.builder import RecordBuilder

_Tensor, _Text, _Scalar = tfds.features.Tensor, tfds.features.Text, tfds.features.Scalar


class Builder(RecordBuilder):
    """audio int16 [N] at `rate` Hz; symbols int32 [M] (ids of `text.pronounce`) and frames float32 [M]
    (their durations in units of 25 ms), f0 float32 [T] (Hz at 100 Hz, 0 = unvoiced): empty where
    unknown."""

    name = "mdmspeech_speech"
    features_dict = {
        "id": _Text(),
        "text": _Text(),
        "family": _Text(),
        "voice": _Text(),
        "rate": _Scalar(np.int32),
        "audio": _Tensor(shape=(None,), dtype=np.int16),
        "symbols": _Tensor(shape=(None,), dtype=np.int32),
        "frames": _Tensor(shape=(None,), dtype=np.float32),
        "f0": _Tensor(shape=(None,), dtype=np.float32),
    }
    defaults = {"text": "", "family": "", "voice": "", "symbols": (), "frames": (), "f0": ()}
