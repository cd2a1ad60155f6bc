"""Train on GPU nodes of a Slurm cluster: copy the code to the shared file system, install it there,
submit, follow the log.

One process a GPU, as JAX expects it under Slurm; they find each other by Slurm's variables. Before
its time is up, or when it is preempted, the job saves and queues itself again, and goes on from
there; so it does when a node was lost. It ends when training is done, or has an error of its own.
"""

import re
import shlex
import sys
from typing import Any

import common

# Of several tasks srun gives the largest exit code. An error of one task must count more than those
# of the others, which have lost it (75, or killed by srun: 137).
_OWN_ERROR = 200


def batch(args: Any) -> str:
    """The sbatch script.

    Signals go to the tasks, never to srun: at SIGTERM srun kills its tasks before they have saved.
    Without "B:" --signal is sent to the tasks of all steps (slurm.schedmd.com/sbatch.html#OPT_signal),
    as `scancel --signal` and preemption do. With proctrack/cgroup it reaches the first process of a
    task alone, with others all of them; the shell passes it on, and training takes it twice.

    Args:
      args: with name, nodes, gpus, time, partition, account, constraint, grace, retries, and what
        the training command needs.
    """
    options = [
        f"--job-name={args.name}",
        f"--nodes={args.nodes}",
        f"--ntasks-per-node={args.gpus}",
        f"--gpus-per-node={args.gpus}",
        f"--cpus-per-task={args.cpus}",
        f"--time={args.time}",
        f"--signal=TERM@{args.grace}",
        "--requeue",
        "--open-mode=append",
        f"--output={args.name}.log",
    ]
    options += [
        f"--{name}={value}"
        for name in ("partition", "account", "constraint")
        if (value := getattr(args, name))
    ]
    own_error = (
        f'case "$code" in 0|{common.TRY_AGAIN}) ;; *) [ "$code" -gt 99 ] || '
        f"code=$((code + {_OWN_ERROR})) ;; esac"
    )
    task = (
        f"{common.supervised(common.train(args, 'venv/bin/mdmspeech'), forward=True)}; code=$?; "
        f"{own_error}; exit $code"
    )
    return (
        "\n".join(
            [
                "#!/usr/bin/env bash",
                *(f"#SBATCH {option}" for option in options),
                "set -uo pipefail",
                "# To this shell (scancel --batch): passed on to the tasks.",
                """trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM""",
                # srun does not take --cpus-per-task from the job since 22.05
                f"srun --cpus-per-task={args.cpus} --kill-on-bad-exit=1 "
                f"bash -c {shlex.quote(task)} &",
                "step=$!",
                'ends=$(scontrol --oneliner show job "$SLURM_JOB_ID" | sed -n "s/.*EndTime=\\([^ ]*\\).*/\\1/p")',
                'wait "$step"; code=$?',
                'while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done',
                f'[ "$code" -le {_OWN_ERROR} ] || exit $((code - {_OWN_ERROR}))',
                "# Cancelled (scancel), which tells the tasks to stop as the end of its time does: Slurm",
                "# is ending the job, and its time is not up.",
                'state=$(scontrol --oneliner show job "$SLURM_JOB_ID")',
                'late=$(($(date +%s) >= $(date -d "${ends:-2100-01-01}" +%s 2>/dev/null || echo 9999999999)))',
                'if [ "$late" = 0 ]; then',
                '  case "$state" in *JobState=CANCELLED*|*JobState=COMPLETING*) exit "$code" ;; esac',
                "fi",
                "# Its time was up, it was preempted, or a node was lost: once more, if it gets on.",
                f'short={args.name}.short; [ "$SECONDS" -lt {common.QUICK_S} ] || rm -f "$short"',
                f'case "$code" in {common.TRY_AGAIN})',
                '  echo >> "$short"',
                f'  if [ "$(wc -l < "$short")" -le {args.retries} ]; then',
                '    scontrol requeue "$SLURM_JOB_ID"',
                "  else",
                '    echo "ended again and again within minutes: not queued any more" >&2',
                '    rm -f "$short"',
                "  fi ;;",
                "esac",
                'exit "$code"',
            ]
        )
        + "\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=False)
    parser.add_argument("--host", default="", help="login node, USER@HOST; default: this machine")
    parser.add_argument(
        "--folder", required=True, help="for the code: an absolute path on the shared file system"
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=8, help="in a node")
    parser.add_argument("--cpus", type=int, default=8, help="for each GPU")
    parser.add_argument(
        "--time", default="24:00:00", help="after which the job saves and queues itself again"
    )
    parser.add_argument(
        "--grace", type=int, default=300, metavar="SECONDS", help="to save before the time is up"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=10,
        metavar="N",
        help="do not queue it again after so many lives in a row of less than fifteen minutes",
    )
    parser.add_argument("--partition", default="")
    parser.add_argument("--account", default="")
    parser.add_argument("--constraint", default="")
    common.add_hours(
        parser,
        0.0,
        "end the run, saved, after so many hours of training, those of earlier starts included",
        in_run=True,
    )
    args = common.parse(parser, argv, bucket=False)
    if args.host.startswith("-") or re.search(r"\s", args.host):
        parser.error(f"--host {args.host!r}: give USER@HOST")
    if not args.folder.startswith("/"):
        parser.error(f"--folder {args.folder}: an absolute path that all nodes see")
    if min(args.nodes, args.gpus, args.cpus, args.grace) < 1:
        parser.error("--nodes, --gpus, --cpus and --grace must be 1 or more")
    if args.retries < 0:
        parser.error("--retries must be 0 or more")
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", args.time):
        parser.error(f"--time {args.time!r}: write HOURS:MM:SS or DAYS-HOURS:MM:SS")
    for name in ("partition", "account", "constraint"):
        if re.search(r"\s", getattr(args, name)):
            parser.error(f"--{name} {getattr(args, name)!r}: no spaces")

    script = common.Script(
        f"{args.name}: {args.config} on {args.nodes} x {args.gpus} GPUs by Slurm"
    )
    common.preflight(script, args, f"--chips={args.nodes * args.gpus}", "--disks=there")
    script.note("The tracked files as they lie here, changes that are not committed included.")
    there = lambda command: script.run(
        *(["ssh", args.host, command] if args.host else ["bash", "-c", command])
    )
    target = f"{args.host}:{args.folder}" if args.host else args.folder
    folder = shlex.quote(args.folder)
    there(f"mkdir -p {folder}")
    script.raw(
        f"git ls-files -z | rsync --archive --from0 --files-from=- ./ {shlex.quote(target + '/')}"
    )
    script.run("mkdir", "-p", common.stage(args.name))
    local = f"{common.stage(args.name)}/{args.name}.sbatch"
    script.file(local, batch(args))
    script.run("rsync", "--archive", local, f"{target}/{args.name}.sbatch")
    script.note(
        "Install once for all nodes, submit, follow. To stop: scancel "
        "--signal=TERM JOB (it saves and queues itself again), or scancel JOB."
    )
    extras = "gpu,data,cloud" if common.uses_bucket(args) else "gpu,data"
    there(
        f"set -e; cd {folder}\n{common.install(extras)}\nsbatch "
        f"{shlex.quote(args.name + '.sbatch')}"
    )
    there(
        f"cd {folder} && touch {shlex.quote(args.name + '.log')} && tail -n +1 -F "
        f"{shlex.quote(args.name + '.log')}"
    )
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
