"""What autoregressive weights are worth to masked diffusion: learning curves of a small Talker from
scratch and from a next-token Talker's weights.

Command:  mdmspeech data --hours 6 --parts open; mdmspeech data --tokens --parts open; python -m experiments.llada_curve
Writes:   experiments/results/llada.json, llada.md and llada.png. It resumes by itself; --workdir
          keeps the runs.

Runs of one size, schedule and data: next-token from scratch; then masked diffusion with 1/t
weights, with the label shift from scratch, with the label shift from the next-token weights (only
the mask's embedding is new), the same with a smaller learning rate, and without the shift from the
same weights. Every few steps each diffusion run is scored on held-out speech under one fixed set of
masks: nats per hidden token, hidden at rates of 0.3 to 1.
"""

import argparse
import json
from pathlib import Path

import jax

from experiments import compact_talker_ntp, talker_llada_compact
from mdmspeech.cli.experiment import make_task
from mdmspeech.evaluation.provenance import line, provenance
from mdmspeech.training import loop, mesh
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.validation import ValidationLoss

RESULTS = Path(__file__).parent / "results"
RUNS = {  # name -> (mode, label shift, starts from, learning rate)
    "ntp": ("ntp", False, "", 2e-3),
    "scratch": ("mdm", True, "", 2e-3),
    "converted": ("mdm", True, "ntp", 2e-3),
    "gentle": ("mdm", True, "ntp", 5e-4),
    "unshifted": ("mdm", False, "ntp", 2e-3),
}
TITLES = {
    "ntp": "next-token, from scratch",
    "scratch": "masked diffusion, label shift, from scratch",
    "converted": "masked diffusion, label shift, from the next-token weights",
    "gentle": "the same, a quarter of the learning rate",
    "unshifted": "masked diffusion, no shift, from the next-token weights",
}
SCORE, ACCURACY = "eval/masked", "eval/masked_accuracy"


def config_of(name: str, args: argparse.Namespace):
    """The experiment of one run."""
    mode, shift, start, lr = RUNS[name]
    config = compact_talker_ntp.get_config() if mode == "ntp" else talker_llada_compact.get_config()
    config.init_from = start
    config.new_mask = bool(start)
    ffn = -(-args.width * 8 // 3 // 64) * 64
    config.talker.update(
        dim=args.width,
        num_layers=args.layers,
        num_heads=args.width // 64,
        ffn_dim=ffn,
        symbol_lookahead=(8, 4),
        label_shift=shift,
    )
    config.data.update(
        parts=("open",), batch=args.batch, length=args.length, symbols=args.length * 7 // 8
    )
    config.train.update(
        steps=args.steps, log_every=args.every, eval_every=args.every, save_every=args.steps, keep=1
    )
    config.optim.update(lr=lr, warmup=40)
    return config


def run(name: str, args: argparse.Namespace) -> None:
    """Trains one run, or what is left of it."""
    config = config_of(name, args)
    task = make_task(config, args.workdir / name, args.data)
    if name != "ntp":
        scored = config_of(name, args)
        scored.masking = dict(name="bernoulli", low=0.3, high=1.0)
        judge = make_task(scored, args.workdir / name, args.data)
        place = mesh.make_mesh(**config.mesh)
        held_out = ValidationLoss(judge, {}, lambda batch: mesh.put_batch(place, batch))

        def show(params, step, outdir):
            scores = held_out(params)
            return {
                "masked": scores["held_out/token"],
                "masked_accuracy": scores["held_out/accuracy"],
            }

        task.show = show
    loop.train(config, task, args.workdir / name)


def start_score(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Held-out loss before the first update."""
    config = config_of(name, args)
    config.masking = dict(name="bernoulli", low=0.3, high=1.0)
    task = make_task(config, args.workdir / name, args.data)
    place = mesh.make_mesh(**config.mesh)
    with jax.set_mesh(place):
        params = task.warm_start(jax.jit(task.init)(jax.random.key(config.train.seed)))
        return ValidationLoss(task, {}, lambda batch: mesh.put_batch(place, batch))(params)


def collect(args: argparse.Namespace) -> dict:
    """Curves, and how soon each reaches where training from scratch ends."""
    result: dict = {
        "steps": args.steps,
        "width": args.width,
        "layers": args.layers,
        "batch": args.batch,
        "length": args.length,
        "every": args.every,
        "rates": {name: lr for name, (_, _, _, lr) in RUNS.items()},
        "curves": {},
        "reached": {},
    }
    for name in RUNS:
        rows = read_metrics(args.workdir / name / "metrics.jsonl")
        if name == "ntp":
            scored = [row for row in rows if "eval/held_out/token" in row]
            result["ntp_final"] = scored[-1]["eval/held_out/token"]
            continue
        first = start_score(name, args)
        curve = [[0, first["held_out/token"], first["held_out/accuracy"]]]
        curve += [[row["step"], row[SCORE], row[ACCURACY]] for row in rows if SCORE in row]
        result["curves"][name] = curve
    goal = result["curves"]["scratch"][-1][1]
    for name, curve in result["curves"].items():
        result["reached"][name] = next((step for step, loss, _ in curve if loss <= goal), None)
    return result


def report(result: dict) -> str:
    """Markdown."""
    curves, steps = result["curves"], result["steps"]
    goal = curves["scratch"][-1][1]
    lines = [
        "# From a next-token Talker to masked diffusion",
        "",
        "Made by `python -m experiments.llada_curve`. Do not edit.",
        "",
        f"Talkers of width {result['width']} and {result['layers']} layers, {steps} steps of "
        f"{result['batch']} x {result['length']} tokens each, on the same batches. Loss: nats per "
        f"hidden token of held-out speech, one fixed set of masks, every {result['every']} steps. "
        "The next-token Talker, which had as many steps (not counted below), ended at "
        f"{result['ntp_final']:.3f} nats per token of its own loss. Learning rate "
        f"{result['rates']['converted']:g} after a warm-up of 40 steps, "
        f"{result['rates']['gentle']:g} in the gentle run; one seed, the same for all runs.",
        "",
        f"With the label shift the converted weights end at {curves['converted'][-1][1]:.3f}, "
        f"without it at {curves['unshifted'][-1][1]:.3f}: one seed cannot tell this "
        "difference from none.",
        "",
        (
            f"| run | start | {' | '.join(str(step) for step in _shown(curves['scratch']))} | "
            f"steps to {goal:.3f} |"
        ),
        "| --- |" + " --- |" * (len(_shown(curves["scratch"])) + 2),
    ]
    for name, curve in curves.items():
        at = {step: loss for step, loss, _ in curve}
        reached = result["reached"][name]
        cells = [f"{at[step]:.3f}" for step in _shown(curve)]
        told = "not reached" if reached is None else f"{reached} ({reached / steps:.0%})"
        lines.append(f"| {TITLES[name]} | {at[0]:.3f} | {' | '.join(cells)} | {told} |")
    lines += ["", "![curves](llada.png)", "", line(result["made"]), ""]
    return "\n".join(lines)


def _shown(curve) -> list[int]:
    """Some of the steps, the last among them."""
    steps = [step for step, _, _ in curve if step]
    share = max(1, len(steps) // 6)
    return sorted({*steps[share - 1 :: share], steps[-1]})


def draw(result: dict, path: Path) -> None:
    """The curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, curve in result["curves"].items():
        axis.plot(
            [row[0] for row in curve], [row[1] for row in curve], marker=".", label=TITLES[name]
        )
    axis.axhline(result["curves"]["scratch"][-1][1], color="grey", linestyle="--", linewidth=1)
    axis.set(
        xlabel="updates",
        ylabel="held-out loss, nats per hidden token",
        title="Masked diffusion from autoregressive weights",
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="updates of each run")
    parser.add_argument("--every", type=int, default=20, help="updates between two scores")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument(
        "--workdir", type=Path, default=Path("~/.cache/mdmspeech/runs/llada").expanduser()
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    for name in RUNS:
        run(name, args)
    result = collect(args)
    sizes = {
        "runs": len(RUNS),
        "steps a run": args.steps,
        "rows a step": args.batch,
        "tokens a row": args.length,
    }
    result["made"] = provenance(
        sizes=sizes, seeds={"weights and batches": int(config_of("ntp", args).train.seed)}
    )
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "llada.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (args.output / "llada.md").write_text(report(result), encoding="utf-8")
    draw(result, args.output / "llada.png")
    print(report(result))


if __name__ == "__main__":
    main()
