"""`mdmspeech plan`: what a configuration needs on a TPU slice, and how fast it could be, without
the slice.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

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
        help="train (one step; default), decode (a block of the Talker) or think (a token of the "
        "Thinker)",
    )
    parser.add_argument(
        "--way",
        default="",
        metavar="WAY",
        help="with --what decode: NTP, 'MTP 3', or S=1, 2, 4, 8 or 16 (default: all, side by side)",
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="try meshes, then remat policies and rows at a time, and name the best that fits with "
        "10%% to spare",
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
        "--tries",
        type=int,
        default=6,
        metavar="N",
        help="meshes to compile in a sweep, and then layouts on the best (default 6 each)",
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
    if args.sweep and args.what != "train":
        raise UserError(f"--sweep is for training; --what {args.what} takes a --mesh")
    if args.way and args.what != "decode":
        raise UserError(f"--way {args.way}: only --what decode has ways")
    from mdmspeech.planning import report
    from mdmspeech.planning.topology import parse

    topology = parse(args.topology, args.slices)
    config = _config(args.config, args.set, args.system)
    made = partial(planned, _name(args.config), config, args.what)
    if args.sweep:
        plans, shown = _sweep(made(), topology, args)
    elif args.what == "decode" and not args.way:
        plans = _ways(made, topology, args)
        shown = next((plan for plan in plans if not plan.fits), plans[0])
    else:
        plans = [_one(made(args.way), topology, args)]
        shown = plans[0]
    if len(plans) == 1 or args.sweep:
        print(report.text(shown))
    if args.json:
        write_text(args.json, json.dumps([plan.to_json() for plan in plans], indent=1) + "\n")
    return 0 if shown.fits else 1


def _one(planned, topology, args: argparse.Namespace):
    from mdmspeech.planning.configs import decoding_mesh, mesh_sizes

    if args.what == "train" or args.mesh:
        sizes = mesh_sizes(planned.config, topology.chips, args.mesh or "")
    else:
        sizes = decoding_mesh(args.what, topology.chips)
    return planned.plan(topology, sizes, args.rows, args.quick)


def _ways(made, topology, args: argparse.Namespace) -> list:
    """Every way of talking, with a table of them."""
    from mdmspeech.planning import report
    from mdmspeech.planning.decode import WAY_NAMES

    plans = []
    for way in WAY_NAMES:
        plans.append(_one(made(way), topology, args))
        print(report.table(plans).splitlines()[-1], file=sys.stderr, flush=True)
    print(f"{report.table(plans)}\n\n{report.speech(plans)}\n")
    print("\n".join(f"  - {line}" for line in report.ASSUMPTIONS))
    return plans


def _sweep(planned, topology, args: argparse.Namespace) -> tuple[list, Any]:
    """Meshes, then on the best of them how much is computed again and how many rows at a time."""
    from mdmspeech.planning import report
    from mdmspeech.planning import sweep as sweeps

    rows = args.rows or planned.rows()
    made, left_out = planned.try_meshes(topology, lambda sizes: rows, args.tries, args.quick)
    for sizes, why in left_out:
        told = " ".join(f"{axis}={n}" for axis, n in sizes.items())
        print(f"left out {told}: {why}", file=sys.stderr)
    plans: list[Any] = []

    def keep(found) -> None:
        for plan in found:
            plans.append(plan)
            line = report.table([plan]).splitlines()[1]
            print(f"compiled {len(plans)}: {line}", file=sys.stderr, flush=True)

    keep(made)
    if not plans:
        raise UserError(
            f"no mesh of {topology.chips} chips suits {rows} rows: give --rows, or a smaller slice"
        )
    if first := sweeps.best(plans):
        keep(planned.try_layouts(topology, first, args.tries, args.quick))
    best = sweeps.best(plans)
    print(report.table(plans, best), end="\n\n")
    return plans, best or min(plans, key=lambda plan: plan.needed)


def _list(args: argparse.Namespace) -> int:
    from mdmspeech.cli.experiment import load_config
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.planning import tables
    from mdmspeech.planning.topology import parse

    cache, code = tables.Cache(Path(args.out + ".jsonl")), tables.code_digest()
    jobs = []
    for entry in load_config(args.list):
        lazy = _Lazy(entry)
        for topology in map(parse, entry.topologies):
            key = tables.key_of(lazy.digest, entry.what, entry.way, entry.rows, topology.name)
            make = lambda lazy=lazy, topology=topology: lazy.plan(topology)
            label = " ".join(filter(None, (lazy.name, entry.way, "on", topology.slice_name)))
            jobs.append((key, label, make))
    keys = [key for key, _, _ in jobs]
    done = lambda plans, refused, missing, older: tables.write(
        plans, refused, missing, older, Path(args.out), keys
    )
    tables.run(
        jobs,
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
        self.config = _config(entry.config, entry.settings)
        self.digest = self.config.to_json_best_effort(sort_keys=True)

    def plan(self, topology):
        """The first of the promising meshes that fits, else the last that was tried."""
        from mdmspeech.planning.configs import decoding_mesh

        entry, plan = self.entry, None
        self._planned = self._planned or planned(self.name, self.config, entry.what, entry.way)
        if entry.what != "train":
            sizes = decoding_mesh(entry.what, topology.chips)
            return self._planned.plan(topology, sizes, entry.rows)
        rows_of = lambda sizes: entry.rows * sizes["data"] * sizes["fsdp"]
        made, left_out = self._planned.try_meshes(topology, rows_of, tries=3)
        for plan in made:
            if plan.fits:
                break
        if plan is None:
            raise UserError(
                "; ".join(f"{sizes}: {why}" for sizes, why in left_out[:2]) or "no mesh divides"
            )
        return plan


def planned(name: str, config: Any, what: str = "train", way: str = ""):
    """A configuration, ready to be compiled for any slice. UserError: see `configs.Planned`."""
    from mdmspeech.cli.experiment import make_task
    from mdmspeech.planning.configs import Planned

    return Planned(name, config, what, lambda config: make_task(config, Path("unused")), way)


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
