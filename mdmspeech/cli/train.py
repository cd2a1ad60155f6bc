"""`mdmspeech train`: run (or resume) one training stage, on one machine or, by the same command on
each, on many.
"""

import argparse
import sys

from mdmspeech.errors import UserError


def add(verbs) -> None:
    """Declares the verb and its options."""
    parser = verbs.add_parser(
        "train", help="train one stage from an experiment file; resumes by itself"
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help=(
            "experiment, for example experiments/compact_codec.py, or "
            "experiments/talker_8b.py:runlocal"
        ),
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="checkpoints, metrics, plots and samples go here; may be gs://BUCKET/...",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="corpus folder (default: $MDMSPEECH_HOME or ~/.cache/mdmspeech)",
    )
    parser.add_argument(
        "--system",
        metavar="DIR",
        help=(
            "train parts of this system folder (see `assemble`): its sizes and "
            "weights replace the experiment's"
        ),
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one setting, for example train.steps=200",
    )
    hosts = parser.add_argument_group(
        "several processes",
        (
            "not needed on TPU slices (VMs, GKE, xpk), in Slurm and under Open MPI, where they "
            "find each other; also JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"
        ),
    )
    hosts.add_argument(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help="address of process 0, reachable from all",
    )
    hosts.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="how many there are; 1: this one alone, whatever the machine says",
    )
    hosts.add_argument(
        "--process", type=int, default=-1, metavar="I", help="number of this one, from 0"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Does it."""
    from etils import epath

    from mdmspeech import xla_flags
    from mdmspeech.cli.experiment import (
        check_start,
        load_experiment,
        make_task,
        override,
        use_system,
    )
    from mdmspeech.training import distributed
    from mdmspeech.training.ranges import check_ranges

    if not args.workdir.strip():
        raise UserError("--workdir is empty: name a folder for this run")
    config = load_experiment(args.config)
    if args.system:
        use_system(config, args.system)
    for assignment in args.set:
        override(config, assignment)
    check_ranges(config)
    workdir = epath.Path(args.workdir).expanduser()
    if told := xla_flags.apply():  # before JAX looks for devices
        print(told, file=sys.stderr)
    with distributed.session(args.coordinator, args.processes, args.process):
        # Some of these ask JAX for its devices when they are imported.
        from mdmspeech.evaluation import samples
        from mdmspeech.training import loop

        check_start(config, workdir, args.system)
        task = make_task(config, workdir, args.data)
        task.show = samples.show(config, workdir, args.data)
        try:
            loop.train(config, task, workdir)
        except loop.NonFiniteError as error:
            raise UserError(
                f"{error}; look at the records, try a smaller optim.lr, or go on without them "
                "(--set train.on_nan=skip, or rollback)"
            ) from error
