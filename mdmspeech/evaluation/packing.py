"""Several clips in one window: Whisper always computes 30 s, so a window full of short clips costs
as much as one of them.

All clips are of one speaker: with mixed speakers Whisper skips some.
"""

from collections.abc import Sequence

import numpy as np

WINDOW_SECONDS, GAP_SECONDS = 28.0, 0.8


def pack(seconds: Sequence[float]) -> list[list[int]]:
    """Groups clips of these lengths, in order, into windows of at most 28 s with a gap after each
    clip; a longer clip gets a window of its own.

    Returns: the indices of each window's clips; every clip is in exactly one.
    """
    windows: list[list[int]] = []
    filled = 0.0
    for index, length in enumerate(seconds):
        if not windows or filled + length > WINDOW_SECONDS:
            windows.append([])
            filled = 0.0
        windows[-1].append(index)
        filled += length + GAP_SECONDS
    return windows


def join(waves: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """The clips one after another with the gap between them."""
    gap = np.zeros(round(GAP_SECONDS * rate), np.float32)
    parts = [part for wave in waves for part in (np.asarray(wave, np.float32), gap)]
    return np.concatenate(parts[:-1])
