"""Shell for what launchers ask of service accounts before anything is paid for: whose permissions the
machines will have ($account, an e-mail address, "" where it cannot be known), and what buckets allow
it, which can be asked by whoever may act as it.
"""

import argparse
import shlex
from collections.abc import Sequence

from common import Script

_COMPUTE = "default"  # the project's own of Compute Engine, as GKE calls it


def given(email: str) -> str:
    """Shell that sets $account to what was given, else to Compute Engine's."""
    return shlex.join([f"account={email or _COMPUTE}"])


def of_nodes(args: argparse.Namespace, where: Sequence[str]) -> str:
    """Shell that sets $account to that of a cluster's TPU nodes; "" if there are none yet, or several.

    Args:
      where: project and location of the cluster, for gcloud.
    """
    pools = ["gcloud", "container", "node-pools", "list", f"--cluster={args.cluster}", *where]
    pools += ["--filter=config.machineType~^(ct|tpu)", "--format=value(config.serviceAccount)"]
    return (
        f"account=$({shlex.join(pools)} | sort -u) || account=\n"
        'case "$account" in *[[:space:]]*) account= ;; esac'
    )


def bound_to(name: str) -> str:
    """Shell that sets $account to the one that an account of Kubernetes is bound to by annotation."""
    ask = ["kubectl", "get", "serviceaccount", name]
    ask.append(r"--output=jsonpath={.metadata.annotations.iam\.gke\.io/gcp-service-account}")
    wrong = (
        f"the cluster has no service account {name} in this namespace: kubectl create "
        f"serviceaccount {name}"
    )
    return f"account=$({shlex.join(ask)}) || {{ echo {shlex.quote(wrong)} >&2; exit 2; }}"


def look_up(script: Script, project: str, shell: str) -> None:
    """Puts one of the above into a script, and turns "default" into an address."""
    number = ["gcloud", "projects", "describe", project, "--format=value(projectNumber)"]
    script.raw(shell)
    script.raw(
        f'if [ "$account" = {_COMPUTE} ]; then '
        f"account=$({shlex.join(number)})-compute@developer.gserviceaccount.com || account=; fi"
    )


def try_buckets(script: Script, write: Sequence[str], read: Sequence[str]) -> None:
    """Shell that writes, reads and removes a small object below each of `write`, and lists each of
    `read`: as this person, then as $account, where one may act as it. Exit code 2 if one may not.
    """
    script.raw("try_buckets() {")
    for place in write:
        probe = f"{shlex.quote(place.rstrip('/'))}/probe-$$"
        script.raw(
            f'  gcloud storage cp --quiet "$@" - {probe} <<< probe && gcloud storage cat "$@" {probe} '
            f'>/dev/null && gcloud storage rm --quiet "$@" {probe} || return 1'
        )
    for place in read:
        script.raw(f'  gcloud storage ls "$@" {shlex.quote(place)} >/dev/null || return 1')
    script.raw("""
}
cannot() { echo "the buckets cannot be used, as $1: what is said above must be allowed" >&2; exit 2; }
try_buckets || cannot you
as="--impersonate-service-account=$account"
if [ -n "$account" ] && gcloud auth print-access-token "$as" >/dev/null 2>&1; then
  try_buckets "$as" || cannot "$account, the workers' account"
else
  echo "NOT KNOWN: what the workers' account ($account) may do with the buckets" >&2
  echo "(to ask as it you need roles/iam.serviceAccountTokenCreator on it)" >&2
fi
""")
