"""Word for word what reaches the clouds: a flag that is dropped, or a name that is spelt otherwise,
shows nowhere else before it costs something.
"""

import json
import re
import shlex

import pytest
import yaml
from dry_run import BUCKET, ROOT, RUN, files, launch

WHERE = ["--project=proj", "--zone=us-east5-b"]
TPUS = ["gcloud", "compute", "tpus"]
QUEUED, VM = [*TPUS, "queued-resources"], [*TPUS, "tpu-vm"]
STORAGE = ["gcloud", "storage"]
PLACE = "gs://bucket/some run"


def job_of(name):
    run = launch(name, *RUN, *BUCKET, "--tpu", "v5e:2x4", "--spot")
    (text,) = [text for path, text in files(run.stdout).items() if path.endswith("watch.json")]
    return json.loads(text)


def ssh(worker):
    return [*VM, "ssh", "run1", *WHERE, "--quiet", f"--worker={worker}"]


COMMANDS = {
    "queued": {
        "describe": [*QUEUED, "describe", "run1", *WHERE, "--format=value(state.state)"],
        "create": [*QUEUED, "create", "run1", *WHERE, "--node-id=run1",
            "--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"],
        # it cannot be deleted with its slice otherwise
        "delete": [*QUEUED, "delete", "run1", *WHERE, "--force", "--quiet"],
    },
    "tpu_vm": {
        "describe": [*VM, "describe", "run1", *WHERE, "--format=value(state)"],
        "create": [*VM, "create", "run1", *WHERE, "--accelerator-type=v5litepod-8",
            "--version=v2-alpha-tpuv5-lite", "--spot"],
        "delete": [*VM, "delete", "run1", *WHERE, "--quiet"],
    },
}  # fmt: skip
BOTH = {
    "created": [*VM, "describe", "run1", *WHERE, "--format=value(createTime)"],
    "progress": [*STORAGE, "cat", f"{PLACE}/ledger.json"],
    "read_ledger": [*STORAGE, "cat", f"{PLACE}/launch/slices.json"],
    "write_ledger": [*STORAGE, "cp", "-", f"{PLACE}/launch/slices.json"],
}
WORKERS = {"start": "all", "follow": "0", "tails": "all", "stop": "all"}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_watcher_asks_of_the_cloud(name):
    job = job_of(name)
    for verb, words in (COMMANDS[name] | BOTH).items():
        assert shlex.split(job[verb]) == words, verb
    for verb, worker in WORKERS.items():
        *words, command = shlex.split(job[verb])
        assert words == ssh(worker) and command.startswith("--command="), verb
    assert shlex.split(shlex.split(job["start"])[-1].removeprefix("--command=")) == [
        *["mkdir", "-p", "mdmspeech", "&&", "cd", "mdmspeech", "&&", *STORAGE, "cp"],
        *[f"{PLACE}/launch/code.tgz", f"{PLACE}/launch/worker.sh", "."],
        *["&&", "tar", "-xzf", "code.tgz", "&&", "bash", "worker.sh"],
    ]


@pytest.mark.parametrize(
    ("name", "ready", "lost", "refused"),
    [
        ("queued", "ACTIVE", {"SUSPENDING", "SUSPENDED"}, {"FAILED"}),
        ("tpu_vm", "READY", {"PREEMPTED", "TERMINATED"}, set()),
    ],
)
def test_the_states_by_the_clouds_names(name, ready, lost, refused):
    job = job_of(name)
    assert (job["ready"], set(job["lost"]), set(job["refused"])) == (ready, lost, refused)


def lines_of(name, *options):
    image = ["--image", "registry/x:1", "--cluster", "c1", "--tpu", "v5e:4x4"]
    run = launch(name, *RUN, *BUCKET, *image, *options)
    assert run.returncode == 0, run.stderr
    return [
        shlex.split(x)
        for x in run.stdout.splitlines()
        if re.match(r" *(account=\$\()?(gcloud|kubectl|xpk) ", x)
    ]


def test_what_xpk_is_told():
    options = ["--slices", "2", "--restarts", "7", "--priority", "high"]
    (words,) = [words for words in lines_of("xpk", *options) if words[0] == "xpk"]
    *words, command = words
    assert words == [
        "xpk", "workload", "create", "--cluster=c1", *WHERE, "--workload=run1",
        "--tpu-type=v5litepod-16", "--num-slices=2", "--docker-image=registry/x:1",
        "--priority=high", "--max-restarts=7", "--restart-on-exit-codes=75",
        "--termination-grace-period-seconds=120",
    ]  # fmt: skip
    assert command.startswith("--command=cd /mdmspeech; ")


@pytest.mark.parametrize("name", ["xpk", "gke"])
def test_an_image_is_made_and_the_cluster_is_the_one_that_was_named(name):
    lines = lines_of(name)
    there = ["--project=proj", "--location=us-east5"]
    assert lines[0] == ["gcloud", "container", "clusters", "get-credentials", "c1", *there]
    (pools,) = [
        words for words in lines if words[:3] == ["account=$(gcloud", "container", "node-pools"]
    ]
    assert pools[3:8] == ["list", "--cluster=c1", *there, "--filter=config.machineType~^(ct|tpu)"]
    logs = next(words for words in lines if words[:2] == ["kubectl", "logs"])
    assert logs[2:7] == [
        "--selector=jobset.sigs.k8s.io/jobset-name=run1", "--follow", "--prefix", "--tail=-1",
        "--max-log-requests=4",
    ]  # fmt: skip
    (build,) = [words for words in lines if words[1] == "builds"]
    assert build[2:] == ["submit", build[3], "--project=proj", "--tag=registry/x:1"]
    docker = launch(name, *RUN, *BUCKET, "--image", "r/x:1", "--cluster", "c1", "--tpu", "v5e:4x4",
        "--build", "docker").stdout  # fmt: skip
    assert re.search(r"^docker build --tag r/x:1 .*\ndocker push r/x:1$", docker, re.M)
    dockerfile = next(t for p, t in files(docker).items() if p.endswith("Dockerfile"))
    assert dockerfile.splitlines() == [
        "FROM python:3.11-slim", "WORKDIR /mdmspeech", "COPY . .",
        "RUN pip install --no-cache-dir -c constraints.txt -e '.[tpu,cloud,data]'",
    ]  # fmt: skip


def test_the_jobset_is_applied_once_its_image_and_data_are_there(tmp_path):
    (tmp_path / "corpus" / "datasets").mkdir(parents=True)
    words = [" ".join(line) for line in lines_of("gke", "--data", str(tmp_path / "corpus"))]
    at = lambda text: [n for n, line in enumerate(words) if line.startswith(text)]
    tried, applied = at("kubectl apply --server-side")
    assert "--dry-run=server" in words[tried] and "dry-run" not in words[applied]
    assert tried < at("gcloud builds submit")[0] < at("gcloud storage rsync")[0] < applied


def test_the_container_as_gke_wants_it():
    image = ["--image", "registry/x:1", "--cluster", "c1", "--tpu", "v5e:4x4"]
    run = launch("gke", *RUN, *BUCKET, *image)
    text = next(text for path, text in files(run.stdout).items() if path.endswith(".yaml"))
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert {name: container[name] for name in container if name != "command"} == {
        "name": "train",
        "image": "registry/x:1",
        # libtpu's between hosts, and MegaScale's between slices
        "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
        "securityContext": {"privileged": True},
        "resources": {"requests": {"google.com/tpu": 4}, "limits": {"google.com/tpu": 4}},
    }


def test_workers_install_what_is_pinned():
    for name, extras in (("queued", "tpu,cloud,data"), ("gpu_box", "gpu,data")):
        options = [*BUCKET, "--tpu", "v5e:2x4"] if name == "queued" else ["--workdir", "w"]
        worker = next(
            text
            for path, text in files(launch(name, *RUN, *options).stdout).items()
            if path.endswith("worker.sh")
        )
        wanted = f"venv/bin/python -m pip install --quiet -c constraints.txt -e '.[{extras}]'"
        assert wanted in worker.splitlines()
        assert ("storage cp --quiet run.log" in worker) == (name == "queued"), "its disk is deleted"
        assert name != "queued" or f"{PLACE}/logs/" in worker


def test_the_sbatch_options():
    run = launch("slurm", *RUN, "--workdir", "w", "--folder", "/shared/code", "--nodes", "2",
        "--gpus", "4", "--cpus", "6", "--time", "2:00:00", "--partition", "p", "--account", "a",
        "--constraint", "c")  # fmt: skip
    text = next(t for p, t in files(run.stdout).items() if p.endswith(".sbatch"))
    assert re.findall(r"^#SBATCH (.*)$", text, re.M) == [
        "--job-name=run1", "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4",
        "--cpus-per-task=6", "--time=2:00:00", "--signal=TERM@300", "--requeue",
        "--open-mode=append", "--output=run1.log", "--partition=p", "--account=a", "--constraint=c",
    ]  # fmt: skip
    assert "srun --cpus-per-task=6 --kill-on-bad-exit=1 bash -c " in text


# ---- Codes, and time to save ----------------------------------------------------------------------


def test_the_programs_codes_are_the_launchers():
    """Where they are made: the errors, and the ends of the program."""
    import common

    from mdmspeech import errors

    assert errors.TRY_AGAIN == errors.TryAgainError("").exit_code == common.STOPPED
    assert errors.UserError("").exit_code == common.BAD_INPUT
    assert common.RESUMING == (75, 134, 137)


def test_there_is_time_to_save():
    """From the signal on: two updates, and a checkpoint (docs say how large one may be)."""
    import common
    import pods

    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", launch("gke", *RUN, *BUCKET, "--image",
        "x:1", "--cluster", "c", "--tpu", "v5e:4x4").stdout)  # fmt: skip
    assert int(grace[1]) == pods.GRACE_S >= 120
    assert "for _ in $(seq 120);" in common.stop(), "as long on a TPU VM"
    text = (ROOT / "launch" / "README.md").read_text()
    assert f"A pod has {pods.GRACE_S} seconds" in text and pods.GRACE_SPOT_S == 15
