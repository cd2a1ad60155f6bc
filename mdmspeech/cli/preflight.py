"""`mdmspeech preflight`: whether a training run can work on machines that are not there yet, before
anything is paid for. The launchers ask it first.
"""

import argparse
import os
import sys

from mdmspeech.errors import UserError

DISKS = ("here", "there", "empty")


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "preflight",
        help="look whether a training run can work, before machines are paid for",
        description="Looks at everything about a run that can be known beforehand: its settings, "
        "what it starts from, the workdir, the data and the codec of its tokens, the batch on the "
        "chips and their mesh, the memory of a chip. Says all that is wrong, each with a cure, and "
        "ends with exit code 2 then. With --topology it compiles the training step for one slice.",
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="as `train` takes it, and so the next four"
    )
    parser.add_argument("--workdir", required=True, metavar="DIR")
    parser.add_argument("--data", metavar="DIR")
    parser.add_argument("--system", metavar="DIR")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--topology", default="", metavar="NAME", help="TPU slice, as `plan` takes it: v5e:4x4"
    )
    parser.add_argument(
        "--slices", type=int, default=1, metavar="N", help="how many of them (default 1)"
    )
    parser.add_argument(
        "--chips",
        type=int,
        default=0,
        metavar="N",
        help="devices of all machines together, where they are no TPUs (default: unknown)",
    )
    parser.add_argument(
        "--disks",
        choices=DISKS,
        default="here",
        help="where paths without :// are: on this machine (default); on the machines that train, "
        "and cannot be looked at; nowhere, because their disks are empty when they start",
    )
    parser.add_argument(
        "--account",
        default="",
        metavar="EMAIL",
        help="service account of the machines: buckets are looked at with its permissions, too, where "
        "you may act as it",
    )
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="tell the memory of a chip by arithmetic alone, which is too little",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it; exit code 2 if anything is wrong."""
    # compiling needs no device, and must not take one from a training run
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for option, least in (("slices", 1), ("chips", 0)):
        if getattr(args, option) < least:
            raise UserError(f"--{option} {getattr(args, option)}: give {least} or more")
    if args.topology and args.chips:
        raise UserError("--topology and --chips: give the one for TPUs, the other for GPUs")
    from mdmspeech.cli import preflight_checks

    wrong = 0
    for name, outcome in preflight_checks.look(args):
        failed = isinstance(outcome, UserError)
        wrong += failed
        text = " ".join(str(outcome).split())
        print(
            f"{'WRONG' if failed else 'ok':6}{name:10}{text}",
            file=sys.stderr if failed else sys.stdout,
            flush=True,
        )
    if wrong:
        print(f"mdmspeech preflight: {wrong} of the checks failed", file=sys.stderr)
    return 2 if wrong else 0
