"""`mdmspeech eval`: every score of a release, with tables and plots."""

import argparse


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "eval",
        help="score a release: hearing, speaking, codec, speed",
        description="Runs a release on the held-out test sets and writes results, tables and plots. Parts that are done are kept, so it can be "
        "stopped and started again.",
    )
    parser.add_argument(
        "--model", default="compact", metavar="NAME|DIR", help="a shipped release or a release folder (default: %(default)s)"
    )
    parser.add_argument("--data", metavar="DIR", help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)")
    parser.add_argument("-o", "--output", default="experiments/results", metavar="DIR", help="where results go (default: %(default)s)")
    parser.add_argument("--parts", metavar="A,B", help="only these parts (default: all)")
    parser.add_argument("--count", type=int, metavar="N", help="utterances a part (default: the number that the published figures use)")
    parser.add_argument("--force", action="store_true", help="make parts again that are done")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    from mdmspeech.evaluation.run import evaluate

    parts = tuple(args.parts.split(",")) if args.parts else None
    evaluate(args.model, args.data, args.output, parts=parts, count=args.count, force=args.force)
