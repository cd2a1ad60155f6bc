"""`mdmspeech bench`: how fast things run here, beside what the machine can do at best."""

import argparse
import sys

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable

PARTS = ("talker",)
SIZES = ("compact", "d1024", "paper")


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "bench",
        help="tokens a second of every way of talking, beside this machine's bounds",
        description="Masked diffusion at S = 1 .. 16, next-token and multi-token decoding take turns "
        "in one engine; beside them the bare matrix products, and what bandwidth and "
        "arithmetic allow. Let nothing else run meanwhile.",
    )
    parser.add_argument("part", nargs="?", default="talker", choices=PARTS, help="what to measure")
    parser.add_argument(
        "--size", nargs="+", default=["compact"], choices=SIZES, help="shapes (default compact)"
    )
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[1], metavar="N", help="rows at a time (default 1)"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, metavar="N", help="of which medians are taken (default 9)"
    )
    parser.add_argument(
        "--blocks", type=int, default=8, metavar="N", help="of each measurement (default 8)"
    )
    parser.add_argument("--out", metavar="STEM", help="write STEM.json, STEM.md and STEM.png")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it."""
    numbers = {"--rounds": [args.rounds], "--blocks": [args.blocks], "--batch": args.batch}
    for name, values in numbers.items():
        if min(values) < 1:
            raise UserError(f"{name} {min(values)}: give 1 or more")
    for end in (".json", ".md", ".png") if args.out else ():
        check_writable(args.out + end, "name another --out")
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.evaluation.speed import machine, report, talkers

    def told(text: str) -> None:
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    told("measuring the machine")
    best = machine.measure()
    rows = talkers.measure_talkers(
        args.size, args.batch, best, blocks=args.blocks, rounds=args.rounds, told=told
    )
    told("")
    made = provenance(sizes={"rounds": args.rounds, "blocks": args.blocks}, seeds={"weights": 0})
    result = report.rows_of(rows, best, made)
    print(report.page(result))
    if args.out:
        report.write(args.out, result)
    return 0
