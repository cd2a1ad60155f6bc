"""Train on TPU slices of a GKE cluster that xpk made: build an image, submit the workload, follow
its log.

xpk queues the workload, places one job on each slice and restarts it when a worker was lost
(--restarts), not after an error of the program; training resumes by itself.
xpk itself: pip install xpk. The cluster: xpk cluster create --cluster=NAME --tpu-type=v5litepod-16
  --num-slices=1 ...
"""

import math
import sys

import accounts
import common
import pods


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    pods.add_options(parser)
    parser.add_argument(
        "--priority", choices=("very-low", "low", "medium", "high", "very-high"), default="medium"
    )
    args = pods.parse(parser, argv)
    if args.tpu.kind == "v5e" and args.tpu.chips < 8:
        parser.error(f"--tpu {args.tpu.name}: xpk has v5e slices from 8 chips on; give v5e:2x4")
    if any("\n" in setting for setting in args.set):
        parser.error(
            "--set: xpk writes the command on one line of its manifest, so no line ends in it"
        )

    script = common.Script(
        f"{args.name}: {args.config} on {args.slices} x {args.tpu.accelerator_type} by xpk"
    )
    script.run(
        *["gcloud", "container", "clusters", "get-credentials", args.cluster, *pods.where(args)]
    )
    if not args.no_preflight:
        accounts.look_up(script, args.project, accounts.of_nodes(args, pods.where(args)))
    common.preflight(
        script, args, f"--topology={args.tpu.name}", f"--slices={args.slices}", "--disks=empty",
        account=True,
    )  # fmt: skip
    pods.unless_there(script, args.name, f"xpk workload delete --workload={args.name}")
    pods.image(script, args, "tpu,cloud,data", args.build)
    common.copy_local(script, args)
    script.note("Submit. Exit codes from 127 on restart it as well, by xpk's own rule.")
    grace = pods.GRACE_SPOT_S if args.spot else pods.GRACE_S
    run = pods.command(args, math.ceil(args.max_hours * 3600) + pods.OVERTIME_S)
    kind = ["--spot"] * args.spot + ["--flex"] * args.flex_start
    kind += [f"--reservation={args.reservation}"] if args.reservation else []
    script.run(
        "xpk", "workload", "create", f"--cluster={args.cluster}", f"--project={args.project}",
        f"--zone={args.zone}", f"--workload={args.name}", *kind,
        f"--tpu-type={args.tpu.xpk}", f"--num-slices={args.slices}",
        f"--docker-image={args.image}",
        f"--priority={args.priority}", f"--max-restarts={args.restarts}",
        f"--restart-on-exit-codes={common.STOPPED}",
        f"--termination-grace-period-seconds={grace}", f"--command={pods.as_kubernetes_reads(run)}",
    )  # fmt: skip
    script.raw("fi")
    script.note("Follow the logs: the workload is a JobSet. To stop: xpk workload delete.")
    pods.follow(script, args.name, args.tpu.pods * args.slices)
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
