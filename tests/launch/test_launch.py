"""Launchers: what a dry run prints, in which order, quoted how; wrong arguments; the manifest."""

import configparser
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gke
import pytest
import yaml
from dry_run import BUCKET, ROOT, RUN, files, launch

IMAGE = ["--image", "registry/x:1", "--cluster", "c1"]
CASES = {
    "tpu_vm": [*BUCKET, "--tpu", "v5e:2x4"],
    "queued": [*BUCKET, "--tpu", "v5p:4x4x4", "--spot"],
    "xpk": [*BUCKET, *IMAGE, "--tpu", "v5e:16x16", "--slices", "2"],
    "gke": [
        *BUCKET,
        *IMAGE,
        "--tpu",
        "v6e:8x8",
        "--spot",
        "--slices",
        "3",
        "--queue",
        "q1",
        "--service-account",
        "trainer",
    ],
    "gpu_box": ["--workdir", "my runs/a", "--host", "me@box"],
    "slurm": [
        "--workdir",
        "/shared/my runs",
        "--host",
        "me@login",
        "--folder",
        "/shared/my code",
        "--nodes",
        "4",
        "--partition",
        "gpu",
    ],
}
# What every worker must get, whatever shells and files it goes through.
SETTINGS = ["--set", "train.steps=20", "--set", 'data.note=it\'s $HOME; $$ $(HOME) "x"']
TRAINED = ["--config", "experiments/compact_talker.py", "--workdir"]
HOURS = ["--set", "train.max_hours=72"]  # where nothing outside bounds them


@pytest.fixture(scope="module")
def scripts():
    results = {name: launch(name, *RUN, *options, *SETTINGS) for name, options in CASES.items()}
    assert all(r.returncode == 0 and "nothing was done" in r.stderr for r in results.values()), (
        results
    )
    return {name: result.stdout for name, result in results.items()}


def test_as_a_program():
    command = [
        sys.executable,
        str(ROOT / "launch" / "gpu_box.py"),
        *RUN,
        *CASES["gpu_box"],
        *SETTINGS,
    ]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent", "HOME": str(Path.home())},
        cwd="/",
    )
    assert (
        run.returncode == 0
        and run.stdout == launch("gpu_box", *RUN, *CASES["gpu_box"], *SETTINGS).stdout
    )


@pytest.mark.parametrize("name", CASES)
def test_dry_run_is_the_default_and_a_script_that_bash_understands(scripts, name):
    script = scripts[name]
    assert launch(name, *RUN, *CASES[name], *SETTINGS, "--dry-run").stdout == script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for path, text in files(script).items():
        if path.endswith((".sh", ".sbatch")):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


ORDER = {
    "tpu_vm": ["preflight", "git ls-files", "gcloud storage cp", "tpu-vm describe", "tpu-vm create",
        "bash worker.sh", "--worker=0", "tail -n +", "tpu-vm delete", "launch/watch.py"],
    "queued": [
        "preflight", "git ls-files", "gcloud storage cp", "SUSPENDED", "queued-resources describe",
        "queued-resources create", "bash worker.sh", "--worker=0", "tail -n +",
        "queued-resources delete", "launch/watch.py",
    ],
    "xpk": ["get-credentials", "node-pools list", "preflight", "kubectl get jobset", "git ls-files",
        "gcloud builds submit", "xpk workload create", "kubectl logs"],
    "gke": ["get-credentials", "get serviceaccount", "preflight", "kubectl get jobset", "kind: JobSet",
        "--dry-run=server", "git ls-files", "gcloud builds submit", "kubectl apply",
        "kubectl logs"],
    "gpu_box": ["preflight", "git ls-files", "rsync", "worker.sh", "ssh me@box", "bash worker.sh",
        "tail -n +1"],
    "slurm": ["preflight", "ssh me@login", "git ls-files", "rsync", "#SBATCH", "srun", "pip install",
        "sbatch run1.sbatch", "tail -n +1"],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_commands_come_in_order(scripts, name):
    position = 0
    for words in ORDER[name]:
        position = scripts[name].index(words, position)


TRAINS = re.compile(
    r"(^|[;&] )(timeout [^;]*)?env '?JAX_COMPILATION_CACHE_DIR=[^;]*mdmspeech train "
)


def training_commands(script):
    """Every shell text in a script that starts training, after the shells on the way to a worker have
    unwrapped it.
    """
    texts = [script, *files(script).values()]
    found = []
    while texts:
        text = texts.pop()
        if TRAINS.search(text) and "nohup" not in text and "\n" not in text:
            found.append(text)
            continue
        for line in text.split("\n"):
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a line of a longer construct
                continue
            for word in words:
                if "mdmspeech train" in word and word != text:
                    texts.append(word.removeprefix("--command="))
            wraps = "nohup" in line or line.startswith("srun ")
            if TRAINS.search(line) and not wraps and line != text:
                texts.append(line)
    return found


def arguments(command, tmp_path):
    """(arguments, cache of compiled programs) that the program would be given, by letting bash run the
    command with a program that writes them down.
    """
    for name in ("mdmspeech", "gcloud"):
        stand_in = tmp_path / name
        stand_in.write_text(
            "#!/bin/bash\n"
            + 'printf "%s\\n" "$JAX_COMPILATION_CACHE_DIR" "$@" > "$SEEN"\n' * (name == "mdmspeech")
        )
        stand_in.chmod(0o755)
    seen = tmp_path / "seen"
    command = (
        command.replace("venv/bin/mdmspeech", "mdmspeech")
        .replace("cd /mdmspeech", ":")
        .replace("> run.exit", "> /dev/null")
        .replace("sleep 300", "sleep 0.1")
    )
    subprocess.run(
        ["bash", "-c", command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SEEN": str(seen)},
        cwd=tmp_path,
        check=True,
    )
    cache, *given = seen.read_text().splitlines()
    return given, cache


@pytest.mark.parametrize("name", CASES)
def test_what_the_workers_get_has_survived_all_quoting(scripts, name, tmp_path):
    if name == "gke":
        (text,) = [t for p, t in files(scripts[name]).items() if p.endswith(".yaml")]
        commands = [as_kubernetes_reads(container(yaml.safe_load(text))["command"][2])]
    else:
        commands = training_commands(scripts[name])
    if name == "xpk":  # it is a command of a pod there
        commands = [as_kubernetes_reads(command) for command in commands]
    assert len(set(commands)) == 1, commands
    seen, cache = arguments(commands[0], tmp_path)
    workdir = CASES[name][CASES[name].index("--workdir") + 1]
    hours = HOURS if name in ("gke", "xpk") else []
    assert seen == ["train", *TRAINED, workdir, *SETTINGS, *hours]
    assert cache == f"{workdir}/compiled"


def as_kubernetes_reads(command):
    """$(NAME) is the variable's value, $$ a $ (the API's words on `command`)."""
    return re.sub(r"\$\$|\$\(HOME\)", lambda found: "$" if found[0] == "$$" else "/root", command)


def container(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ][0]


def jobset(*options):
    run = launch("gke", *RUN, *BUCKET, *IMAGE, *options)
    assert run.returncode == 0, run.stderr
    (text,) = [t for p, t in files(run.stdout).items() if p.endswith(".yaml")]
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("tpu", "accelerator", "chips", "pods"),
    [
        ("v4:2x2x2", "tpu-v4-podslice", 4, 2),
        ("v5e:16x16", "tpu-v5-lite-podslice", 4, 64),
        ("v5p:4x4x8", "tpu-v5p-slice", 4, 32),
        ("v6e:2x4", "tpu-v6e-slice", 4, 2),
    ],
)
def test_the_jobset_asks_for_the_whole_slice(tpu, accelerator, chips, pods):
    manifest = jobset("--tpu", tpu, "--slices", "2")
    assert (manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
        "run1",
    )
    (replicated,) = manifest["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 2
    job = replicated["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (pods, pods, 0)
    selector = job["template"]["spec"]["nodeSelector"]
    topology = tpu.split(":")[1]
    assert selector == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert container(manifest)["resources"] == {
        "requests": {"google.com/tpu": chips},
        "limits": {"google.com/tpu": chips},
    }
    assert "labels" not in manifest["metadata"]


def test_spot_nodes_queues_and_accounts_are_in_the_manifest(scripts):
    (text,) = [t for p, t in files(scripts["gke"]).items() if p.endswith(".yaml")]
    manifest = yaml.safe_load(text)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true", "a label's value is a text"
    assert any(t["key"] == "cloud.google.com/gke-spot" for t in pod["tolerations"])
    assert pod["serviceAccountName"] == "trainer"
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q1"}
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 50


def test_yaml_of_awkward_texts():
    value = {
        "a b": [
            "", "1", "1e3", "true", "no", "null", "~", "- x", "a: b", "#", 'it\'s "x"\n', "0x1",
            "1_000", "2026-11-21", "é", "-", "4x4",
        ],
        "n": [1, 1.5, True, None, [], {}, [[1, 2], [{"x": [3]}]], {"k": {"l": []}}],
    }  # fmt: skip
    assert yaml.safe_load(gke.to_yaml(value)) == value


@pytest.mark.parametrize(
    ("tpu", "words"),
    [
        ("v5e:4x8", ["--accelerator-type=v5litepod-32", "--runtime-version=v2-alpha-tpuv5-lite"]),
        ("v5p:4x4x4", ["--accelerator-type=v5p-128", "--runtime-version=v2-alpha-tpuv5"]),
        ("v4:2x2x4", ["--accelerator-type=v4-32", "--runtime-version=tpu-ubuntu2204-base"]),
        ("v6e:16x16", ["--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e"]),
        ("v5p:4x4x12", ["--type=v5p", "--topology=4x4x12"]),
        ("v4:4x8x4", ["--type=v4", "--topology=4x8x4"]),
        ("v6e:2x2", ["--accelerator-type=v6e-4"]),
    ],
)
def test_slices_have_the_clouds_names(tpu, words):
    run = launch("queued", *RUN, *BUCKET, "--tpu", tpu)
    (job,) = [text for path, text in files(run.stdout).items() if path.endswith("watch.json")]
    assert set(words) <= set(shlex.split(json.loads(job)["create"]))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("queued", ["--tpu", "v5e:4x4x4"], "a v5e slice has 2 sides"),
        ("queued", ["--tpu", "v9:4x4"], "begins with none of v4, v5e, v5p, v6e"),
        ("queued", ["--tpu", "v5e:3x2"], "four to a machine"),
        ("queued", ["--tpu", "v6e:2x16"], "no such v6e slices, but 1x1, 2x2, 2x4"),
        ("queued", ["--tpu", "v5e:32x16"], "no such v5e slices"),
        ("gke", ["--tpu", "v5p:4x6x4"], "multiples of 4 in rising order"),
        ("gke", ["--tpu", "v5p:8x4x4"], "no such v5p slices"),
        ("gke", ["--tpu", "v6e:2x2", "--slices", "2"], "joins only slices of several hosts"),
        ("xpk", ["--tpu", "v5p:2x2x1", "--slices", "2"], "joins only slices of several hosts"),
        ("xpk", ["--tpu", "v5e:2x2", "--slices", "1"], "from 8 chips on; give v5e:2x4"),
        ("xpk", ["--set", "data.note=a\nb"], "no line ends in it"),
        ("gke", ["--tpu", "tpu7x:4x4x4"], "TPU7x is not supported"),
        ("queued", ["--tpu", "v7x:2x2x1"], "TPU7x is not supported"),
        ("queued", ["--workdir", "/tmp/run"], "give a bucket: gs://BUCKET/RUN"),
        ("tpu_vm", ["--workdir", "gs://"], "give a bucket"),
        ("queued", ["--name", "Run_1"], "lower case letters"),
        ("queued", ["--name", "x; reboot"], "lower case letters"),
        ("queued", ["--config", "experiments/none.py"], "no such file in this repository"),
        ("queued", ["--config", "../../etc/passwd"], "no such file in this repository"),
        ("queued", ["--set", "steps"], "write KEY=VALUE"),
        ("queued", ["--go", "--dry-run"], "not allowed with"),
        ("queued", ["--reserved"], "not allowed with"),
        ("queued", ["--poll", "0"], "--poll 1 or more"),
        ("queued", ["--max-hours", "0"], "--max-hours must be above 0"),
        ("tpu_vm", ["--max-hours", "nan"], "--max-hours must be above 0"),
        ("gke", ["--max-hours", "0"], "--max-hours must be above 0"),
        ("xpk", ["--max-hours", "-1"], "--max-hours must be above 0"),
        ("slurm", ["--max-hours", "inf"], "--max-hours must be above 0"),
        ("gpu_box", ["--max-hours", "-0.5"], "--max-hours must be above 0"),
        ("xpk", ["--set", "train.max_hours=9"], "give --max-hours instead"),
        ("tpu_vm", ["--service-account", "trainer"], "give its e-mail address"),
        ("tpu_vm", ["--spot", "--reserved"], "not allowed with"),
        ("queued", ["--flex-start"], "not allowed with"),
        ("gke", ["--flex-start"], "not allowed with"),
        ("xpk", ["--spot", "--reservation", "mine"], "not allowed with"),
        ("xpk", ["--reservation", "a b"], "give its name"),
        ("tpu_vm", ["--retries", "-1"], "--retries must be 0 or more"),
        ("queued", ["--data", "/no/such"], "no such folder here to copy"),
        ("gke", ["--data", "gs://"], "no such folder here to copy"),
        ("xpk", ["--system", "./no-such"], "no such folder here to copy"),
        ("gpu_box", ["--gpus", "-1"], "--gpus must be 0 or more"),
        ("xpk", ["--slices", "0"], "--slices must be 1 or more"),
        ("gke", ["--restarts", "-1"], "--restarts 0 or more"),
        ("gpu_box", ["--host", "-oProxyCommand=x"], "expected one argument"),
        ("gpu_box", ["--host=-oProxyCommand=x"], "give USER@HOST"),
        ("gpu_box", ["--folder", "../x"], "below the home folder"),
        ("slurm", ["--folder", "code"], "an absolute path"),
        ("slurm", ["--time", "a day"], "write HOURS:MM:SS"),
        ("slurm", ["--nodes", "0"], "must be 1 or more"),
        ("slurm", ["--partition", "a b"], "no spaces"),
    ],
)
def test_wrong_arguments_are_named(name, options, said):
    run = launch(name, *RUN, *CASES[name], *options)
    assert run.returncode == 2 and said in run.stderr and not run.stdout


def test_a_variant_of_an_experiment_is_passed_on():
    run = launch(
        "gpu_box",
        "--name",
        "a",
        "--config",
        "experiments/compact_talker.py:runlocal",
        "--workdir",
        "w",
    )
    assert "--config experiments/compact_talker.py:runlocal" in run.stdout


def test_a_bucket_brings_what_reads_it():
    box = lambda workdir: launch("gpu_box", *RUN, "--workdir", workdir).stdout
    assert ".[gpu,data,cloud]" in box("gs://bucket/run") and ".[gpu,data]" in box("runs/a")


def preflight_of(name, *options):
    """What `mdmspeech preflight` would be given, as its parser reads it."""
    import argparse

    from mdmspeech.cli import preflight

    run = launch(name, *RUN, *CASES[name], *options)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if "mdmspeech preflight" in line]
    (words,) = [shlex.split(line) for line in lines if line.startswith("env ")]
    parser = argparse.ArgumentParser()
    preflight.add(parser.add_subparsers())
    return parser.parse_args(words[words.index("mdmspeech") + 1 :])


@pytest.mark.parametrize("name", CASES)
def test_every_launcher_looks_before_it_pays(name):
    given = preflight_of(name, *SETTINGS, "--data", "gs://bucket/a corpus")
    workdir = CASES[name][CASES[name].index("--workdir") + 1]
    assert (given.config, given.workdir, given.data) == (RUN[3], workdir, "gs://bucket/a corpus")
    assert given.set == [*SETTINGS[1::2], *(HOURS[1:] if name in ("gke", "xpk") else [])]
    assert given.account == ("" if name in ("gpu_box", "slurm") else "$account")
    expected = {
        "tpu_vm": ("v5e:2x4", 1, 0, "empty"),
        "queued": ("v5p:4x4x4", 1, 0, "empty"),
        "xpk": ("v5e:16x16", 2, 0, "empty"),
        "gke": ("v6e:8x8", 3, 0, "empty"),
        "gpu_box": ("", 1, 0, "there"),
        "slurm": ("", 1, 32, "there"),
    }[name]
    assert (given.topology, given.slices, given.chips, given.disks) == expected


@pytest.mark.parametrize("name", CASES)
def test_no_preflight_is_said_aloud(name):
    script = launch(name, *RUN, *CASES[name], "--no-preflight").stdout
    assert "mdmspeech preflight" not in script and "echo 'no preflight: " in script


@pytest.mark.parametrize("name", ["tpu_vm", "queued", "xpk", "gke"])
def test_folders_of_this_machine_are_copied_for_machines_with_empty_disks(name, tmp_path):
    system, data = tmp_path / "a system", tmp_path / "corpus"
    for folder in (system, data / "datasets"):
        folder.mkdir(parents=True)
    options = ["--system", str(system), "--data", str(data)]
    script = launch(name, *RUN, *CASES[name], *options).stdout
    place = "gs://bucket/some run/launch"
    copies = [shlex.split(line)[4:] for line in script.splitlines() if "storage rsync" in line]
    assert copies == [
        [f"{data}/datasets", f"{place}/data/datasets"],
        [str(system), f"{place}/system"],
    ]
    given = preflight_of(name, *options)
    assert (given.system, given.data) == (str(system), str(data)), "looked at where they are"
    if name == "gke":
        (text,) = [text for path, text in files(script).items() if path.endswith(".yaml")]
        command = as_kubernetes_reads(container(yaml.safe_load(text))["command"][2])
    else:
        (command,) = set(training_commands(script))
    for option in ("data", "system"):
        assert re.search(rf"--{option} .{{0,9}}{place}/{option}", command), command


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("queued", ["--system", "gs://bucket/system"]),
        ("tpu_vm", ["--system", "compact"]),
        ("gpu_box", ["--system", "/data/system"]),
        ("slurm", ["--system", "parts/system"]),
    ],
)
def test_a_system_is_passed_on(name, options):
    script = launch(name, *RUN, *CASES[name], *options).stdout
    (command,) = set(training_commands(script))
    assert f"--system {options[1]}" in command and "rsync --recursive" not in script
    assert preflight_of(name, *options).system == options[1]


def test_what_is_installed_on_a_pod_is_pinned():
    """Everything that the extras of a pod bring, as it is installed here, has its version in
    constraints.txt.
    """
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
    pinned = {normal(line.split("==")[0]) for line in lines if "==" in line}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [config["options"]["install_requires"]]
    wanted += [config["options.extras_require"][extra] for extra in ("tpu", "cloud", "data")]
    lines = "\n".join(wanted).splitlines()
    queue = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    seen, missing = set(), set()
    while queue:
        one = queue.pop()
        for extra in ("", *sorted(one.extras)):
            if (key := (normal(one.name), extra)) in seen:
                continue
            seen.add(key)
            missing |= set() if key[0] in pinned else {key[0]}
            try:
                needs = requires(one.name) or []
            except PackageNotFoundError:
                continue
            rows = (Requirement(line) for line in needs)
            queue += [r for r in rows if not r.marker or r.marker.evaluate({"extra": extra})]
    assert not missing


def test_the_readmes_commands_are_right():
    text = (ROOT / "launch" / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^    python launch/(\w+)\.py (.*)$", text, re.M)
    assert {name for name, _ in commands} == {*CASES, "dataflow"}
    for name, options in commands:
        words = shlex.split(options)
        if "--config" in words and not (ROOT / words[words.index("--config") + 1]).exists():
            continue
        run = launch(name, *[w.replace("gs://BUCKET", "gs://bucket") for w in words])
        assert run.returncode == 0, (name, run.stderr)
