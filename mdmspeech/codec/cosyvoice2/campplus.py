"""CAM++ (Wang et al., 2023, arXiv 2303.00332), the speaker encoder published with CosyVoice2 as
campplus.onnx, run by onnxruntime.

It is needed once a voice, so no JAX version of it is kept here. Its input are 80 Kaldi filterbank
features a frame, the mean of the recording removed.
"""

import os
from pathlib import Path

import numpy as np

from mdmspeech.audio.fbank import kaldi_fbank
from mdmspeech.errors import UserError

FILE = "campplus.onnx"
_MELS = 80


class CamPlus:
    """Wave -> speaker vector."""

    def __init__(self, path: str | os.PathLike):
        """Raises UserError: no such file, no onnxruntime, or a graph of another kind."""
        if not Path(path).is_file():
            raise UserError(
                f"{path} does not exist; give CosyVoice2's {FILE}, which makes the speaker vector"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"{FILE} is run by onnxruntime, which is not installed: pip install onnxruntime"
            ) from error
        onnxruntime.set_default_logger_severity(4)  # what is wrong is told below
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise UserError(
                f"{path} is no readable ONNX graph ({_one_line(error)}); fetch {FILE} again"
            ) from error
        self._path, inputs = path, self._session.get_inputs()
        # An axis of any length has a name, or nothing, where others have a number.
        if (
            len(inputs) != 1
            or len(inputs[0].shape) != 3
            or (isinstance(inputs[0].shape[2], int) and inputs[0].shape[2] != _MELS)
        ):
            found = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise UserError(
                f"{path} is another graph: it takes {found[:120]}, not features "
                f"[batch, frames, {_MELS}]; give {FILE}"
            )

    def __call__(self, wave_N: np.ndarray) -> np.ndarray:
        """Wave [N] at 16 kHz, full scale 1 -> speaker vector float32 [E] (192)."""
        features = kaldi_fbank(wave_N, _MELS)
        if not len(features):
            raise UserError(
                "a speaker vector needs at least 25 ms of speech; give a longer recording"
            )
        features -= features.mean(axis=0, keepdims=True)
        try:
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: features[None]})
        except Exception as error:
            raise UserError(
                f"{self._path} could not be run ({_one_line(error)}); fetch {FILE} again"
            ) from error
        return np.asarray(outputs[0], np.float32).reshape(-1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
