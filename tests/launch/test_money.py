"""What a run may cost: nothing is paid for after a failed preflight, hours end it, and the kind of
machines and the account that they have are those that were asked for.
"""

import json
import re
import shlex
import subprocess

import common
import pods
import pytest
import yaml
from dry_run import BUCKET, ROOT, RUN, files, launch

POD = [*BUCKET, "--image", "registry/x:1", "--cluster", "c1", "--tpu", "v6e:4x4"]
CASES = {
    "tpu_vm": [*BUCKET, "--tpu", "v5e:2x4"],
    "queued": [*BUCKET, "--tpu", "v5p:4x4x4"],
    "xpk": POD,
    "gke": POD,
    "gpu_box": ["--workdir", "runs/a", "--host", "me@box"],
    "slurm": ["--workdir", "/shared/run", "--folder", "/shared/code"],
}
DATA = ["--name", "prep", "--data", "gs://bucket/a corpus", "--project", "proj", "--region", "us-x1",
    "--image", "registry/x:1", "--", "--import", "gs://raw/it's"]  # fmt: skip
NUMBER = 'case "$*" in "projects describe"*) echo 4711 ;; esac'


def script_of(name, *options):
    run = launch(name, *RUN, *CASES[name], *options)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def run(tmp_path):
    """run(script, program=shell, ...) -> (exit code, errors, the commands that were called), with
    stand-ins for all programs that reach further than this machine; Python is one of them.
    """

    def run_it(script, **shells):
        names = (
            "gcloud",
            "kubectl",
            "xpk",
            "git",
            "tar",
            "rsync",
            "ssh",
            "sbatch",
            "docker",
            "python",
        )
        bin_ = tmp_path / "bin"
        bin_.mkdir(exist_ok=True)
        for name in names:
            (bin_ / name).write_text(
                f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/called\n{shells.get(name, "")}\n'
            )
            (bin_ / name).chmod(0o755)
        script = script.replace(shlex.quote(common.python()), "python")
        script = script.replace(common.stage("run1"), str(tmp_path / "stage"))
        env = {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", script],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        called = (tmp_path / "called").read_text().splitlines()
        (tmp_path / "called").unlink()
        return done.returncode, done.stderr, called

    return run_it


# ---- Before anything is paid for ------------------------------------------------------------------

FREE = (
    "python ", "gcloud container clusters get-credentials", "gcloud container node-pools list",
    "gcloud projects describe", "kubectl get serviceaccount",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_failed_preflight_ends_the_script(run, name):
    account = ["--service-account", "trainer"] if name == "gke" else []
    refused = '[ "$1" = -c ] || exit 2'
    code, _, called = run(script_of(name, *account), python=refused, gcloud=NUMBER)
    assert code == 2 and "mdmspeech preflight" in called[-1]
    assert not [command for command in called if not command.startswith(FREE)]


def test_what_is_not_installed_here_is_said_before(run):
    code, said, called = run(script_of("queued"), python="exit 1", gcloud=NUMBER)
    assert code == 2 and "needs this repository installed here" in said and len(called) == 2


TWO = "echo a@x.iam; echo b@x.iam"


@pytest.mark.parametrize(
    ("name", "options", "gcloud", "kubectl", "account"),
    [
        ("tpu_vm", [], NUMBER, "", "4711-compute@developer.gserviceaccount.com"),
        ("queued", [], NUMBER, "", "4711-compute@developer.gserviceaccount.com"),
        ("queued", [], "exit 1", "", ""),  # this person may not look at the project
        ("queued", ["--service-account", "t@proj.iam"], "exit 1", "", "t@proj.iam"),
        ("xpk", [], 'case "$*" in *node-pools*) echo n@x.iam ;; esac', "", "n@x.iam"),
        (
            "gke",
            [],
            f'case "$*" in *node-pools*) echo default; echo default ;; esac; {NUMBER}',
            "",
            "4711-compute@developer.gserviceaccount.com",
        ),
        ("gke", [], f'case "$*" in *node-pools*) {TWO} ;; esac', "", ""),
        ("gke", [], 'case "$*" in *node-pools*) exit 1 ;; esac', "", ""),
        ("gke", [], "", "", ""),  # no pools yet
        ("gke", ["--service-account", "t"], TWO, "echo -n t@proj.iam", "t@proj.iam"),
        ("gke", ["--service-account", "t"], TWO, "", ""),  # bound in another way
    ],
)
def test_preflight_is_told_the_machines_account(run, name, options, gcloud, kubectl, account):
    refused = '[ "$1" = -c ] || { printf "%s|" "$@" >&2; exit 2; }'
    script = script_of(name, *options)
    code, said, _ = run(script, python=refused, gcloud=gcloud, kubectl=kubectl)
    assert code == 2 and f"|--account|{account}|" in said, said


def test_an_account_that_the_cluster_does_not_have(run):
    script = script_of("gke", "--service-account", "t")
    code, said, called = run(script, kubectl="exit 1")
    assert code == 2 and "has no service account t in this namespace" in said
    assert not [command for command in called if command.startswith("python")]


@pytest.mark.parametrize("name", ["tpu_vm", "queued"])
def test_the_machines_get_the_account_that_was_looked_at(name):
    (job,) = [
        t for p, t in files(script_of(name, "--service-account", "t@p.iam")).items() if "json" in p
    ]
    assert "--service-account=t@p.iam" in shlex.split(json.loads(job)["create"])


BUCKETS = """
as=you; case "$*" in *--impersonate*) as=account ;; esac
case "$* $as" in
  *print-access-token*) exit $MAY ;;
  *$FAILS*) exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("may", "fails", "code", "said"),
    [
        (0, "nothing", 0, ""),
        (1, "nothing", 0, "NOT KNOWN: what the workers' account"),
        (0, "rm*account", 2, "as 4711-compute@developer.gserviceaccount.com"),
        (0, "cat*dataflow/probe*account", 2, "the workers' account"),
        (1, "ls*account", 0, "NOT KNOWN"),
        (0, "ls*it's*you", 2, "cannot be used, as you"),
        (0, "cp*you", 2, "cannot be used, as you"),
    ],
)
def test_a_preparation_tries_its_buckets_before_it_builds(run, may, fails, code, said):
    script = launch("dataflow", *DATA).stdout
    shell = BUCKETS.replace("$MAY", str(may)).replace("$FAILS", fails.replace("'", "\\'"))
    got, errors, called = run(script, gcloud=f"{NUMBER}\n{shell}", git="exit 3")
    assert said in errors
    assert got == code or (code == 0 and got != 2), errors
    assert any(command.startswith("git") for command in called) == (code == 0)
    assert "builds submit" not in "".join(called) or code == 0


# ---- Hours ----------------------------------------------------------------------------------------


def jobset(*options):
    (text,) = [t for p, t in files(script_of("gke", *options)).items() if p.endswith(".yaml")]
    return yaml.safe_load(text)


def pod_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(("hours", "seconds"), [(None, 72 * 3600), ("0.5", 1800), ("200", 720000)])
def test_hours_of_a_jobset(hours, seconds):
    """Training counts them over all starts; a life that hangs, or waits, ends an hour later."""
    given = ["--max-hours", hours] if hours else []
    manifest = jobset(*given)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["activeDeadlineSeconds"] == seconds + 3600 and isinstance(seconds, int)
    (container,) = pod_of(manifest)["containers"]
    assert f"--set train.max_hours={hours or 72} " in container["command"][2]
    rules = manifest["spec"]["failurePolicy"]["rules"]
    late = next(rule for rule in rules if "DeadlineExceeded" in rule["onJobFailureReasons"])
    assert late["action"] == "FailJobSet" and "onJobFailureMessagePatterns" not in late


def test_hours_of_xpk():
    script = script_of("xpk", "--max-hours", "3")
    (line,) = [line for line in script.splitlines() if line.startswith("xpk workload create")]
    command = next(w for w in shlex.split(line) if w.startswith("--command="))
    assert "; timeout --kill-after=120 14400 env " in command
    assert "--set train.max_hours=3 " in command
    assert not {124} & {common.STOPPED, 42, *range(127, 256)}, "xpk would restart it"


@pytest.mark.parametrize(("saves", "code"), [(True, 124), (False, 137)])
def test_a_pod_that_hangs_is_stopped(tmp_path, saves, code):
    args = type("", (), dict(config="c", workdir="w", data=None, system=None, set=[]))
    end = "echo saved; exit 0" if saves else ":"
    (tmp_path / "mdmspeech").write_text(
        f"#!/bin/bash\ntrap '{end}' TERM\nwhile :; do sleep 0.05; done\n"
    )
    (tmp_path / "mdmspeech").chmod(0o755)
    shell = (
        pods.command(args, 1)
        .replace("cd /mdmspeech", ":")
        .replace("after=120 1 ", "after=0.5 0.3 ")
    )
    done = subprocess.run(
        ["bash", "-c", shell],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and ("saved" in done.stdout) == saves


@pytest.mark.parametrize("name", ["gpu_box", "slurm"])
def test_hours_where_nobody_else_counts_them(name):
    texts = lambda *options: "".join(files(script_of(name, *options)).values())
    assert "max_hours" not in texts() and "--set train.max_hours=8" in texts("--max-hours", "8")


def test_hours_of_dataflow():
    job = next(
        line for line in launch("dataflow", *DATA).stdout.splitlines() if "beam-args" in line
    )
    assert "--dataflow_service_options=max_workflow_runtime_walltime_seconds=259200" in job
    for hours in ("0", "nan"):
        assert launch("dataflow", "--max-hours", hours, *DATA).returncode == 2


def test_the_readme_says_of_every_launcher_what_ends_it():
    text = (ROOT / "launch" / "README.md").read_text()
    table = text[text.index("**What a run can cost.**") :]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.M)
    assert sorted(re.findall(r"`(\w+)\.py`", " ".join(rows))) == sorted([*CASES, "dataflow"])


# ---- The machines that were asked for -------------------------------------------------------------


def create(name, *options):
    (job,) = [t for p, t in files(script_of(name, *options)).items() if p.endswith("watch.json")]
    return shlex.split(json.loads(job)["create"])


@pytest.mark.parametrize(
    ("name", "options", "has", "has_not"),
    [
        ("queued", [], ["gcloud", "compute"], ["alpha", "--spot", "--reserved"]),
        ("queued", ["--spot"], ["--spot"], ["alpha"]),
        ("queued", ["--reserved"], ["--reserved"], ["--spot"]),
        ("tpu_vm", ["--reserved"], ["--reserved"], ["alpha", "--spot"]),
        ("tpu_vm", ["--spot"], ["--spot"], ["--reserved"]),
        (
            "queued",
            ["--flex-start", "--max-hours", "1.5"],
            ["alpha", "--provisioning-model=flex-start", "--max-run-duration=7200s"],
            ["--spot"],
        ),
        ("queued", ["--flex-start", "--max-hours", "500"], ["--max-run-duration=604800s"], []),
    ],
)
def test_kinds_of_slices(name, options, has, has_not):
    words = create(name, *options)
    assert set(has) <= set(words) and not set(has_not) & set(words)
    assert shlex.join(words).startswith(
        f"gcloud {'alpha ' * ('--flex-start' in options)}compute tpus "
    )


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], {}),
        (["--spot"], {"gke-spot": "true"}),
        (["--flex-start"], {"gke-flex-start": "true"}),
        (["--reservation", "mine"], {"reservation-name": "mine"}),
    ],
)
def test_kinds_of_nodes(options, labels):
    pod = pod_of(jobset(*options))
    shape = {"gke-tpu-accelerator": "tpu-v6e-slice", "gke-tpu-topology": "4x4"}
    expected = {f"cloud.google.com/{key}": value for key, value in (shape | labels).items()}
    assert pod["nodeSelector"] == expected
    borne = {one["key"] for one in pod["tolerations"]}
    taint = {"gke-spot": "gke-spot", "gke-flex-start": "gke-queued"}.get(next(iter(labels), ""))
    assert borne == {"google.com/tpu", *([f"cloud.google.com/{taint}"] if taint else [])}


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (["--flex-start", "--queue", "q"], "262800"),
        (["--flex-start", "--queue", "q", "--max-hours", "400"], "604800"),
        (["--flex-start"], None),
        (["--queue", "q"], None),
    ],
)
def test_flex_start_by_kueue_says_how_long(options, seconds):
    annotations = jobset(*options)["metadata"]["annotations"]
    assert annotations.get("provreq.kueue.x-k8s.io/maxRunDurationSeconds") == seconds
    assert "alpha.jobset.sigs.k8s.io/exclusive-topology" in annotations


def test_pods_with_an_account_of_their_own_are_not_on_the_nodes_network():
    """There they would have the node's account (restrictions of Workload Identity Federation)."""
    own, nodes = pod_of(jobset("--service-account", "t")), pod_of(jobset())
    assert own["serviceAccountName"] == "t" and not {"hostNetwork", "dnsPolicy"} & set(own)
    assert nodes["hostNetwork"] is True and nodes["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "serviceAccountName" not in nodes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--tpu-type=v6e-16"]),
        (["--spot"], ["--spot"]),
        (["--flex-start"], ["--flex"]),
        (["--reservation", "mine"], ["--reservation=mine"]),
        (["--tpu", "v5p:4x4x16"], ["--tpu-type=v5p-4x4x16"]),  # v5p-512 is 4x8x8 there
        (["--tpu", "v5p:4x8x8"], ["--tpu-type=v5p-512"]),
    ],
)
def test_what_xpk_is_asked_for(options, words):
    line = next(x for x in script_of("xpk", *options).splitlines() if x.startswith("xpk workload"))
    given, kinds = shlex.split(line), ("--spot", "--flex", "--reservation")
    assert set(words) <= set(given)
    assert [w for w in given if w.startswith(kinds)] == [w for w in words if w.startswith(kinds)]
