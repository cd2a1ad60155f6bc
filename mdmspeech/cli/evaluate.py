"""`mdmspeech eval`: every score of a release, with tables and plots."""

import argparse

from mdmspeech.cli.voice_options import RELEASE, RELEASE_HELP
from mdmspeech.errors import UserError
from mdmspeech.files import check_writable


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "eval",
        help="score a release: hearing, speaking, codec, speed",
        description="Runs a release on the held-out test sets and writes results, tables "
        "and plots. Parts that are done are kept, so it can be "
        "stopped and started again; --parts with --force makes some of them "
        "anew, and the tables show the old figures beside the new.",
    )
    parser.add_argument(
        "--model",
        default="compact",
        metavar=RELEASE,
        help=f"{RELEASE_HELP} (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="experiments/results",
        metavar="DIR",
        help="where results go (default: %(default)s)",
    )
    parser.add_argument(
        "--parts",
        metavar="A,B",
        help=(
            "only these of codec, hearing, recognition, knowledge, speaking, reading, latency "
            "(default: all); "
            "the others keep their figures"
        ),
    )
    parser.add_argument(
        "--split",
        default="test",
        metavar="test|val",
        help="val: codec, recognition and knowledge on validation data, to choose between releases "
        "by; writes NAME-val.json (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="utterances a part (default: the number that the published figures use)",
    )
    parser.add_argument(
        "--own",
        metavar="NAME",
        help="a voice made from own recordings NAME: score only that, on their held-out part",
    )
    parser.add_argument("--force", action="store_true", help="make parts again that are done")
    parser.add_argument(
        "--rejudge",
        action="store_true",
        help="judge the kept answers again, without the model, and write the tables anew",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    if args.count is not None and args.count < 1:
        raise UserError(f"--count {args.count}: give 1 or more utterances")
    if args.split != "test" and (args.own or args.rejudge):
        other = "--own" if args.own else "--rejudge"
        raise UserError(f"--split {args.split} and {other}: leave one out, {other} is of test data")
    check_writable(args.output, "name another -o", folder=True)
    if args.own:
        _own(args)
        return
    from mdmspeech.evaluation.run import evaluate, rejudge

    if args.rejudge:
        rejudge(args.model, args.output)
        return
    parts = tuple(args.parts.split(",")) if args.parts else None
    evaluate(
        args.model,
        args.data,
        args.output,
        parts=parts,
        count=args.count,
        force=args.force,
        split=args.split,
    )


def _own(args: argparse.Namespace) -> None:
    from mdmspeech.data.storage.record_store import data_root
    from mdmspeech.evaluation.user_voice import report, score_own

    if args.model == "compact":
        raise UserError(
            "--own needs the release made from your recordings: --model "
            "~/.cache/mdmspeech/runs/NAME"
        )
    samples = data_root(args.data) / "evaluation" / args.own
    print(report(score_own(args.model, args.own, args.data, count=args.count, samples=samples)))
    print(f"to listen to: {samples}")
