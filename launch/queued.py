"""Train on a TPU pod slice by queued resources: ask, wait, start on all workers, and when it is
preempted ask again and resume.

Keep it running where it will not be closed (a small VM, tmux): it watches, and deletes the slice
when training is done, is given up, or has used up --max-hours. If it is killed, training goes on,
and nobody deletes the slice until the same command is started again: it finds the slice and
follows. The code and the start script lie beside the checkpoints in the bucket, from where every
worker fetches them.
"""

import math
import sys

import common
import slices
import tpu_job

# that a slice outlives its hours, if the cloud has to delete it: the watcher saves first
_TO_SAVE_S = 1800


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    tpu_job.add_options(parser, retries=3)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="cheaper, may be preempted at any time")
    kind.add_argument("--reserved", action="store_true", help="from your reservation")
    kind.add_argument(
        "--flex-start",
        action="store_true",
        help="the cloud itself deletes the slice, half an hour after --max-hours, and after 7 days at the "
        "latest (it is asked for again then); v5e and v6e in some zones, by gcloud alpha",
    )
    args = tpu_job.parse(parser, argv)
    tier = ["--spot"] if args.spot else ["--reserved"] if args.reserved else []
    if args.flex_start:
        seconds = math.ceil(min(args.max_hours * 3600 + _TO_SAVE_S, slices.FLEX_START_S))
        tier = ["--provisioning-model=flex-start", f"--max-run-duration={seconds}s"]
    return tpu_job.finish(args, queued=True, create=tier, alpha=args.flex_start)


if __name__ == "__main__":
    sys.exit(main())
