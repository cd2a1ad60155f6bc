"""`mdmspeech train`: run (or resume) one training stage."""

import argparse
from pathlib import Path


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser("train", help="train one stage from an experiment file; resumes by itself")
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="experiment, for example experiments/compact_codec.py, or experiments/talker_8b.py:runlocal",
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics, plots and samples go here")
    parser.add_argument("--data", metavar="DIR", help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting, for example train.steps=200")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    from mdmspeech.cli.experiment import load_config, make_task, override
    from mdmspeech.evaluation import samples
    from mdmspeech.training import loop

    config = load_config(args.config)
    for assignment in args.set:
        override(config, assignment)
    workdir = Path(args.workdir).expanduser()
    task = make_task(config, workdir, args.data)
    task.show = samples.show(config, workdir, args.data)
    loop.run(config, task, workdir)
