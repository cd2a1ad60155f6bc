"""A Whisper folder's encoder as a whole; programs open it with `sources.open_speech_encoder`."""

import os
from typing import Any

import numpy as np

from mdmspeech.interop.huggingface import config_of, encoder_config, encoder_params, open_weights
from mdmspeech.models.speech_encoder import SpeechEncoderConfig


def read_encoder_folder(
    folder: str | os.PathLike,
    *,
    dtype: Any = np.float32,
    shardings: Any = None,
    progress: Any = None,
    **overrides: Any,
) -> tuple[SpeechEncoderConfig, dict[str, Any]]:
    """A downloaded (or exported) Whisper folder -> (config, parameters of its encoder). Arguments
    as `read_thinker_folder`.
    """
    hf, config = config_of(folder, encoder_config, **overrides)
    how = dict(dtype=dtype, shardings=shardings, progress=progress)
    return config, encoder_params(config, open_weights(folder, hf), str(folder), **how)
