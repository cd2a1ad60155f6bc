"""Train on a TPU pod slice by queued resources: ask, wait, start on all workers, and when it is
preempted ask again and resume.

Keep it running where it will not be closed (a small VM, tmux): it watches, and deletes the slice
when training is done, is given up, or has used up --max-hours. If it is killed, training goes on,
and nobody deletes the slice until the same command is started again: it finds the slice and
follows. The code and the start script lie beside the checkpoints in the bucket, from where every
worker fetches them.
"""

import sys

import common
import tpu_job


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    tpu_job.add_options(parser, retries=3)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="cheaper, may be preempted at any time")
    kind.add_argument("--reserved", action="store_true", help="from your reservation")
    args = tpu_job.parse(parser, argv)
    tier = ["--spot"] if args.spot else ["--reserved"] if args.reserved else []
    return tpu_job.finish(args, queued=True, create=tier)


if __name__ == "__main__":
    sys.exit(main())
