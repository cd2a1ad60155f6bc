"""Pictures of the results. Every function writes one PNG file; nothing is shown on a screen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# talker of a row -> its line, and what it is
_BASELINES = {
    "ntp": ("--", "next token"),
    "mtp": (":", "multi-token"),
    "mtp_verified": ("-.", "multi-token, verified"),
}
_COLOURS = ("#3b6ea5", "#d98032", "#4f9d69", "#a65a9b", "#8a8a8a", "#c4b03b", "#5bb0c4")


def spectrograms(path: Path, waves: Mapping[str, np.ndarray], rate: int, title: str = "") -> None:
    """Log spectrograms of waves [N], one above the other on a common time axis."""
    figure, axes = _figure(len(waves), height=2.4)
    for axis, (name, wave_N) in zip(axes, waves.items(), strict=True):
        with np.errstate(divide="ignore"):  # digital silence: -inf dB, drawn as the lowest
            axis.specgram(
                wave_N, NFFT=1024, Fs=rate, noverlap=768, vmin=-120, vmax=-30, cmap="magma"
            )
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


def steps(path: Path, part: Mapping[str, Any]) -> None:
    """Word error rate over the number of steps a block, a line for each set of texts; the
    next-token Talker as a dashed level.
    """
    figure, (axis,) = _figure()
    for colour, name in zip(_COLOURS, sorted({row["set"] for row in part["rows"]}), strict=False):
        rows = sorted(
            (row for row in part["rows"] if row["set"] == name and row["talker"] == "mdm"),
            key=lambda row: row["steps"],
        )
        counts, rates = [row["steps"] for row in rows], np.array([row["wer"] for row in rows])
        spans = np.array([row["wer_95"] for row in rows]).reshape(-1, 2).T
        axis.errorbar(
            counts,
            rates,
            yerr=np.abs(spans - rates),
            marker="o",
            capsize=3,
            color=colour,
            label=f"{name}, masked diffusion",
        )
        for row in part["rows"]:
            if row["set"] == name and row["talker"] in _BASELINES:
                line, told = _BASELINES[row["talker"]]
                axis.axhline(row["wer"], linestyle=line, color=colour, label=f"{name}, {told}")
    axis.set_xscale("log", base=2)
    ticks = sorted({row["steps"] for row in part["rows"]})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set(
        xlabel="steps a block of 16 tokens",
        ylabel="word errors, %",
        ylim=(0, None),
        title="Is the speech understood?",
    )
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def families(path: Path, part: Mapping[str, Any]) -> None:
    """Right answers of each family of questions, typed and spoken."""
    groups = part["families"]
    figure, (axis,) = _figure(height=0.28 * len(groups) + 1.5)
    at = np.arange(len(groups))
    for offset, way, colour in ((-0.2, "typed", _COLOURS[0]), (0.2, "spoken", _COLOURS[1])):
        share = [100 * g[f"{way}_right"] / max(g["questions"], 1) for g in groups.values()]
        axis.barh(at + offset, share, 0.38, label=way, color=colour)
    axis.set_yticks(at, list(groups))
    axis.invert_yaxis()
    axis.set(xlabel="right answers, %", xlim=(0, 100), title="Typed and spoken questions")
    axis.legend(loc="lower right")
    _save(figure, path)


def latency(path: Path, bars: Mapping[str, tuple[Mapping[str, float], float]]) -> None:
    """Stages until the first sound, stacked: a bar for each way of talking, (ms of each stage, ms to
    the first sound).
    """
    figure, (axis,) = _figure(height=0.8 * len(bars) + 1.5)
    for row, (stages, total) in enumerate(bars.values()):
        left = 0.0
        for colour, (stage, ms) in zip(_COLOURS, stages.items(), strict=False):
            name = stage.replace("_", " ") if row == 0 else None
            axis.barh(row, ms, 0.6, left=left, color=colour, label=name)
            left += ms
        axis.text(left, row, f" {total:g} ms", va="center")
    axis.set_yticks(range(len(bars)), list(bars))
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set(xlabel="ms after the end of the question", title="Until the first sound")
    figure.legend(loc="outside lower center", ncols=6, fontsize=8)
    _save(figure, path)


def talker_speeds(path: Path, part: Mapping[str, Any]) -> None:
    """Tokens a second of every way, a panel a size and batch; a line where the bare products end."""
    groups = list(dict.fromkeys((r["size"], r["batch"]) for r in part["rows"]))
    figure, axes = _figure(rows=len(groups), height=2.2 * len(groups))
    for axis, (size, batch) in zip(axes, groups, strict=True):
        rows = [r for r in part["rows"] if (r["size"], r["batch"]) == (size, batch)]
        names, rates = [r["way"] for r in rows], [r["tokens_per_second"] for r in rows]
        best = [rate * r["block_ms"] / r["bare_ms"] for rate, r in zip(rates, rows, strict=True)]
        axis.bar(names, rates, label="engine")
        axis.scatter(names, best, marker="_", s=400, color="black", label="bare products")
        axis.set_title(f"{size}, batch {batch}", fontsize=9)
        axis.set_ylabel("tokens/s")
        axis.legend(fontsize=7)
    _save(figure, path)


def speed_and_errors(path: Path, part: Mapping[str, Any]) -> None:
    """Tokens a second against word errors with their 95 % intervals, a point for every way of
    talking that has both, joined from S=1 to S=16; a panel a set of texts.
    """
    sets = sorted({name for row in part["rows"] for name in row.get("wer", {})})
    figure, axes = _figure(rows=len(sets), height=3.2)
    for axis, name in zip(axes, sets, strict=True):
        rows = [row for row in part["rows"] if name in row.get("wer", {})]
        for colour, diffusion in zip(_COLOURS, (True, False), strict=False):
            mine = [row for row in rows if row["way"].startswith("S=") == diffusion]
            rates = np.array([row["wer"][name]["wer"] for row in mine])
            spans = np.array([row["wer"][name]["wer_95"] for row in mine]).reshape(-1, 2).T
            axis.errorbar(
                [row["tokens_per_second"] for row in mine],
                rates,
                yerr=np.abs(spans - rates),
                fmt="o-" if diffusion else "s",
                color=colour,
                capsize=3,
            )
        for row in rows:
            at = row["tokens_per_second"], row["wer"][name]["wer"]
            axis.annotate(row["way"], at, xytext=(5, 5), textcoords="offset points", fontsize=8)
        axis.set(xscale="log", xlabel="tokens/s, one row", ylabel="word errors, %", ylim=(0, None))
        for which in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            which("{x:,.0f}")
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    _save(figure, path)
