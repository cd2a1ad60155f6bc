"""A picture of an answer: the wave with its words, the blocks, and the step in which each token was
revealed.
"""

import os

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Reply
from mdmspeech.inference.speech import Speech

# inches, 100 s of speech: longer pictures get denser, as no picture may have 2**16 pixels
_WIDEST = 220.0


def save_plot(path: str | os.PathLike, reply: Reply | Speech, title: str | None = None) -> None:
    """Draws `reply` into an image file (format by suffix). UserError: nothing was spoken, or the
    file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not len(reply.tokens):
        raise UserError("nothing was spoken, so there is nothing to draw")
    rate, trace = reply.sample_rate, reply.trace
    token_s = len(reply.audio) / rate / len(reply.tokens)
    length = len(reply.audio) / rate
    figure = Figure(figsize=(min(max(7.0, 2.2 * length), _WIDEST), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    wave, steps, sure = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))

    low, high = _envelope(reply.audio, max(1, len(reply.audio) // 4000))
    time = np.linspace(0, length, len(low))
    wave.fill_between(time, low, high, color="#30638e", linewidth=0)
    top = 1.15 * max(float(np.abs(reply.audio).max(initial=0.0)), 1e-3)
    wave.set(ylim=(-top, 1.35 * top), ylabel="wave")
    for word in reply.words:
        wave.text(
            word.start, 1.2 * top, word.text, fontsize=8, rotation=20, va="center", clip_on=True
        )
        wave.axvline(word.start, color="0.85", linewidth=0.6, zorder=0)
    wave.set_title(title if title is not None else reply.text, fontsize=10, loc="left", wrap=True)

    extent = (0.0, len(reply.tokens) * token_s, 0.0, 1.0)
    shown = steps.imshow(
        trace.step_L[None],
        aspect="auto",
        extent=extent,
        cmap="viridis",
        interpolation="nearest",
        vmin=0,
    )
    figure.colorbar(shown, ax=steps, label="step", ticks=sorted({0, int(trace.step_L.max())}))
    shown = sure.imshow(
        trace.confidence_L[None],
        aspect="auto",
        extent=extent,
        cmap="magma",
        interpolation="nearest",
        vmin=0,
        vmax=1,
    )
    figure.colorbar(shown, ax=sure, label="confidence")
    steps.set(ylabel="revealed in", yticks=[])
    sure.set(ylabel="sure", yticks=[], xlabel="seconds", xlim=(0, length))
    for axes in (wave, steps, sure):
        for start in trace.starts_P:
            axes.axvline(start * token_s, color="#d1495b", linewidth=1.0, linestyle="--")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot write {path}: {' '.join(str(error).split())[:160]}; use a "
            "writable folder and a .png, .svg or .pdf name"
        ) from error


def _envelope(audio: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample of every `size` samples."""
    padded = np.pad(audio, (0, -len(audio) % size)).reshape(-1, size)
    return padded.min(axis=1), padded.max(axis=1)
