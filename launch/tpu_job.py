"""What the launchers of TPU VMs share: the options, the files for the workers, and the watcher's
commands.
"""

import argparse
import json
import re
import shlex
from typing import Any

import accounts
import common
import watch
from slices import parse_slice

_TPUS = ["gcloud", "compute", "tpus"]
_QUEUED, _VM = [*_TPUS, "queued-resources"], [*_TPUS, "tpu-vm"]


def add_options(parser: argparse.ArgumentParser, retries: int) -> None:
    """Those that `finish` reads."""
    parser.add_argument(
        "--tpu",
        required=True,
        type=parse_slice,
        metavar="KIND:SHAPE",
        help="for example v5p:4x4x4, as in `mdmspeech plan`",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=retries,
        metavar="N",
        help="give up after so many failures in a row that brought no new checkpoint, and after so "
        "many refusals in a row (default %(default)s)",
    )
    common.add_hours(
        parser, 72.0, "delete it after so many hours, those of earlier slices of this run included"
    )
    parser.add_argument(
        "--service-account",
        default="",
        metavar="EMAIL",
        help="of the machines, which reads and writes the buckets (default: Compute Engine's own of the "
        "project)",
    )
    parser.add_argument(
        "--poll", type=int, default=60, metavar="SECONDS", help="between looks at its state"
    )
    parser.add_argument(
        "--keep", action="store_true", help="do not delete it at the end (it goes on costing)"
    )


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parsed and checked."""
    args = common.parse(parser, argv, bucket=True)
    if args.retries < 0 or args.poll < 1:
        parser.error("--retries must be 0 or more, and --poll 1 or more")
    if args.service_account and not re.fullmatch(r"[\w.-]+@[\w.-]+", args.service_account):
        parser.error(f"--service-account {args.service_account}: give its e-mail address")
    return args


def finish(
    args: argparse.Namespace, *, queued: bool, create: list[str], alpha: bool = False
) -> int:
    """Writes the script; runs it with --go.

    Args:
      queued: ask by queued resources, else for a TPU VM at once.
      create: options that only this launcher gives to what asks for the slice.
      alpha: only gcloud's alpha commands have them.
    """
    how = "by queued resources" if queued else "at once"
    script = common.Script(f"{args.name}: {args.config} on {args.tpu.accelerator_type} {how}")
    if not args.no_preflight:
        accounts.look_up(script, args.project, accounts.given(args.service_account))
    topology = f"--topology={args.tpu.name}"
    common.preflight(script, args, topology, "--disks=empty", account=True)
    code = common.pack(script, args.name)
    folder, place = common.stage(args.name), f"{args.workdir.rstrip('/')}/launch"
    worker = common.worker(args, "tpu,cloud,data", logs=f"{args.workdir.rstrip('/')}/logs")
    script.file(f"{folder}/worker.sh", worker)
    script.run("gcloud", "storage", "cp", code, f"{folder}/worker.sh", f"{place}/")
    common.copy_local(script, args)
    script.note("What the watcher runs: ask, wait, start, follow, delete.")
    script.file(f"{folder}/watch.json", json.dumps(_job(args, queued, create, alpha), indent=1))
    script.note(
        f"Watch. Interrupting it stops nothing; the same command goes on. Its log is in {folder}/logs, "
        f"those of all workers in {args.workdir.rstrip('/')}/logs."
    )
    script.raw(f"exec {shlex.join([common.python(), 'launch/watch.py', f'{folder}/watch.json'])}")
    return common.finish(script, args)


def _job(args: argparse.Namespace, queued: bool, create: list[str], alpha: bool) -> dict[str, Any]:
    """The fields of `watch.Job`."""
    where = [f"--project={args.project}", f"--zone={args.zone}"]
    asked, version = (_QUEUED, "--runtime-version") if queued else (_VM, "--version")
    run, place = args.workdir.rstrip("/"), f"{args.workdir.rstrip('/')}/launch"

    def on(worker: str, command: str) -> str:
        ssh = [*_VM, "ssh", args.name, *where, "--quiet", f"--worker={worker}"]
        return shlex.join([*ssh, f"--command={command}"])

    there = f"cd {common.HOME}"
    fetch = (
        f"mkdir -p {common.HOME} && {there} && gcloud storage cp "
        f"{shlex.quote(place)}/code.tgz {shlex.quote(place)}/worker.sh ."
    )
    state = "value(state.state)" if queued else "value(state)"
    describe = lambda what, form: shlex.join(
        [*what, "describe", args.name, *where, f"--format={form}"]
    )
    asking = [*(["gcloud", "alpha", *asked[1:]] if alpha else asked), "create", args.name, *where]
    asking += [f"--node-id={args.name}"] if queued else []
    asking += [*args.tpu.gcloud(), f"{version}={args.tpu.runtime}", *create]
    if args.service_account:
        asking.append(f"--service-account={args.service_account}")
    force = ["--force"] if queued else []
    return dict(
        name=args.name,
        kind="queuedResources" if queued else "nodes",
        ready="ACTIVE" if queued else "READY",
        lost=["SUSPENDING", "SUSPENDED"] if queued else ["PREEMPTED", "TERMINATED"],
        refused=["FAILED"] if queued else [],
        describe=describe(asked, state),
        created=describe(_VM, "value(createTime)"),
        create=shlex.join(asking),
        start=on("all", f"{fetch} && tar -xzf code.tgz && bash worker.sh"),
        follow=on("0", f"{there} && {common.follow(watch.LINE)}"),
        tails=on("all", f"{there} && tail -n 40 run.log"),
        stop=on("all", f"{there} && {common.stop()}"),
        delete=shlex.join([*asked, "delete", args.name, *where, *force, "--quiet"]),
        progress=shlex.join(["gcloud", "storage", "cat", f"{run}/ledger.json"]),
        read_ledger=shlex.join(["gcloud", "storage", "cat", f"{place}/slices.json"]),
        write_ledger=shlex.join(["gcloud", "storage", "cp", "-", f"{place}/slices.json"]),
        logs=f"{common.stage(args.name)}/logs",
        retries=args.retries,
        poll=args.poll,
        max_hours=args.max_hours,
        keep=args.keep,
    )
