"""`mdmspeech plan`: what a configuration needs on a TPU slice, and how fast it could be, without
the slice.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, write_text


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "plan",
        help=(
            "compile an experiment for a TPU slice that is not there: memory, "
            "FLOPs, collectives, step time"
        ),
        description="Compiles the real training step (or a block of decoding) for a TPU "
        "slice, which need not be there, and tells what a chip holds, what it "
        "computes and sends, and between which bounds a step would take. "
        "Nothing runs; a plan takes a minute or two of this machine.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="experiment, for example experiments/compact_talker.py"
    )
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="slice: v5p:4x4x4 (chips along each axis), or v5p-128, v5e-16, v6e-256, v4-32; "
        "2xv5e-256 for two",
    )
    parser.add_argument(
        "--slices",
        type=int,
        default=1,
        metavar="N",
        help="so many of them, joined by the network between hosts (default 1)",
    )
    parser.add_argument(
        "--mesh",
        metavar="SIZES",
        help=(
            "devices per axis, for example data=2,fsdp=8 (default: the "
            "experiment's; data takes what is left)"
        ),
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=0,
        metavar="N",
        help="rows of the global batch, or utterances decoded together (default: the experiment's)",
    )
    parser.add_argument(
        "--what",
        default="train",
        metavar="WHAT",
        help="train (one step; default) or decode (one block of the Talker)",
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="try meshes and name the best that fits with 10%% to spare",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=(
            "compile with little effort: a third of the time, memory and HBM "
            "traffic are upper bounds"
        ),
    )
    parser.add_argument(
        "--tries", type=int, default=6, metavar="N", help="meshes to compile in a sweep (default 6)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting, for example train.remat=full",
    )
    parser.add_argument(
        "--system",
        metavar="DIR",
        help="a system folder (see `assemble`) whose sizes replace the experiment's",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the plan, or all of a sweep, there as well"
    )
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="plan a whole list instead, for example experiments/plan_list.py; resumes by itself",
    )
    parser.add_argument(
        "--out",
        default="experiments/results/plan",
        metavar="STEM",
        help=(
            "with --list: finished plans are kept in STEM.jsonl, tables and a "
            "picture are STEM.md and STEM.png"
        ),
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="with --list: make those plans again that other versions of the code have made",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it; exit code 1 if nothing fits."""
    # compiling needs no device, and must not take one from a training run
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for option, least in (("rows", 0), ("tries", 1)):
        if getattr(args, option) < least:
            raise UserError(f"--{option} {getattr(args, option)}: give {least} or more")
    for path in (
        (args.out + ".jsonl", args.out + ".md", args.out + ".png")
        if args.list
        else filter(None, (args.json,))
    ):
        check_writable(path, "name another --out" if args.list else "name another --json")
    if args.list:
        if args.quick:
            raise UserError(
                "--quick is for plans of your own; the tables of a list are made with full effort"
            )
        return _list(args)
    if not args.config or not args.topology:
        raise UserError("give --config FILE and --topology NAME (or --list FILE)")
    from mdmspeech.planning import configs, report
    from mdmspeech.planning import sweep as sweeps
    from mdmspeech.planning.topology import parse

    topology, planned = (
        parse(args.topology, args.slices),
        _planned(args.config, args.set, args.what, args.system),
    )
    if args.sweep:
        made, left_out = planned.try_meshes(
            topology, lambda sizes: args.rows or planned.rows(), args.tries, args.quick
        )
        for sizes, why in left_out:
            print(
                (
                    f"left out data={sizes['data']} fsdp={sizes['fsdp']} "
                    f"tensor={sizes['tensor']}: {why}"
                ),
                file=sys.stderr,
            )
        plans = []
        for plan in made:
            plans.append(plan)
            print(
                f"compiled {len(plans)}: {report.table([plan]).splitlines()[1]}",
                file=sys.stderr,
                flush=True,
            )
        if not plans:
            raise UserError(
                f"no mesh of {topology.chips} chips suits {args.rows or planned.rows()} rows: give "
                "--rows, or a smaller slice"
            )
        best = sweeps.best(plans)
        print(report.table(plans, best), end="\n\n")
        shown = best or min(plans, key=lambda plan: plan.needed)
    else:
        shown = planned.plan(
            topology,
            configs.mesh_sizes(planned.config, topology.chips, args.mesh or ""),
            args.rows,
            args.quick,
        )
        plans = [shown]
    print(report.text(shown))
    if args.json:
        write_text(args.json, json.dumps([plan.to_json() for plan in plans], indent=1) + "\n")
    return 0 if shown.fits else 1


def _list(args: argparse.Namespace) -> int:
    from mdmspeech.cli.experiment import load_config
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.planning import tables
    from mdmspeech.planning.topology import parse

    cache, code = tables.Cache(Path(args.out + ".jsonl")), tables.code_digest()
    jobs = []
    for entry in load_config(args.list):
        planned = _Lazy(entry)
        for rank, topology in enumerate(map(parse, entry.topologies)):
            key = tables.key_of(planned.digest, entry.what, entry.rows, topology.name)
            make = lambda planned=planned, topology=topology: planned.plan(topology)
            jobs.append((rank, (key, f"{planned.name} on {topology.slice_name}", make)))
    # The first slice of every configuration, then the second of every, ...: what is stopped early
    # has something of everything.
    in_turn = [job for _, job in sorted(jobs, key=lambda item: item[0])]
    done = lambda plans, refused, missing, older: tables.write(
        plans, refused, missing, older, Path(args.out)
    )
    tables.run(
        in_turn,
        cache,
        code,
        args.fresh,
        done=done,
        made_by=lambda: provenance(sizes={"plans": 1}, seeds={}),
    )
    print(f"wrote {args.out}.jsonl, .md and .png")
    return 0


class _Lazy:
    """An entry of a list; its task is built when the first of its plans is missing."""

    def __init__(self, entry):
        self.entry, self.name, self._planned = entry, _name(entry.config), None
        self.digest = _config(entry.config, entry.settings).to_json_best_effort(sort_keys=True)

    def plan(self, topology):
        """The first of the promising meshes that fits, else the last that was tried."""
        self._planned = self._planned or _planned(
            self.entry.config, self.entry.settings, self.entry.what
        )
        entry, plan = self.entry, None
        rows_of = (
            (lambda sizes: entry.rows * sizes["data"] * sizes["fsdp"])
            if entry.what == "train"
            else (lambda sizes: entry.rows)
        )
        made, left_out = self._planned.try_meshes(topology, rows_of, tries=3)
        for plan in made:
            if plan.fits:
                break
        if plan is None:
            raise UserError(
                "; ".join(f"{sizes}: {why}" for sizes, why in left_out[:2]) or "no mesh divides"
            )
        return plan


def _planned(path: str, settings, what: str, system: str | None = None):
    from mdmspeech.cli.experiment import make_task
    from mdmspeech.planning.configs import Planned

    return Planned(
        _name(path),
        _config(path, settings, system),
        what,
        lambda config: make_task(config, Path("unused")),
    )


def _name(path: str) -> str:
    """Of an experiment file, "FILE:ARG" included."""
    file, _, argument = path.partition(".py")
    return Path(file).name + argument


def _config(path: str, settings, system: str | None = None):
    from mdmspeech.cli.experiment import load_experiment, override, use_system
    from mdmspeech.training.ranges import check_ranges

    config = load_experiment(path)
    if system:
        use_system(config, system)
    for assignment in settings:
        override(config, assignment)
    check_ranges(config)
    return config
