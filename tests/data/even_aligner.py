"""A quick aligner, and something for it to align."""

import numpy as np

from mdmspeech.data.recordings.align import Alignment


class Even:
    """An aligner that gives every symbol the same share, half a second of silence at both ends, and
    the score it is told. Counts what it is asked.
    """

    def __init__(self, score=-0.5, dies_at=None):
        self.score, self.asked, self.dies_at = score, 0, dies_at

    def __call__(self):
        return self._align

    def _align(self, waves, symbols):
        self.asked += len(waves)
        if self.dies_at is not None and self.asked >= self.dies_at:
            raise KeyboardInterrupt
        return [
            self._one(-(-len(wave) // 400), len(row))
            for wave, row in zip(waves, symbols, strict=True)
        ]

    def _one(self, units, count):
        if units < count + 40:
            return None
        share = np.diff(np.linspace(0, units - 40, count + 1).astype(int))
        share[[0, -1]] += 20
        return Alignment(share.astype(np.int32), self.score, int(share[0]), int(units - share[-1]))


def tone(seconds, rate=22_050, level=0.3):
    return (level * np.sin(2 * np.pi * 150 * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )
