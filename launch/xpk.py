"""Train on TPU slices of a GKE cluster that xpk made: build an image, submit the workload, follow
its log.

xpk queues the workload, places one job on each slice and restarts it after preemption (--restarts);
training resumes by itself.
xpk itself: pip install xpk. The cluster: xpk cluster create --cluster=NAME --tpu-type=v5litepod-16
  --num-slices=1 ...
"""

import re
import sys

import common
from slices import parse_slice


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    common.add_image(parser)
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
    args = common.parse(parser, argv, bucket=True)
    if args.slices < 1 or args.restarts < 0:
        parser.error("--slices must be 1 or more, and --restarts 0 or more")

    where = [f"--project={args.project}", f"--zone={args.zone}"]
    script = common.Script(
        f"{args.name}: {args.config} on {args.slices} x {args.tpu.accelerator_type} by xpk"
    )
    common.image(script, args, "tpu,cloud,data", args.build)
    script.note("Submit. A pod that is taken away gets two minutes to save.")
    script.run(
        "xpk", "workload", "create", f"--cluster={args.cluster}", *where, f"--workload={args.name}",
        f"--tpu-type={args.tpu.accelerator_type}", f"--num-slices={args.slices}",
        f"--docker-image={args.image}",
        f"--priority={args.priority}", f"--max-restarts={args.restarts}",
        f"--restart-on-exit-codes={common.STOPPED}",
        "--termination-grace-period-seconds=120", f"--command={common.in_pod(args)}",
    )  # fmt: skip
    script.note("Follow the logs. To stop: xpk workload delete.")
    region = re.sub(r"-[a-z]$", "", args.zone)  # xpk makes regional clusters
    script.run(
        "gcloud",
        "container",
        "clusters",
        "get-credentials",
        args.cluster,
        f"--project={args.project}",
        f"--location={region}",
    )
    common.pod_logs(script, f"xpk.google.com/workload={args.name}", args.tpu.pods * args.slices)
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
