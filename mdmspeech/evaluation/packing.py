"""Several clips in one window: Whisper always computes 30 s, so a window full of short clips costs as much as one of them.

Only clips of one speaker share a window: with mixed speakers Whisper skips some.
"""

from collections.abc import Hashable, Sequence

import numpy as np

WINDOW_SECONDS, GAP_SECONDS = 28.0, 0.8


def pack(seconds: Sequence[float], speakers: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Groups clips, in order, into windows of at most 28 s with a gap after each clip; a longer clip gets a window of its own.

    Args:
      seconds: length of each clip. speakers: who speaks in each (None: one voice in all).

    Returns: the indices of each window's clips; every clip is in exactly one.
    """
    windows: list[list[int]] = []
    open_windows: dict[Hashable, tuple[list[int], float]] = {}
    for index, length in enumerate(seconds):
        speaker = speakers[index] if speakers is not None else None
        window, filled = open_windows.get(speaker, ([], 0.0))
        if not window or filled + length > WINDOW_SECONDS:
            window, filled = [], 0.0
            windows.append(window)
        window.append(index)
        open_windows[speaker] = (window, filled + length + GAP_SECONDS)
    return windows


def join(waves: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """The clips one after another with the gap between them."""
    gap = np.zeros(round(GAP_SECONDS * rate), np.float32)
    parts = [part for wave in waves for part in (np.asarray(wave, np.float32), gap)]
    return np.concatenate(parts[:-1])
