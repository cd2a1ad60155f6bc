"""TFDS builder `questions`: spoken questions with the text of question and answer (16 kHz)."""

import numpy as np
import tensorflow_datasets as tfds

from mdmspeech.data.datasets.builder import RecordBuilder

_Tensor, _Text, _Scalar = tfds.features.Tensor, tfds.features.Text, tfds.features.Scalar


class Builder(RecordBuilder):
    """audio int16 [N] at `rate` Hz; text may be empty (VocalNet's data has none); units int32 [U] are
    ready-made speech tokens of the answer.
    """

    name = "mdmspeech_questions"
    features_dict = {
        "id": _Text(),
        "text": _Text(),
        "answer": _Text(),
        "family": _Text(),
        "phrasing": _Text(),
        "voice": _Text(),
        "engine": _Text(),
        "rate": _Scalar(np.int32),
        "audio": _Tensor(shape=(None,), dtype=np.int16),
        "units": _Tensor(shape=(None,), dtype=np.int32),
    }
    defaults = {"text": "", "family": "", "phrasing": "", "voice": "", "engine": "", "units": ()}
