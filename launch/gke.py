"""Train on TPU slices of any GKE cluster with a JobSet: build an image, render the manifest, apply
it, follow its log.

One job for each slice, one pod for each of its machines. A pod that fails restarts the whole set,
and training resumes by itself: as often as nodes are taken away, up to --restarts times after
crashes, never after bad input. The cluster needs node pools of the slice's kind and shape, and the
JobSet controller, 0.10 or later:
kubectl apply --server-side -f https://github.com/kubernetes-sigs/jobset/releases/download/v0.10.0/manifests.yaml
"""

import json
import math
import re
import shlex
import sys
from typing import Any

import accounts
import common
import pods
import slices

_MAIN = "train"  # the container
# What becomes of a pod that fails. The job fails with all its pods, and says by which rule; the
# first of the set's rules that fits then decides. What no rule names is a crash: it fails the job
# as well (`backoffLimit`), and the set is restarted at most `maxRestarts` times.
_POD_RULES = [
    {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": _MAIN, "operator": "In", "values": [common.BAD_INPUT],
        },
    },
    # evicted, preempted, its node drained or shut down
    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {
        "action": "FailJob",
        "onExitCodes": {"containerName": _MAIN, "operator": "In", "values": [common.STOPPED]},
    },
]  # fmt: skip
_SET_RULES = [
    # pods that hang, or wait for nodes or an image (`activeDeadlineSeconds`)
    {"name": "overdue", "action": "FailJobSet", "onJobFailureReasons": ["DeadlineExceeded"]},
    {
        "name": "badInput",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
        "onJobFailureMessagePatterns": ["rule at index 0"],
    },
    {
        "name": "interrupted",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    },
]


def manifest(args: Any) -> dict[str, Any]:
    """The JobSet (API jobset.x-k8s.io/v1alpha2) as nested dicts.

    Args:
      args: with name, image, tpu (a Slice), slices, restarts, max_hours, spot, flex_start,
        reservation, service_account, queue, and what the training command needs.
    """
    tpu, seconds = args.tpu, math.ceil(args.max_hours * 3600)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": tpu.topology,
    }
    taints = ["google.com/tpu"]
    if args.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        taints.append("cloud.google.com/gke-spot")
    if args.flex_start:
        selector["cloud.google.com/gke-flex-start"] = "true"
        taints.append("cloud.google.com/gke-queued")
    if args.reservation:
        selector["cloud.google.com/reservation-name"] = args.reservation
    tolerations = [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in taints]
    container = {
        "name": _MAIN,
        "image": args.image,
        "command": ["bash", "-c", pods.as_kubernetes_reads(pods.command(args))],
        # between the workers of a slice
        "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
        "securityContext": {"privileged": True},  # the TPU driver
        "resources": {
            "requests": {"google.com/tpu": tpu.chips_per_pod},
            "limits": {"google.com/tpu": tpu.chips_per_pod},
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": pods.GRACE_SPOT_S if args.spot else pods.GRACE_S,
        "nodeSelector": selector,
        "tolerations": tolerations,
        "containers": [container],
    }
    if args.service_account:
        pod["serviceAccountName"] = args.service_account
    else:  # faster, but its pods have the node's account (Workload Identity's restrictions)
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    job = {
        "parallelism": tpu.pods,
        "completions": tpu.pods,
        "backoffLimit": 0,
        "activeDeadlineSeconds": seconds + pods.OVERTIME_S,  # of one life of the set
        "podFailurePolicy": {"rules": _POD_RULES},
        "template": {"spec": pod},
    }
    metadata: dict[str, Any] = {
        "name": args.name,
        # One job on one node pool, which is one slice.
        "annotations": {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        },
    }
    if args.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": args.queue}
    if args.queue and args.flex_start:
        lasts = min(seconds + pods.OVERTIME_S, slices.FLEX_START_S)
        metadata["annotations"]["provreq.kueue.x-k8s.io/maxRunDurationSeconds"] = str(lasts)
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {"maxRestarts": args.restarts, "rules": _SET_RULES},
            "replicatedJobs": [
                {"name": "slice", "replicas": args.slices, "template": {"spec": job}}
            ],
        },
    }


def to_yaml(value: Any, indent: str = "") -> str:
    """YAML of nested dicts and lists. Texts are quoted as JSON, which YAML contains, unless they
    can be nothing but a text.
    """
    if isinstance(value, dict) and value:
        return "".join(f"{indent}{_scalar(k)}:{_below(v, indent + '  ')}" for k, v in value.items())
    if isinstance(value, list) and value:
        items = (
            to_yaml(v, indent + "  ")
            if isinstance(v, (dict, list)) and v
            else f"{indent}  {_scalar(v)}\n"
            for v in value
        )
        return "".join(f"{indent}- {item[len(indent) + 2 :]}" for item in items)
    return f"{indent}{_scalar(value)}\n"


def _below(value: Any, indent: str) -> str:
    return (
        "\n" + to_yaml(value, indent)
        if isinstance(value, (dict, list)) and value
        else f" {_scalar(value)}\n"
    )


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    return (
        value
        if plain
        and value.lower() not in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
        else json.dumps(value)
    )


def main(argv: list[str] | None = None) -> int:
    """Writes the script; runs it with --go."""
    parser = common.parser(__doc__, cloud=True)
    pods.add_options(parser)
    parser.add_argument("--queue", default="", help="Kueue's local queue, if the cluster has one")
    parser.add_argument(
        "--service-account",
        default="",
        metavar="NAME",
        help="of Kubernetes, bound to one that may read and write the buckets (Workload Identity); "
        "default: the account of the nodes, and their own network, which is faster",
    )
    args = pods.parse(parser, argv)

    script = common.Script(
        f"{args.name}: {args.config} on {args.slices} x {args.tpu.accelerator_type} by a JobSet"
    )
    script.run(
        *["gcloud", "container", "clusters", "get-credentials", args.cluster, *pods.where(args)]
    )
    if not args.no_preflight:
        own, nodes = args.service_account, accounts.of_nodes(args, pods.where(args))
        accounts.look_up(script, args.project, accounts.bound_to(own) if own else nodes)
    common.preflight(
        script, args, f"--topology={args.tpu.name}", f"--slices={args.slices}", "--disks=empty",
        account=True,
    )  # fmt: skip
    file = f"{common.stage(args.name)}/jobset.yaml"
    apply = ["kubectl", "apply", "--server-side", f"--filename={file}"]
    pods.unless_there(script, args.name, f"kubectl delete jobset {args.name}")
    script.note("The manifest; the cluster says whether it would take it.")
    script.run("mkdir", "-p", common.stage(args.name))
    script.file(file, to_yaml(manifest(args)))
    script.raw(
        f"{shlex.join([*apply, '--dry-run=server'])} || {{ echo 'the cluster does not take the "
        "manifest: JobSet must be there, 0.10 or later, and you may create one' >&2; exit 2; }"
    )
    pods.image(script, args, "tpu,cloud,data", args.build)
    common.copy_local(script, args)
    script.run(*apply)
    script.raw("fi")
    script.note(f"Follow the logs. To stop: kubectl delete jobset {args.name}")
    pods.follow(script, args.name, args.tpu.pods * args.slices)
    return common.finish(script, args)


if __name__ == "__main__":
    sys.exit(main())
