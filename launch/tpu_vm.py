"""Train on one TPU VM (or one slice) that is there at once: create, copy the code, install, start,
follow the log, delete.

For minutes or hours of work with few chips. Larger slices, and anything that waits for capacity or
may be preempted: queued.py. As there, the same command started again goes on following, and
--max-hours bounds what it can cost as long as this runs.
"""

import sys

import common
import tpu_job


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    tpu_job.add_options(parser, retries=1)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="cheaper, may be taken away at any time")
    kind.add_argument("--reserved", action="store_true", help="from your reservation")
    args = tpu_job.parse(parser, argv)
    tier = ["--spot"] if args.spot else ["--reserved"] if args.reserved else []
    return tpu_job.finish(args, queued=False, create=tier)


if __name__ == "__main__":
    sys.exit(main())
