"""Train on one TPU VM (or one slice) that is there at once: create, copy the code, install, start,
follow the log, delete.

For minutes or hours of work with few chips. Larger slices, and anything that waits for capacity or
may be preempted: queued.py.
"""

import shlex
import sys

import common
from slices import parse_slice


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    parser.add_argument(
        "--tpu",
        required=True,
        type=parse_slice,
        metavar="KIND:SHAPE",
        help="for example v5e:2x4, as in `mdmspeech plan`",
    )
    parser.add_argument(
        "--spot", action="store_true", help="cheaper, may be taken away at any time"
    )
    parser.add_argument(
        "--keep", action="store_true", help="do not delete it at the end (it goes on costing)"
    )
    args = common.parse(parser, argv, bucket=True)

    where = [f"--project={args.project}", f"--zone={args.zone}"]
    vm = ["gcloud", "compute", "tpus", "tpu-vm"]
    script = common.Script(f"{args.name}: {args.config} on one {args.tpu.accelerator_type}")
    code = common.pack(script, args.name)
    script.file(f"{common.stage(args.name)}/worker.sh", common.worker(args, "tpu,cloud,data"))

    script.note("The machine, unless it is there from an earlier start.")
    create = [
        *vm,
        "create",
        args.name,
        *where,
        *args.tpu.gcloud(),
        f"--version={args.tpu.runtime}",
        *(["--spot"] if args.spot else []),
    ]
    script.raw(
        f"{shlex.join([*vm, 'describe', args.name, *where])} >/dev/null 2>&1 || "
        f"{shlex.join(create)}"
    )

    script.note("Copy, install and start, on every worker.")
    script.run(
        *vm,
        "scp",
        code,
        f"{common.stage(args.name)}/worker.sh",
        f"{args.name}:",
        *where,
        "--worker=all",
    )
    begin = (
        f"mkdir -p {common.HOME} && cd {common.HOME} && mv ../code.tgz ../worker.sh "
        ". && bash worker.sh"
    )
    script.run(*vm, "ssh", args.name, *where, "--worker=all", f"--command={begin}")

    script.note(
        "Follow the log of worker 0 until training ends; interrupting this does "
        "not stop it. Its exit code decides what comes next."
    )
    script.raw("code=0")
    script.raw(
        shlex.join(
            [
                *vm,
                "ssh",
                args.name,
                *where,
                "--worker=0",
                f"--command=cd {common.HOME} && {common.follow()}",
            ]
        )
        + " || code=$?"
    )
    delete = shlex.join([*vm, "delete", args.name, *where, "--quiet"])
    if args.keep:
        script.raw(
            "echo "
            f"{shlex.quote('the machine is kept and goes on costing; delete it with: ' + delete)}"
        )
    else:
        script.raw(f'if [ "$code" = 0 ]; then {delete}')
        script.raw(
            "else echo "
            f"{shlex.quote('the machine is kept, to look at what went wrong; delete it with: ' + delete)} "
            ">&2; fi"
        )
    script.raw('exit "$code"')
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
