"""Voice activity detection: for every 32 ms of a wave the probability that somebody speaks.

The network is silero-vad's for 16 kHz (MIT; mdmspeech/assets/vad/README.md has source and licence),
run in NumPy: a short-time spectrum, four convolutions, an LSTM. A frame takes 0.1 to 0.3 ms.
"""

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load as read_safetensors

from mdmspeech.speech_format import INPUT_RATE

FRAME = 512  # samples of a frame
FRAME_SECONDS = FRAME / INPUT_RATE
CONTEXT = 64  # samples before a frame that are read with it
ASSET = ("assets", "vad", "silero_vad_16k.safetensors")
_WINDOW, _HOP, _BINS = 256, 128, 129  # of the spectrum
_WIDTH = 128  # of the LSTM


class _Weights(NamedTuple):
    """Matrices, inputs first. spectrum: [window, cosines and sines]. convolutions: (matrix [3 * in,
    out], bias [out], stride) each. lstm: [input and state, 4 * width]; its bias; output: [width].
    """

    spectrum: np.ndarray
    convolutions: tuple[tuple[np.ndarray, np.ndarray, int], ...]
    lstm: np.ndarray
    lstm_bias: np.ndarray
    output: np.ndarray
    output_bias: float


class VoiceActivityDetector:
    """Listens to one stream at 16 kHz. What it says of a frame depends on all samples up to it, and
    not on the pieces they came in.
    """

    def __init__(self) -> None:
        self._weights = _weights()
        self.reset()

    def reset(self) -> None:
        """Forgets what it has heard."""
        self._context = np.zeros(CONTEXT, np.float32)
        self._left = np.zeros(0, np.float32)  # of a frame that is not complete
        self._hidden, self._cell = np.zeros(_WIDTH, np.float32), np.zeros(_WIDTH, np.float32)

    def push(self, samples_N: np.ndarray) -> np.ndarray:
        """The next samples (float, full scale 1) -> probabilities, float32 [F], of the F frames that
        they complete.
        """
        left = np.concatenate([self._left, np.asarray(samples_N, np.float32)])
        count = len(left) // FRAME
        self._left = left[count * FRAME :].copy()
        return np.array([self._frame(left[n * FRAME :][:FRAME]) for n in range(count)], np.float32)

    def _frame(self, samples_N: np.ndarray) -> float:
        weights = self._weights
        # mirrored at its end
        x_N = np.concatenate([self._context, samples_N, samples_N[-2 : -CONTEXT - 2 : -1]])
        self._context = samples_N[-CONTEXT:].copy()
        windows_TN = np.lib.stride_tricks.sliding_window_view(x_N, _WINDOW)[::_HOP]
        parts_TK = windows_TN @ weights.spectrum
        x_TD = np.sqrt(parts_TK[:, :_BINS] ** 2 + parts_TK[:, _BINS:] ** 2)
        for matrix, bias, stride in weights.convolutions:
            x_TD = np.maximum(_convolve(x_TD, matrix, stride) + bias, 0)
        gates = np.concatenate([x_TD[0], self._hidden]) @ weights.lstm + weights.lstm_bias
        entered, kept, new, shown = np.split(gates, 4)
        self._cell = _sigmoid(kept) * self._cell + _sigmoid(entered) * np.tanh(new)
        self._hidden = _sigmoid(shown) * np.tanh(self._cell)
        return float(_sigmoid(np.maximum(self._hidden, 0) @ weights.output + weights.output_bias))


def speech_probabilities(wave_N: np.ndarray) -> np.ndarray:
    """Of a whole wave at 16 kHz, float32 [F]; samples after the last whole frame are left out."""
    return VoiceActivityDetector().push(wave_N)


def _convolve(x_TD: np.ndarray, matrix: np.ndarray, stride: int) -> np.ndarray:
    """Width 3, zeros at both ends."""
    zero = np.zeros((1, x_TD.shape[1]), np.float32)
    padded = np.concatenate([zero, x_TD, zero])
    starts = range(0, len(x_TD), stride)
    return np.stack([padded[t : t + 3].reshape(-1) for t in starts]) @ matrix


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@functools.cache
def _weights() -> _Weights:
    found = read_safetensors(resources.files("mdmspeech").joinpath(*ASSET).read_bytes())

    def convolution(number: int, stride: int) -> tuple[np.ndarray, np.ndarray, int]:
        kernel = found[f"conv{number}.weight"]  # [out, in, 3]
        matrix = np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, len(kernel)))
        return matrix, found[f"conv{number}.bias"], stride

    lstm = np.concatenate([found["lstm.weight_ih"], found["lstm.weight_hh"]], axis=1)
    return _Weights(
        np.ascontiguousarray(found["spectrum.weight"][:, 0].T),
        tuple(convolution(n, stride) for n, stride in ((1, 1), (2, 2), (3, 2), (4, 1))),
        np.ascontiguousarray(lstm.T),
        found["lstm.bias_ih"] + found["lstm.bias_hh"],
        found["output.weight"][0, :, 0],
        float(found["output.bias"][0]),
    )
