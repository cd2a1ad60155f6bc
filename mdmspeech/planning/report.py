"""Plans as text, tables and a picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mdmspeech.planning.decode import PAPER, WAY_NAMES
from mdmspeech.planning.plan import Plan, describe
from mdmspeech.planning.roofline import ASSUMPTIONS, Roofline
from mdmspeech.planning.units import amount, duration, size

COLUMNS = (
    "configuration",
    "slice",
    "chips",
    "mesh",
    "batch",
    "at a time",
    "memory/chip",
    "of",
    "fits",
    "step",
    "limit",
    "MFU",
    "units/s",
)

QUICK = (
    "compiled with little effort: memory somewhat above, HBM traffic up to twice "
    "that of the program as it would run"
)


def text(plan: Plan) -> str:
    """One plan on a page."""
    verdict = (
        f"fits, {1 - plan.needed / plan.available:.0%} free"
        if plan.fits
        else "compiles, but leaves less than 10% free"
        if plan.compiled
        else "DOES NOT FIT"
    )
    lines = [
        (
            f"{plan.name} ({plan.way or plan.what}) on {plan.topology} = {plan.slice_name}, "
            f"{plan.chips} chips, mesh {describe(plan.mesh)}: {verdict}"
        ),
        (
            f"one call: {plan.rows} rows, {plan.units:,} {plan.unit}; traced in "
            f"{plan.seconds['trace']:.0f} s, compiled in {plan.seconds['compile']:.0f} s"
        ),
        *([QUICK] if plan.quick else []),
        "",
        f"memory of a chip   {size(plan.needed)} of {size(plan.available)}"
        + ("" if plan.compiled else " at least"),
        *(f"  {name:16} {size(number):>10}" for name, number in plan.memory.items() if number),
        "",
        (
            f"FLOPs              {amount(plan.flops)}FLOP, of them "
            f"{amount(plan.model_flops)}FLOP model, the rest computed again"
        ),
    ]
    if plan.roofline:
        r = plan.roofline
        lines += [
            f"HBM traffic        {size(plan.hbm_bytes)} a chip",
            "collectives        " + ("none" if not plan.collectives else "count x size, a chip"),
            *(
                (
                    f"  {c.kind:18} {c.axes:10} of {c.group:<4} {c.count:6g} x "
                    f"{size(c.bytes):>9}  {duration(c.seconds):>8}"
                    + ("  between slices" if c.network == "dcn" else "")
                )
                for c in plan.collectives[:12]
            ),
            *(
                [f"  and {len(plan.collectives) - 12} smaller"]
                if len(plan.collectives) > 12
                else []
            ),
            "",
            "estimate, not a measurement:",
            (
                f"  alone: compute {duration(r.compute)}, HBM {duration(r.hbm)}, "
                f"links {duration(r.ici)}"
                + (f", between slices {duration(r.dcn)}" if r.dcn else "")
                + f"; limit: {r.limit}; the schedule waits {duration(r.exposed)} for them"
            ),
            f"  step {duration(r.seconds_low)} to {duration(r.seconds_high)}, "
            f"MFU {r.mfu_low:.0%} to {r.mfu:.0%}, "
            f"{amount(r.rate_low)}{plan.unit}/s to {amount(r.rate)}{plan.unit}/s",
            *(f"  - {line}" for line in ASSUMPTIONS),
        ]
    if plan.advice:
        lines += ["", "to make it fit:", *(f"  - {line}" for line in plan.advice)]
    return "\n".join(lines)


def row(plan: Plan) -> tuple[str, ...]:
    """Of a table, see COLUMNS."""
    r = plan.roofline
    return (
        plan.name if plan.what == "train" else f"{plan.name} {plan.way or plan.what}",
        plan.slice_name,
        str(plan.chips),
        "/".join(str(n) for n in plan.mesh.values()),
        str(plan.rows),
        _at_a_time(plan),
        ("" if plan.compiled else ">") + f"{plan.needed / 2**30:.1f} GiB",
        f"{plan.available / 2**30:.0f} GiB",
        "yes" if plan.fits else "tight" if plan.compiled else "no",
        f"{duration(r.seconds_low)} - {duration(r.seconds_high)}" if r else "",
        r.limit if r else "",
        f"{r.mfu_low:.0%} - {r.mfu:.0%}" if r else "",
        f"{amount(r.rate_low).strip()} - {amount(r.rate).strip()}" if r else "",
    )


def _at_a_time(plan: Plan) -> str:
    """Rows that a chip computes at a time, and what of them it computes again."""
    rows = plan.rows / (plan.mesh["data"] * plan.mesh["fsdp"] * plan.accum)
    return " ".join(filter(None, (f"{rows:g}", plan.remat)))


def table(plans: Iterable[Plan], best: Plan | None = None) -> str:
    """Aligned columns for a terminal; `best` is starred."""
    rows = [COLUMNS] + [
        (*row(plan)[:-1], row(plan)[-1] + ("  <- best" if plan is best else "")) for plan in plans
    ]
    widths = [max(len(r[i]) for r in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(r, widths, strict=True)).rstrip()
        for r in rows
    )


def markdown(plans: Iterable[Plan]) -> str:
    """The same as a Markdown table."""
    lines = [
        "| " + " | ".join(cells) + " |"
        for cells in (COLUMNS, ("---",) * len(COLUMNS), *(row(plan) for plan in plans))
    ]
    return "\n".join(lines)


def speech(plans: Iterable[Plan]) -> str:
    """Ways of talking side by side, as a Markdown table: a line a way, by chip tokens a second and
    how many times next-token decoding that is; last the paper's.
    """
    by_chip: dict[str, dict[str, Roofline]] = {}
    for plan in plans:
        if plan.roofline:
            by_chip.setdefault(plan.slice_name, {})[plan.way] = plan.roofline
    head = ["tokens/s"]
    for chip in by_chip:
        head += [chip, "x NTP"]
    lines = [[*head, "paper, x NTP"], ["---"] * (len(head) + 1)]
    for way in (name for name in WAY_NAMES if any(name in found for found in by_chip.values())):
        cells = [way]
        for found in by_chip.values():
            r, ntp = found.get(way), found.get("NTP")
            cells.append(f"{r.rate_low:,.0f} - {r.rate:,.0f}" if r else "")
            ends = sorted((r.rate_low / ntp.rate_low, r.rate / ntp.rate)) if r and ntp else ()
            cells.append(" - ".join(dict.fromkeys(f"{end:.1f}" for end in ends)))
        lines.append([*cells, f"{PAPER[way]:.1f}" if way in PAPER else ""])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def weak_scaling(plans: Sequence[Plan]) -> dict[str, dict[str, list[Plan]]]:
    """Chip -> configuration -> its plans that fit, by the number of chips, one slice or several: of
    those that were planned on more than one, or of all if there are none.
    """
    found: dict[str, dict[str, list[Plan]]] = {}
    for plan in sorted(plans, key=lambda plan: (plan.topology, plan.name)):
        if plan.roofline and plan.fits:
            chip = plan.topology.split(":")[0].rpartition("x")[2]  # without the number of slices
            found.setdefault(chip, {}).setdefault(plan.name, []).append(plan)
    for lines in found.values():
        for line in lines.values():
            line.sort(key=lambda plan: plan.chips)
    scaled = {
        chip: {name: line for name, line in lines.items() if len({p.chips for p in line}) > 1}
        for chip, lines in found.items()
    }
    return {chip: lines for chip, lines in scaled.items() if lines} or found


def plot_weak_scaling(path: Path, plans: Sequence[Plan]) -> None:
    """Units/s (with ideal scaling dotted) and MFU bound against chips, a colour a configuration, a
    panel a chip; bands between the two estimates, squares where there are several slices.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = weak_scaling(plans)
    names = sorted({name for lines in found.values() for name in lines})
    tab = colormaps["tab10" if len(names) <= 10 else "tab20"]
    colours = {name: tab(index % tab.N) for index, name in enumerate(names)}
    figure = Figure(figsize=(max(5.2 * len(found), 6.5), 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, max(len(found), 1), squeeze=False, sharex="col")
    for column, (chip, lines) in enumerate(found.items()):
        for name, shown in lines.items():
            _plot_line(grid[:, column], name, shown, colours[name])
        grid[0][column].set(title=chip, xscale="log", yscale="log", ylabel="tokens/s (bound)")
        grid[1][column].set(xlabel="chips", ylabel="MFU bound", ylim=(0, 1))
        grid[1][column].set_xscale("log", base=2)
        for axis in grid[:, column]:
            axis.grid(alpha=0.3)
    labelled = {
        label: handle
        for axis in grid[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if labelled:
        figure.legend(
            labelled.values(), labelled.keys(), loc="outside lower center", ncols=4, fontsize=8
        )
    figure.suptitle(
        "Weak scaling, estimated from the compiled program\nfixed batch a chip; dotted: ideal; "
        "squares: several slices;\nband: no overlap .. perfect overlap",
        fontsize=10,
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _plot_line(axes: Any, name: str, shown: Sequence[Plan], colour: Any) -> None:
    """One configuration, in a column of two panels."""
    chips = [plan.chips for plan in shown]
    several = [n for n, plan in enumerate(shown) if "x" in plan.topology.split(":")[0]]
    for axis, low, high in zip(axes, ("rate_low", "mfu_low"), ("rate", "mfu"), strict=True):
        lows, highs = ([getattr(plan.roofline, field) for plan in shown] for field in (low, high))
        axis.fill_between(chips, lows, highs, color=colour, alpha=0.15)
        axis.plot(chips, highs, color=colour, marker=".", linewidth=1, label=name)
        axis.plot(
            [chips[n] for n in several],
            [highs[n] for n in several],
            color=colour,
            marker="s",
            fillstyle="none",
            linestyle="",
        )
    ideal = shown[0].roofline.rate / chips[0]  # type: ignore[union-attr]
    axes[0].plot(chips, [ideal * n for n in chips], color=colour, linestyle=":", linewidth=0.8)
