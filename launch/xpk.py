"""Train on TPU slices of a GKE cluster that xpk made: build an image, submit the workload, follow
its log.

xpk queues the workload, places one job on each slice and restarts it when a worker was lost
(--restarts), not after an error of the program; training resumes by itself.
xpk itself: pip install xpk. The cluster: xpk cluster create --cluster=NAME --tpu-type=v5litepod-16
  --num-slices=1 ...
"""

import re
import sys

import common
import pods
from slices import parse_slice


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    pods.add_image(parser)
    parser.add_argument("--cluster", required=True, help="that `xpk cluster create` made")
    parser.add_argument(
        "--tpu",
        required=True,
        type=parse_slice,
        metavar="KIND:SHAPE",
        help="for example v5e:4x4, as in `mdmspeech plan`",
    )
    parser.add_argument(
        "--slices", type=int, default=1, help="how many; the data axis of the mesh goes over them"
    )
    parser.add_argument(
        "--priority", choices=("very-low", "low", "medium", "high", "very-high"), default="medium"
    )
    parser.add_argument("--restarts", type=int, default=50, help="how often it may be restarted")
    parser.add_argument("--spot", action="store_true", help="the cluster's nodes are spot ones")
    args = common.parse(parser, argv, bucket=True)
    if args.slices < 1 or args.restarts < 0:
        parser.error("--slices must be 1 or more, and --restarts 0 or more")

    where = [f"--project={args.project}", f"--zone={args.zone}"]
    script = common.Script(
        f"{args.name}: {args.config} on {args.slices} x {args.tpu.accelerator_type} by xpk"
    )
    common.preflight(
        script, args, f"--topology={args.tpu.name}", f"--slices={args.slices}", "--disks=empty"
    )
    region = re.sub(r"-[a-z]$", "", args.zone)  # xpk makes regional clusters
    there = [f"--project={args.project}", f"--location={region}"]
    script.run("gcloud", "container", "clusters", "get-credentials", args.cluster, *there)
    pods.unless_there(script, args.name, f"xpk workload delete --workload={args.name}")
    pods.image(script, args, "tpu,cloud,data", args.build)
    common.copy_local(script, args)
    script.note("Submit. Exit codes from 127 on restart it as well, by xpk's own rule.")
    grace = pods.GRACE_SPOT_S if args.spot else pods.GRACE_S
    script.run(
        "xpk", "workload", "create", f"--cluster={args.cluster}", *where, f"--workload={args.name}",
        f"--tpu-type={args.tpu.accelerator_type}", f"--num-slices={args.slices}",
        f"--docker-image={args.image}",
        f"--priority={args.priority}", f"--max-restarts={args.restarts}",
        f"--restart-on-exit-codes={common.STOPPED}",
        f"--termination-grace-period-seconds={grace}", f"--command={pods.command(args)}",
    )  # fmt: skip
    script.raw("fi")
    script.note("Follow the logs: the workload is a JobSet. To stop: xpk workload delete.")
    pods.follow(script, args.name, args.tpu.pods * args.slices)
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
