"""Train on a TPU pod slice by queued resources: ask, wait, start on all workers, and when it is
preempted ask again and resume.

Keep it running where it will not be closed (a small VM, tmux): it watches. If it is killed,
training goes on; starting it again finds the slice and follows. The code and the start script lie
beside the checkpoints in the bucket, from where every worker fetches them.
"""

import shlex
import sys

import common
from slices import parse_slice

_LOOP = """
refused=0 crashes=0
give_up() {{ echo "$1"; echo {left}; exit "$2"; }} >&2
while true; do
  state=$({describe} 2>/dev/null) || state=
  echo "$(date -u +%FT%TZ) {name}: ${{state:-not there}}"
  case "$state" in
    "")
      {create} || {{
        code=$?
        refused=$((refused + 1))
        [ "$refused" -le {retries} ] || give_up "it is refused again and again" "$code"
      }}
      ;;
    ACTIVE)
      refused=0
      if {start}; then
        code=0
        {follow} || code=$?
        case "$code" in
          0) break ;;
          255) echo "the connection was lost" >&2 ;;
          {try_again}) echo "a worker was lost or told to stop" >&2; {stop} || true ;;
          *)
            {stop} || true
            crashes=$((crashes + 1)); [ "$crashes" -le {retries} ] || give_up "training fails again and again" "$code"
            ;;
        esac
      fi
      ;;
    SUSPENDING|SUSPENDED|FAILED)
      # Preempted, or refused: what is left of it must go before it can be asked for again.
      {delete} || true
      ;;
  esac
  sleep {seconds}
done
"""


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    parser.add_argument(
        "--tpu",
        required=True,
        type=parse_slice,
        metavar="KIND:SHAPE",
        help="for example v5p:4x4x4, as in `mdmspeech plan`",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="cheaper, may be preempted at any time")
    kind.add_argument("--reserved", action="store_true", help="from your reservation")
    parser.add_argument(
        "--retries",
        type=int,
        default=3,
        metavar="N",
        help="give up after so many crashes that were no preemption",
    )
    parser.add_argument(
        "--poll", type=int, default=60, metavar="SECONDS", help="between looks at its state"
    )
    parser.add_argument(
        "--keep", action="store_true", help="do not delete it at the end (it goes on costing)"
    )
    args = common.parse(parser, argv, bucket=True)
    if args.retries < 0 or args.poll < 1:
        parser.error("--retries must be 0 or more, and --poll 1 or more")

    where = [f"--project={args.project}", f"--zone={args.zone}"]
    queue, vm = (
        ["gcloud", "compute", "tpus", "queued-resources"],
        ["gcloud", "compute", "tpus", "tpu-vm"],
    )
    place = f"{args.workdir.rstrip('/')}/launch"
    script = common.Script(
        f"{args.name}: {args.config} on {args.tpu.accelerator_type} by queued resources"
    )
    code = common.pack(script, args.name)
    start_file = f"{common.stage(args.name)}/worker.sh"
    script.file(start_file, common.worker(args, "tpu,cloud,data"))
    script.run("gcloud", "storage", "cp", code, start_file, f"{place}/")

    tier = ["--spot"] if args.spot else ["--reserved"] if args.reserved else []
    fetch = (
        f"mkdir -p {common.HOME} && cd {common.HOME} && gcloud storage cp "
        f"{shlex.quote(place)}/code.tgz {shlex.quote(place)}/worker.sh ."
    )
    begin = f"{fetch} && tar -xzf code.tgz && bash worker.sh"
    delete = shlex.join([*queue, "delete", args.name, *where, "--force", "--quiet"])
    create = [
        *queue,
        "create",
        args.name,
        f"--node-id={args.name}",
        *where,
        *args.tpu.gcloud(),
        f"--runtime-version={args.tpu.runtime}",
        *tier,
    ]
    script.note("Ask, wait, start, follow; again after every preemption.")
    script.raw(
        _LOOP.format(
            name=args.name,
            describe=shlex.join(
                [*queue, "describe", args.name, *where, "--format=value(state.state)"]
            ),
            create=shlex.join(create),
            start=shlex.join([*vm, "ssh", args.name, *where, "--worker=all", f"--command={begin}"]),
            follow=shlex.join(
                [
                    *vm,
                    "ssh",
                    args.name,
                    *where,
                    "--worker=0",
                    f"--command=cd {common.HOME} && {common.follow()}",
                ]
            ),
            stop=shlex.join(
                [
                    *vm,
                    "ssh",
                    args.name,
                    *where,
                    "--worker=all",
                    f"--command=cd {common.HOME} && {common.stop()}",
                ]
            ),
            delete=delete,
            try_again=common.TRY_AGAIN,
            retries=args.retries,
            seconds=args.poll,
            left=shlex.quote(
                "what is there is kept, to look at what went wrong, and costs; "
                f"delete it with: {delete}"
            ),
        )
    )
    script.note("Done.")
    script.raw(
        (f"echo {shlex.quote('the slice is kept and goes on costing; delete it with: ' + delete)}")
        if args.keep
        else delete
    )
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
