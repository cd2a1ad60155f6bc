"""A fitted ladder as a page and a picture."""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.evaluation.provenance import line
from mdmspeech.scaling.law import Fit
from mdmspeech.scaling.results import Run, fit_runs, hold_out, runs_of


def summary(
    rows: Sequence[Mapping[str, Any]],
    target: str,
    count: str,
    predicted: Sequence[tuple[float, float]] = (),
    draws: int = 200,
) -> dict[str, Any]:
    """All that the page says, for JSON. predicted: (N, D) of runs that are not there.

    Raises:
      UserError: as `law.fit`, of all rows; where only the largest size cannot be held out, "held_out"
        is empty and "not_held_out" says why.
    """
    runs = runs_of(rows, target, count)
    found = fit_runs(runs, draws)
    try:
        held_out, why = hold_out(runs, draws), ""
    except UserError as error:
        held_out, why = [], str(error)
    law = dataclasses.asdict(found.law)
    share = lambda law: law.beta / (law.alpha + law.beta)
    return {
        "target": target,
        "count": count,
        "law": law,
        "intervals": {name: found.interval(operator.attrgetter(name)) for name in law},
        "scatter": found.scatter,
        "size_exponent": share(found.law),
        "size_exponent_95": found.interval(share),
        "held_out": held_out,
        "not_held_out": why,
        "predicted": [_prediction(found, *point) for point in predicted],
        "rows": [dict(row) for row in rows],
    }


def _prediction(found: Fit, size: float, tokens: float) -> dict[str, float]:
    loss, low, high = found.predict(size, tokens)
    return dict(size=size, tokens=tokens, loss=loss, low=low, high=high)


def page(result: Mapping[str, Any], picture: str) -> str:
    """Markdown. picture: its address from the page."""
    law, spans = result["law"], result["intervals"]
    term = lambda name: f"{law[name]:.4g} ({spans[name][0]:.3g} to {spans[name][1]:.3g})"
    speaks = any("wer" in row for row in result["rows"])
    lines = [
        "# A scaling ladder",
        "",
        "Made by `mdmspeech ladder fit`. Do not edit.",
        "",
        f"Loss: nats per hidden token of held-out speech, {_target(result['target'])}, the same masks "
        f"for all. N: parameters, {result['count'].replace('_', '-')}. D: tokens read, padding left "
        "out. C: FLOPs of all matrix products.",
        "",
        "| rung | N | D | passes | C | nats | by the law |" + (" WER, % |" if speaks else ""),
        "| --- |" + " --- |" * (7 if speaks else 6),
    ]
    for row, run in zip(result["rows"], runs_of(result["rows"], result["target"], result["count"]),
                        strict=True):  # fmt: skip
        fitted = (
            law["E"] + law["A"] / run.size ** law["alpha"] + law["B"] / run.tokens ** law["beta"]
        )
        cells = [run.name, f"{run.size:.3g}", f"{run.tokens:.3g}", f"{row['tokens']['passes']:.2f}",
                 f"{run.compute:.3g}", f"{run.loss:.3f}", f"{fitted:.3f}"]  # fmt: skip
        if speaks:
            rates = row.get("wer", {})
            cells.append(", ".join(f"S={s}: {rate['wer']:.0f}" for s, rate in rates.items()) or "-")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"L = E + A / N^alpha + B / D^beta with E = {term('E')}, A = {term('A')}, alpha = "
        f"{term('alpha')}, B = {term('B')}, beta = {term('beta')}; 95 % intervals. Single runs scatter "
        f"by {result['scatter']:.2%} around it. For a compute C the best N grows as C to the power of "
        f"{result['size_exponent']:.2f} ({result['size_exponent_95'][0]:.2f} to "
        f"{result['size_exponent_95'][1]:.2f}).",
        "",
    ]
    if result["held_out"]:
        inside = sum(one["inside"] for one in result["held_out"])
        lines += [
            f"The largest size, predicted from the others: {inside} of {len(result['held_out'])} inside "
            "the 95 % interval.",
            "",
            "| rung | nats | predicted | interval | |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {one['rung']} | {one['loss']:.3f} | {one['predicted']:.3f} | {one['low']:.3f} to "
            f"{one['high']:.3f} | {'inside' if one['inside'] else 'missed'} |"
            for one in result["held_out"]
        ]
    else:
        lines.append(f"No size was held out: {result['not_held_out']}.")
    if result["predicted"]:
        lines += ["", "| N | D | nats | interval |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {p['size']:.3g} | {p['tokens']:.3g} | {p['loss']:.3f} | {p['low']:.3f} to {p['high']:.3f} |"
            for p in result["predicted"]
        ]
    made = result["rows"][0].get("made")
    lines += ["", f"![the ladder]({picture})", ""]
    lines += [f"First run: {line(made)}", ""] if made else []
    lines += [line(result["made"]), ""]
    return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Loss over compute with the law through each size, and what was predicted of the largest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    runs = runs_of(result["rows"], result["target"], result["count"])
    law = result["law"]
    for number, size in enumerate(sorted({run.size for run in runs})):
        mine: list[Run] = sorted((r for r in runs if r.size == size), key=lambda r: r.tokens)
        colour = f"C{number}"
        left.plot([r.compute for r in mine], [r.loss for r in mine], "o", color=colour,
                  label=f"N = {size:.3g}")  # fmt: skip
        tokens = np.geomspace(mine[0].tokens, mine[-1].tokens, 40)
        fitted = law["E"] + law["A"] / size ** law["alpha"] + law["B"] / tokens ** law["beta"]
        left.plot(tokens * mine[0].compute / mine[0].tokens, fitted, color=colour, linewidth=1)
        right.plot([r.tokens for r in mine], [r.loss for r in mine], "o", color=colour)
        right.plot(tokens, fitted, color=colour, linewidth=1)
    places = {run.name: run.tokens for run in runs}
    for number, one in enumerate(result["held_out"]):
        right.errorbar(
            places[one["rung"]] * 1.03,
            one["predicted"],
            yerr=[[one["predicted"] - one["low"]], [one["high"] - one["predicted"]]],
            fmt="kx",
            capsize=4,
            label="largest size, predicted" if number == 0 else None,
        )
    left.set(xlabel="compute, FLOPs", ylabel="held-out nats per hidden token", xscale="log")
    right.set(xlabel="tokens", xscale="log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _target(name: str) -> str:
    return (
        "the mean over rates of hiding" if name == "mean" else f"{float(name):.0%} of them hidden"
    )
