"""Pictures of the results. Every function writes one PNG file; nothing is shown on a screen."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def spectrograms(path: Path, waves: Mapping[str, np.ndarray], rate: int, title: str = "") -> None:
    """Log spectrograms of waves [N], one above the other on a common time axis."""
    figure, axes = _figure(len(waves), height=2.4)
    for axis, (name, wave_N) in zip(axes, waves.items(), strict=True):
        axis.specgram(np.asarray(wave_N) + 1e-6, NFFT=1024, Fs=rate, noverlap=768, vmin=-120, vmax=-30, cmap="magma")
        axis.set(ylabel=f"{name}\nHz")
    axes[0].set_title(title, fontsize=9)
    axes[-1].set_xlabel("seconds")
    _save(figure, path)


def _figure(rows: int = 1, width: float = 8.0, height: float = 4.0):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(rows, 1))


def _save(figure, path: Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
