"""`mdmspeech cost`: chip-hours and money for a recipe on a slice, stage by stage."""

import argparse
import os
import sys
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, write_text

# recipe -> its stages in order; an experiment is experiments/STAGE_SIZE.py
RECIPES = {"paper": ("thinker", "talker", "talker_isd")}
SIZES = ("8b", "1b", "06b")
SLICES = {"v5e": "v5e-64", "v5p": "v5p-64", "v6e": "v6e-64"}


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "cost",
        help="chip-hours and money of a whole recipe on a TPU slice, as a range, by stage",
        description="Plans one step of every stage on the slice (as `plan` does; a minute or two "
        "each, kept for the next time), counts the steps that the hours of speech and the "
        "epochs make, and adds what a run loses. Nothing runs; a range, not an offer.",
    )
    parser.add_argument("--recipe", default="paper", choices=RECIPES, help="which stages")
    parser.add_argument("--size", default="8b", choices=SIZES, help="of the Thinker")
    parser.add_argument(
        "--hours",
        type=float,
        default=0.0,
        metavar="H",
        help="of spoken answers; the questions of stage 1 scale with them (default: the recipe's)",
    )
    parser.add_argument(
        "--chip", default="v5e", metavar="CHIP", help=f"one of {', '.join(SLICES)} (default v5e)"
    )
    parser.add_argument(
        "--slice", metavar="NAME", help="as `plan --topology`; default: 64 of these chips, v5p 32"
    )
    parser.add_argument(
        "--slices", type=int, default=1, metavar="N", help="so many of them (default 1)"
    )
    parser.add_argument(
        "--prices",
        default="",
        metavar="FILE",
        help="a price list of your own (JSON), not the shipped",
    )
    parser.add_argument(
        "--quick", action="store_true", help="compile with little effort: a third of the time"
    )
    parser.add_argument(
        "--out", metavar="STEM", help="write the table as STEM.md, and keep the plans in STEM.jsonl"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if not 0 <= args.hours < 1e7:
        raise UserError(f"--hours {args.hours:g}: give hours of speech, such as 6000")
    if not args.slice and args.chip not in SLICES:
        raise UserError(f"--chip {args.chip}: give one of {', '.join(SLICES)}, or a --slice")
    for end in (".md", ".jsonl") if args.out else ():
        check_writable(args.out + end, "name another --out")
    from mdmspeech.evaluation.provenance import line, provenance
    from mdmspeech.planning import cost
    from mdmspeech.planning.topology import parse

    prices = cost.read_prices(args.prices)
    topology = parse(args.slice or SLICES[args.chip], args.slices)
    price = prices.of(topology.tpu.name)
    stages = [_Stage(name, args.size, topology) for name in RECIPES[args.recipe]]
    share = args.hours / stages[-1].config.hours if args.hours else 1.0
    plans = _plans(stages, args)
    costs = [stage.cost(plan, share, price) for stage, plan in zip(stages, plans, strict=True)]
    page = cost.table(costs, prices)
    told = (
        f"{args.recipe} recipe, {args.size}, {topology.slice_name}, {topology.chips} chips: "
        f"{price:g} {prices.currency} a chip-hour ({prices.source}; {prices.date}). A step lies "
        f"between its plan's bounds, goodput between {cost.GOODPUT[1]:.0%} and "
        f"{cost.GOODPUT[0]:.0%}. An estimate; nothing was measured on a TPU."
    )
    print(f"{told}\n\n{page}")
    if args.out:
        made = line(provenance(sizes={"stages": len(costs)}, seeds={}))
        write_text(args.out + ".md", f"# What it costs\n\n{told}\n\n{page}\n\n{made}\n")
    return 0


class _Stage:
    """A stage's experiment on a slice."""

    def __init__(self, name: str, size: str, topology):
        from mdmspeech.cli.experiment import load_experiment

        self.name, self.topology = name, topology
        self.path = f"experiments/{name}_{size}.py:{topology.slice_name}"
        self.config = load_experiment(self.path)

    def cost(self, plan, share: float, price: float):
        """For `share` of the recipe's hours of speech."""
        from mdmspeech.planning.cost import stage_cost
        from mdmspeech.training.epochs import planned_steps

        hours = self.config.hours * share
        steps = planned_steps(self.config, hours)
        return stage_cost(self.name, plan, hours, self.config.train.epochs, steps, price)


def _plans(stages, args: argparse.Namespace) -> list:
    """One for each stage: kept from before, or compiled now."""
    from mdmspeech.cli.plan import planned
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.planning import tables
    from mdmspeech.planning.configs import mesh_sizes

    kept = args.out + ".jsonl" if args.out else "~/.cache/mdmspeech/plans.jsonl"
    cache, code = tables.Cache(Path(kept).expanduser()), tables.code_digest()
    plans = []
    for stage in stages:
        digest = stage.config.to_json_best_effort(sort_keys=True)
        key = tables.key_of(digest, "cost", args.quick, stage.topology.name)
        plan = cache.get(key, code)
        if plan is None or isinstance(plan, str):
            print(f"planning {stage.path} ...", file=sys.stderr, flush=True)
            name = Path(stage.path.partition(":")[0]).stem
            sizes = mesh_sizes(stage.config, stage.topology.chips)
            plan = planned(name, stage.config).plan(stage.topology, sizes, quick=args.quick)
            cache.put(key, plan, code, provenance(sizes={"plans": 1}, seeds={}))
        plans.append(plan)
    return plans
