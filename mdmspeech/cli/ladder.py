"""`mdmspeech ladder`: a family of small runs, the scaling law through them, and a check that their
parametrisation transfers.
"""

import argparse
from pathlib import Path

from mdmspeech.errors import UserError
from mdmspeech.files import check_writable, write_text


def add(verbs) -> None:
    """Declares the verb, its jobs and their options."""
    parser = verbs.add_parser(
        "ladder",
        help="run a scaling ladder, and fit a law to it",
        description="Trains a family of sizes on a few budgets of tokens, measures each, fits "
        "L = E + A/N^alpha + B/D^beta and predicts what a larger one would reach.",
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    one = jobs.add_parser(
        "run",
        help="train and measure all rungs that are not done",
        description="For each size one run at a constant rate, and a decay from it for each budget. "
        "Killed and started again it goes on where it was. Rows go to WORKDIR/ladder.jsonl.",
    )
    _experiment(one)
    one.add_argument("--budgets", required=True, metavar="N,N", help="tokens, for example 5e5,1e6")
    one.add_argument("--workdir", required=True, metavar="DIR", help="folder for all runs")
    one.add_argument(
        "--data",
        metavar="DIR",
        help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)",
    )
    one.add_argument(
        "--speak",
        type=int,
        default=0,
        metavar="N",
        help="word errors at 1, 4 and 16 steps on N validation texts, too (needs mdmspeech[eval])",
    )
    one.add_argument(
        "--codec", default="compact", metavar="NAME", help="for --speak: the one of the tokens"
    )
    two = jobs.add_parser(
        "fit",
        help="fit the law to finished rungs",
        description="Writes the law with 95 % intervals, the largest size as the others predict it, "
        "a page and a picture.",
    )
    two.add_argument("results", metavar="RESULTS", help="ladder.jsonl of a run")
    two.add_argument(
        "--out",
        metavar="STEM",
        help="where to: STEM.json, STEM.md, STEM.png (default: beside the results)",
    )
    two.add_argument(
        "--target", default="mean", metavar="RATE", help="loss: mean, or at one rate of hiding, 0.5"
    )
    two.add_argument(
        "--count", default="non_embedding", metavar="WHAT", help="N: non_embedding or total"
    )
    two.add_argument(
        "--predict",
        action="append",
        default=[],
        metavar="N:D",
        help="also what N parameters would reach on D tokens, for example 5e8:2e10",
    )
    three = jobs.add_parser(
        "check",
        help="the coordinate check: do activations grow with the width?",
        description="A few updates of each width on random data; how far activations have moved.",
    )
    _experiment(three)
    three.add_argument("--steps", type=int, default=5, metavar="N", help="updates (default 5)")
    parser.set_defaults(run=run)


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        default="experiments/ladder.py",
        metavar="FILE",
        help="experiment with get_config('width=512,layers=4,tokens=2e9'); more of its settings may "
        "follow a colon (default: %(default)s)",
    )
    parser.add_argument("--widths", required=True, metavar="N,N", help="for example 64,96,128,256")
    parser.add_argument(
        "--layers", default="4", metavar="N,N", help="for example 2,4,8 (default 4)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting, for example optim.lr=1e-3",
    )


def run(args: argparse.Namespace) -> None:
    """Does it."""
    {"run": run_all, "fit": fit, "check": check}[args.job](args)


def run_all(args: argparse.Namespace) -> None:
    """Does `ladder run`."""
    from mdmspeech.cli.experiment import make_task
    from mdmspeech.scaling.ladder import RESULTS, rungs
    from mdmspeech.scaling.measures import measure
    from mdmspeech.scaling.runner import run_ladder
    from mdmspeech.training.loop import NonFiniteError

    if not args.workdir.strip():
        raise UserError("--workdir is empty: name a folder for the ladder")
    if args.speak < 0:
        raise UserError(f"--speak {args.speak}: give a number of texts, or 0 for none")
    workdir = Path(args.workdir).expanduser()
    found = rungs(
        _config_of(args),
        _numbers("--widths", args.widths, whole=True),
        _numbers("--layers", args.layers, whole=True),
        _numbers("--budgets", args.budgets),
    )
    if "://" in args.workdir:
        raise UserError(f"--workdir {args.workdir}: a ladder needs a folder on a disk; name one")
    check_writable(workdir, "name another --workdir", folder=True)
    extra = _speaking(args, found[0].config) if args.speak else None
    tasks = lambda config, folder: make_task(config, folder, args.data)
    measured = lambda config, folder: measure(config, folder, tasks, args.data, extra)
    try:
        rows = run_ladder(found, workdir, tasks, measured)
    except NonFiniteError as error:
        raise UserError(f"{error}; try a smaller --set optim.lr=") from error
    for row in rows:
        print(
            f"{row['rung']}: N {row['parameters']['non_embedding']:,}, D {row['tokens']['seen']:,} "
            f"({row['tokens']['passes']:.2f} passes), C {row['flops']:.3g}, nats {row['nats']['mean']:.4f}"
        )
    print(f"{workdir / RESULTS}: {len(rows)} rungs")


def fit(args: argparse.Namespace) -> None:
    """Does `ladder fit`."""
    from mdmspeech.evaluation.provenance import provenance
    from mdmspeech.evaluation.report import write_json
    from mdmspeech.scaling import report
    from mdmspeech.scaling.results import COUNTS, read_rows

    if args.count not in COUNTS:
        raise UserError(f"--count {args.count}: give {' or '.join(COUNTS)}")
    points = [_point(text) for text in args.predict]
    rows = read_rows(args.results)
    stem = Path(args.out or str(Path(args.results).with_suffix(""))).expanduser()
    if stem.with_suffix(".json") == Path(args.results):
        raise UserError(f"--out {args.out}: that would replace the results; name another")
    check_writable(stem.with_name(stem.name + ".json"), "name another --out")
    result = report.summary(rows, args.target, args.count, points)
    result["made"] = provenance(
        sizes={"runs": len(rows), "bootstrap draws": 200}, seeds={"the bootstrap": 0}
    )
    write_json(stem.with_name(stem.name + ".json"), result)
    text = report.page(result, f"{stem.name}.png")
    write_text(stem.with_name(stem.name + ".md"), text)
    report.draw(result, stem.with_name(stem.name + ".png"))
    print(text)


def check(args: argparse.Namespace) -> None:
    """Does `ladder check`."""
    from mdmspeech.cli.experiment import make_task
    from mdmspeech.scaling import coordinates

    config_of, (depth, *more) = _config_of(args), _numbers("--layers", args.layers, whole=True)
    if more:
        raise UserError("--layers: a coordinate check is of one depth; give one number")
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: give 1 or more")
    widths = _numbers("--widths", args.widths, whole=True)
    moved = {
        width: coordinates.moved(
            make_task(config := config_of(width, depth, 1e6), Path("none")), config, args.steps
        )
        for width in widths
    }
    print(coordinates.table(moved))


def _config_of(args: argparse.Namespace):
    """(width, layers, tokens) -> config, with what --set says."""
    from mdmspeech.cli.experiment import load_experiment, override
    from mdmspeech.training.ranges import check_ranges

    def config_of(width: int, layers: int, tokens: float):
        joint = "," if ".py:" in args.config else ":"
        config = load_experiment(
            f"{args.config}{joint}width={width},layers={layers},tokens={tokens:g}"
        )
        for assignment in args.set:
            override(config, assignment)
        check_ranges(config)
        return config

    return config_of


def _speaking(args: argparse.Namespace, config):
    """What measures word errors; looked for before anything is trained."""
    from mdmspeech.cli.release import open_codec
    from mdmspeech.evaluation.recogniser import Recogniser
    from mdmspeech.scaling.speaking import texts_of, word_errors

    codec, made_by = open_codec(args.codec)
    texts = texts_of(args.data, tuple(config.data.parts), args.speak, made_by)
    return word_errors(texts, codec, Recogniser("base"))


def _numbers(option: str, text: str, whole: bool = False) -> list:
    """Numbers between commas."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text!r}: give numbers with commas between them") from error
    for number in found:
        if not 1 <= number <= 1e15 or (whole and number != round(number)):
            kind = "whole numbers" if whole else "numbers"
            raise UserError(f"{option} {text!r}: give {kind} from 1 to 1e15")
    return [int(number) for number in found] if whole else found


def _point(text: str) -> tuple[float, float]:
    """N and D of "5e8:2e10"."""
    size, _, tokens = text.partition(":")
    try:
        point = float(size), float(tokens)
    except ValueError as error:
        raise UserError(f"--predict {text!r}: give N:D, for example 5e8:2e10") from error
    if not all(0 < x < 1e18 for x in point):
        raise UserError(f"--predict {text!r}: both are numbers above 0")
    return point
