"""What the launchers for Kubernetes share: an image with the code, the command of a pod, following a
JobSet until it ends.
"""

import argparse
import re
import shlex

import common
from slices import parse_slice

_DOCKERFILE = """
FROM python:3.11-slim
WORKDIR /mdmspeech
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[{extras}]'
"""
# Seconds between SIGTERM and SIGKILL. On spot nodes the kubelet gives 15, whatever is asked for.
GRACE_S, GRACE_SPOT_S = 120, 15
# Training ends by itself after --max-hours. What still runs (or waits) so much later is stopped.
OVERTIME_S = 3600


def image(
    script: common.Script,
    args: argparse.Namespace,
    extras: str,
    build: str,
    dockerfile: str = _DOCKERFILE,
) -> None:
    """Packs the tracked files and makes a container image of them with everything installed.

    Args:
      args: with `image`, its full name, for example
        us-docker.pkg.dev/PROJECT/REPOSITORY/mdmspeech:NAME.
      build: "cloud" (Google Cloud Build, no Docker needed here) or "docker".
      dockerfile: what makes it, with {extras} for the extras.
    """
    folder = f"{common.stage(args.name)}/image"
    code = common.pack(script, args.name)
    script.note("An image of them: nothing is left to install when a pod starts.")
    script.run("rm", "-rf", folder)
    script.run("mkdir", "-p", folder)
    script.run("tar", "-xzf", code, "-C", folder)
    script.file(f"{folder}/Dockerfile", dockerfile.format(extras=extras).lstrip())
    if build == "cloud":
        script.run(
            "gcloud", "builds", "submit", folder, f"--project={args.project}", f"--tag={args.image}"
        )
    else:
        script.run("docker", "build", "--tag", args.image, folder)
        script.run("docker", "push", args.image)


def add_image(shared: argparse.ArgumentParser) -> None:
    """The options that `image` reads."""
    shared.add_argument(
        "--image", required=True, help="container image to make and use, with registry and tag"
    )
    shared.add_argument(
        "--build",
        choices=("cloud", "docker"),
        default="cloud",
        help="who makes it: Google Cloud Build, or Docker on this machine",
    )


def add_options(shared: argparse.ArgumentParser) -> None:
    """Those of a run on slices of a cluster."""
    add_image(shared)
    shared.add_argument("--cluster", required=True, help="of GKE, in the zone's region")
    shared.add_argument(
        "--tpu",
        required=True,
        type=parse_slice,
        metavar="KIND:SHAPE",
        help="for example v5e:4x4, as in `mdmspeech plan`",
    )
    shared.add_argument(
        "--slices", type=int, default=1, help="how many; the data axis of the mesh goes over them"
    )
    shared.add_argument(
        "--restarts", type=int, default=50, help="how often it may be restarted after crashes"
    )
    common.add_hours(
        shared,
        72.0,
        "end the run after so many hours of training, those of earlier starts included; what deletes "
        "its nodes is the cluster",
        in_run=True,
    )
    kind = shared.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="on spot nodes")
    kind.add_argument(
        "--flex-start", action="store_true", help="on flex-start nodes, which last 7 days at most"
    )
    kind.add_argument("--reservation", default="", metavar="NAME", help="on nodes of a reservation")


def parse(shared: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parsed and checked."""
    args = common.parse(shared, argv, bucket=True)
    if args.slices < 1 or args.restarts < 0:
        shared.error("--slices must be 1 or more, and --restarts 0 or more")
    if args.slices > 1 and args.tpu.pods == 1:
        shared.error(
            f"--slices {args.slices} --tpu {args.tpu.name}: GKE joins only slices of several hosts; "
            "take larger ones"
        )
    if re.search(r"[^\w./-]", args.reservation) or args.reservation.startswith("-"):
        shared.error(f"--reservation {args.reservation!r}: give its name")
    return args


def where(args: argparse.Namespace) -> list[str]:
    """The cluster's, for gcloud: its region, as xpk makes clusters."""
    return [f"--project={args.project}", f"--location={re.sub(r'-[a-z]$', '', args.zone)}"]


def as_kubernetes_reads(shell: str) -> str:
    """A command that Kubernetes turns into this one: it replaces $(NAME), and $$ by $."""
    return re.sub(r"\$(?=[$(])", "$$", shell)


def command(args: argparse.Namespace, limit_s: int = 0) -> str:
    """Shell for a pod with that image. A pod that is told to stop must not succeed, or its job would
    count as done; one that lost another worker before it can have got anywhere ends as after a
    crash, so that its restarts are counted.

    Args:
      limit_s: seconds that one life of the pod may take, 0 for any; it ends with exit code 124 then.
    """
    counted = (
        f'code=$?; if [ "$code" = {common.STOPPED} ] && [ -z "$stopped" ] && [ "$SECONDS" -lt '
        f'{common.QUICK_S} ]; then echo "another worker was lost within $SECONDS s of the start: '
        'counted as a crash" >&2; code=1; fi; exit "$code"'
    )
    limit = f"timeout --kill-after={GRACE_S} {limit_s} " if limit_s else ""
    run = common.supervised(limit + common.train(args), forward=True)
    return f"cd /mdmspeech; SECONDS=0; {run}; {counted}"


def unless_there(script: common.Script, name: str, cure: str) -> None:
    """Begins a branch, ended with "fi", for a JobSet that is not there yet. If the cluster cannot be
    asked, the script ends.
    """
    get = ["kubectl", "get", "jobset", name, "--ignore-not-found", "--output=name"]
    script.note("Once: started again, this goes on following.")
    script.raw(f"there=$({shlex.join(get)})")
    told = f"{name} is there already, and is followed; to start anew: {cure}"
    script.raw(f'if [ -n "$there" ]; then echo {shlex.quote(told)} >&2; else')


def follow(script: common.Script, name: str, pods: int) -> None:
    """Follows the logs of all pods of a JobSet through its restarts, until it ends. They are also
    written to a file here; those of earlier starts are kept beside it.
    """
    folder = f"{common.stage(name)}/logs"
    file = shlex.quote(f"{folder}/pods.log")
    ask = [
        "kubectl", "get", "jobset", name, "--ignore-not-found",
        "--output=jsonpath={.metadata.name} {.status.terminalState}",
    ]  # fmt: skip
    logs = [
        "kubectl", "logs", f"--selector=jobset.sigs.k8s.io/jobset-name={name}", "--follow",
        "--prefix", "--tail=-1", f"--max-log-requests={pods}",
    ]  # fmt: skip
    why = [
        "kubectl", "get", "jobset", name,
        "--output=jsonpath={range .status.conditions[*]}{.type}: {.message}{'\\n'}{end}",
    ]  # fmt: skip
    script.run("mkdir", "-p", folder)
    nodes = (
        "The nodes are the cluster's: when this has ended they go on costing, unless their pool scales "
        'down by itself (launch/README.md, "What a run can cost").'
    )
    script.raw(f"echo {shlex.quote(nodes)} >&2")
    script.raw(common.rotate(file))
    script.raw(f"""
since=()
while true; do
  if state=$({shlex.join(ask)}); then
    case "$state" in
      "") echo "the JobSet was deleted" >&2; exit 1 ;;
      *Completed) break ;;
      *Failed) {shlex.join(why)} >&2; exit 1 ;;
    esac
    {shlex.join(logs)} "${{since[@]+${{since[@]}}}}" 2>&1 | tee -a {file} || true
    since=("--since-time=$(date -u +%FT%TZ)")
  else
    echo "the cluster cannot be asked; that says nothing of the run" >&2
  fi
  sleep 20
done
""")
