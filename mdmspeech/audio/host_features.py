"""Whisper's log-mel features on the host, for input pipelines: what
`audio.features.whisper_log_mel` computes, in numpy and in any thread.

Both are needed: the model's is compiled with it and runs where it runs; this one runs in many
threads that must not wait for a device, nor compile for each length.
"""

import functools

import numpy as np
import scipy.sparse

from mdmspeech.audio.mel import mel_filters
from mdmspeech.audio.stft import hann
from mdmspeech.errors import UserError
from mdmspeech.speech_format import INPUT_RATE, WHISPER_FFT, WHISPER_HOP


def num_frames(samples: int | np.ndarray, tail: float) -> int | np.ndarray:
    """Frames of a wave of so many samples (integers of any shape) and `tail` seconds of silence
    after it.
    """
    return -(-(samples + int(tail * INPUT_RATE)) // WHISPER_HOP)


def log_mel(wave: np.ndarray, num_mels: int = 80, tail: float = 0.0) -> np.ndarray:
    """Features float32 [`num_frames`, num_mels] of one 16 kHz wave (int16, or float in [-1, 1])
    followed by `tail` seconds of silence.

    Raises:
      UserError: wave and tail are shorter than what Whisper mirrors at the start (200 samples).
    """
    scale = 1 / 32768 if np.asarray(wave).dtype == np.int16 else 1.0
    count, half = int(num_frames(len(wave), tail)), WHISPER_FFT // 2
    if count * WHISPER_HOP <= half:
        raise UserError(
            f"a wave of {len(wave)} samples is too short for features; more than {half} are needed"
        )
    padded = np.zeros(count * WHISPER_HOP + 2 * half, np.float32)
    padded[half : half + len(wave)] = np.asarray(wave, np.float32) * np.float32(scale)
    padded[:half] = padded[2 * half : half : -1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WHISPER_FFT)
    frames_TN = windows[: count * WHISPER_HOP : WHISPER_HOP]
    spectrum_TK = np.fft.rfft(frames_TN * hann(WHISPER_FFT), axis=-1)
    power_TK = np.square(spectrum_TK.real) + np.square(spectrum_TK.imag)
    mel_TM = np.log10(
        np.maximum(power_TK.astype(np.float32, copy=False) @ _filters(num_mels), np.float32(1e-10))
    )
    return (np.maximum(mel_TM, mel_TM.max() - 8.0) + 4.0) / 4.0


@functools.cache
def _filters(num_mels: int) -> scipy.sparse.csc_array:
    """Slaney-normalised triangular filters [FFT / 2 + 1, num_mels]. Sparse: 50 times less work, and
    no BLAS, whose threads would fight with Grain's.
    """
    return scipy.sparse.csc_array(mel_filters(INPUT_RATE, WHISPER_FFT, num_mels))
