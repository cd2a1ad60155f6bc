"""What fixed anchors learn beside paced ones at the compact size: learning curves of two runs, and how
well each Talker speaks.

Command:  python -m experiments.anchors_curve --paced ~/.cache/mdmspeech/runs/compact_talker \
              --fixed ~/.cache/mdmspeech/runs/talker_fixed_compact
Writes:   experiments/results/anchors.json, anchors.md and anchors.png, from what the runs wrote down
          and from the scores of `mdmspeech eval` (`compact.json`, `fixed_anchors.json`).

Both runs have the same trunk, masking, batch and learning rate; `talker_fixed_compact.py` says what
differs. Losses are nats per hidden token, hidden at rates of 0.3 to 1, of held-out answers under one
set of masks and of the training batches.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.evaluation.provenance import line, provenance
from mdmspeech.evaluation.tables import table
from mdmspeech.training.metrics import read_metrics

RESULTS = Path(__file__).parent / "results"
SCORES = {"paced": "compact", "fixed": "fixed_anchors"}  # run -> name of its release's scores
TRAINED = "train/token"
# of the answers alone; a run of no other part has it under the whole's name
HELD_OUT = ("eval/held_out/answers/token", "eval/held_out/token")


def curve(workdir: str | Path) -> dict[str, list[list[float]]]:
    """{"trained", "held_out"} -> [step, loss] of a run. UserError: it wrote none down."""
    rows = read_metrics(Path(workdir).expanduser() / "metrics.jsonl")
    scored = [
        [row["step"], next(row[key] for key in HELD_OUT if key in row)]
        for row in rows
        if any(key in row for key in HELD_OUT)
    ]
    trained = [[row["step"], row[TRAINED]] for row in rows if TRAINED in row]
    if not trained or not scored:
        raise UserError(
            f"{workdir}/metrics.jsonl has no losses of a Talker on held-out speech: give the workdir "
            "of a run of stage talker that was evaluated (train.eval_every)"
        )
    return {"trained": trained, "held_out": scored}


def spoken(path: Path) -> list[dict[str, Any]]:
    """The masked-diffusion rows of a file of scores. UserError: there are none."""
    rows = json.loads(path.read_text()).get("speaking", {}).get("rows", []) if path.exists() else []
    kept = ("set", "steps", "count", "wer", "wer_95", "eos_missed", "ends_chosen")
    found = [{key: row[key] for key in kept} for row in rows if row["talker"] == "mdm"]
    if not found:
        raise UserError(
            f"{path} has no scores of a Talker: make them with mdmspeech eval --parts speaking "
            f"--model RELEASE, whose name is to be {path.stem}"
        )
    return found


def report(result: dict[str, Any]) -> str:
    """Markdown."""
    curves, rows = result["curves"], []
    for name in SCORES:
        for part, told in (("held_out", "held-out answers"), ("trained", "training batches")):
            points = curves[name][part]
            at = sorted({0, len(points) // 4, len(points) // 2, len(points) - 1})
            rows.append((
                name, told, ", ".join(f"{points[i][1]:.2f} ({points[i][0]})" for i in at)
            ))  # fmt: skip
    words = [
        (
            row["set"],
            row["steps"],
            name,
            f"{row['wer']} ({row['wer_95'][0]} to {row['wer_95'][1]})",
            row["count"],
            f"{row['eos_missed']} of {row['ends_chosen']}"
            if row["ends_chosen"]
            else "none to find",
        )
        for name, scored in result["speaking"].items()
        for row in scored
    ]
    return "\n\n".join([
        "# Fixed anchors beside paced ones",
        "Made by `python -m experiments.anchors_curve`. Do not edit.",
        "Talkers of the compact size. Loss in nats per hidden token (after so many updates); word "
        "errors of what an independent recogniser hears, with 95 % intervals.",
        table(["anchors", "loss on", "nats per hidden token (updates)"], rows),
        "![curves](anchors.png)",
        table(["spoken", "S", "anchors", "WER %", "utterances", "ends missed"], sorted(words)),
        line(result["made"]),
    ]) + "\n"  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """The curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for color, (name, curves) in zip(("C0", "C1"), result["curves"].items(), strict=True):
        axis.plot(
            *zip(*curves["trained"], strict=True),
            color=color,
            alpha=0.4,
            label=f"{name}, trained on",
        )
        axis.plot(
            *zip(*curves["held_out"], strict=True),
            color=color,
            marker="o",
            label=f"{name}, held out",
        )
    axis.set(
        xlabel="updates",
        ylabel="nats per hidden token",
        title="Fixed anchors beside paced ones",
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--paced", "--fixed"):
        parser.add_argument(
            option, required=True, metavar="WORKDIR", help="the run of these anchors"
        )
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "curves": {name: curve(getattr(args, name)) for name in SCORES},
        "speaking": {name: spoken(args.output / f"{of}.json") for name, of in SCORES.items()},
    }
    result["made"] = provenance(
        sizes={
            f"updates, {name}": int(max(step for points in found.values() for step, _ in points))
            for name, found in result["curves"].items()
        },
        seeds={},
    )
    (args.output / "anchors.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (args.output / "anchors.md").write_text(report(result), encoding="utf-8")
    draw(result, args.output / "anchors.png")
    print(report(result))


if __name__ == "__main__":
    main()
