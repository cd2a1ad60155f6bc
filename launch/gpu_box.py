"""Train on one machine with GPUs, this one or one that ssh reaches: copy the code, install, start,
follow the log.

Training outlives the connection: interrupting the launcher stops only the following, and starting
it again follows on.
"""

import re
import shlex
import sys

import common


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=False)
    parser.add_argument(
        "--host", default="", help="USER@HOST or a name of your ssh config; default: this machine"
    )
    parser.add_argument(
        "--folder", default=common.HOME, help="for the code, below the home folder there"
    )
    parser.add_argument(
        "--extras",
        default="gpu,data",
        help="what to install: gpu,data[,cloud for a workdir or data in a bucket]",
    )
    parser.add_argument(
        "--gpus", type=int, default=0, help="how many it has, for the preflight (default: unknown)"
    )
    common.add_hours(
        parser,
        0.0,
        "end the run, saved, after so many hours of training, those of earlier starts included",
        in_run=True,
    )
    args = common.parse(parser, argv, bucket=False)
    if args.gpus < 0:
        parser.error("--gpus must be 0 or more")
    if args.host.startswith("-") or re.search(r"\s", args.host):
        parser.error(f"--host {args.host!r}: give USER@HOST")
    if args.folder.startswith(("/", "-")) or ".." in args.folder.split("/"):
        parser.error(f"--folder {args.folder}: a folder below the home folder")
    if common.uses_bucket(args) and "cloud" not in args.extras.split(","):
        args.extras += ",cloud"

    script = common.Script(f"{args.name}: {args.config} on {args.host or 'this machine'}")
    common.preflight(script, args, f"--chips={args.gpus}", "--disks=there")
    script.note("The tracked files as they lie here, changes that are not committed included.")
    folder = shlex.quote(args.folder)

    def there(command: str) -> str:
        return shlex.join(
            ["ssh", args.host, command] if args.host else ["bash", "-c", f'cd "$HOME" && {command}']
        )

    target = f"{args.host}:{args.folder}/" if args.host else None
    script.raw(there(f"mkdir -p {folder}"))
    copy = "git ls-files -z | rsync --archive --from0 --files-from=- ./ "
    script.raw(copy + (shlex.quote(target) if target else f'"$HOME"/{folder}/'))
    script.run("mkdir", "-p", common.stage(args.name))
    local = f"{common.stage(args.name)}/worker.sh"
    script.file(local, common.worker(args, args.extras, unpack=False))
    script.raw(
        f"rsync --archive {shlex.quote(local)} "
        + (shlex.quote(target + "worker.sh") if target else f'"$HOME"/{folder}/worker.sh')
    )
    script.note(
        "Install and start; follow the log until training ends. To stop it (it "
        "saves first): kill -- -$(cat run.pid) there."
    )
    script.raw(there(f"cd {folder} && bash worker.sh"))
    script.raw(there(f"cd {folder} && {common.follow()}"))
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
