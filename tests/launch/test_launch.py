"""Launchers: what a dry run prints, in which order and quoted how; wrong arguments; the manifest;
and how the loop reacts, against a stand-in.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "launch"))
import common  # noqa: E402
import gke  # noqa: E402

RUN = ["--name", "run1", "--config", "experiments/compact_talker.py"]
BUCKET = ["--workdir", "gs://bucket/some run", "--project", "proj", "--zone", "us-east5-b"]
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
SETTINGS = ["--set", "train.steps=20", "--set", 'data.note=it\'s $HOME; "x"']
TRAINED = ["--config", "experiments/compact_talker.py", "--workdir"]


def launch(name, *options):
    """A dry run, in this process; programs cannot be started in it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(subprocess, "Popen", None)
        try:
            code = importlib.import_module(name).main(list(options))
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(name, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def scripts():
    results = {name: launch(name, *RUN, *options, *SETTINGS) for name, options in CASES.items()}
    assert all(r.returncode == 0 and "nothing was done" in r.stderr for r in results.values()), (
        results
    )
    return {name: result.stdout for name, result in results.items()}


def files(script):
    """{path: text} of the files that a script writes."""
    return {
        shlex.split(path)[0]: text
        for path, end, text in re.findall(
            r"^cat > ([^\n]*) <<'(\w+)'\n(.*?\n)\2$", script, re.M | re.S
        )
    }


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
    "tpu_vm": ["git ls-files", "tpu-vm create", "tpu-vm scp", "--worker=all", "bash worker.sh",
        "--worker=0", "tail -n +1", "tpu-vm delete"],
    "queued": [
        "git ls-files", "gcloud storage cp", "queued-resources describe", "queued-resources create",
        "bash worker.sh", "--worker=0", "tail -n +1",
        "SUSPENDED", "queued-resources delete",
    ],
    "xpk": ["git ls-files", "gcloud builds submit", "xpk workload create", "get-credentials",
        "kubectl wait", "kubectl logs"],
    "gke": ["git ls-files", "gcloud builds submit", "kind: JobSet", "get-credentials",
        "kubectl apply", "kubectl wait", "kubectl logs"],
    "gpu_box": ["git ls-files", "rsync", "worker.sh", "ssh me@box", "bash worker.sh", "tail -n +1"],
    "slurm": ["ssh me@login", "git ls-files", "rsync", "#SBATCH", "srun", "pip install",
        "sbatch run1.sbatch", "tail -n +1"],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_commands_come_in_order(scripts, name):
    position = 0
    for words in ORDER[name]:
        position = scripts[name].index(words, position)


def training_commands(script):
    """Every shell text in a script that starts training, after the shells on the way to a worker have
    unwrapped it.
    """
    texts = [script, *files(script).values()]
    found = []
    while texts:
        text = texts.pop()
        if (
            re.search(r"(^|; )[\w/ =-]*mdmspeech train ", text)
            and "nohup" not in text
            and "\n" not in text
        ):
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
            if re.match(r"(stopped=; .*)?(srun .*)?[\w/]*mdmspeech train ", line) and line != text:
                texts.append(line)
    return found


def arguments(command, tmp_path):
    """What the program would be given, by letting bash run the command with a program that writes down
    its arguments.
    """
    for name in ("mdmspeech", "srun"):
        stand_in = tmp_path / name
        stand_in.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$SEEN"\n')
        stand_in.chmod(0o755)
    seen = tmp_path / "seen"
    command = (
        command.replace("venv/bin/mdmspeech", "mdmspeech")
        .replace("cd /mdmspeech", ":")
        .replace("> run.exit", "> /dev/null")
    )
    subprocess.run(
        ["bash", "-c", command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SEEN": str(seen)},
        cwd=tmp_path,
        check=True,
    )
    return seen.read_text().splitlines()


@pytest.mark.parametrize("name", CASES)
def test_what_the_workers_get_has_survived_all_quoting(scripts, name, tmp_path):
    if name == "gke":
        (text,) = [t for p, t in files(scripts[name]).items() if p.endswith(".yaml")]
        commands = [container(yaml.safe_load(text))["command"][2]]
    else:
        commands = training_commands(scripts[name])
    assert len(set(commands)) == 1, commands
    seen = arguments(commands[0], tmp_path)
    seen = seen[seen.index("train") + 1 :]
    workdir = CASES[name][CASES[name].index("--workdir") + 1]
    assert seen == [*TRAINED, workdir, *SETTINGS]


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
        ("v5e:1x1", "tpu-v5-lite-podslice", 1, 1),
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
    assert manifest["spec"]["failurePolicy"] == {"maxRestarts": 50}


def test_yaml_of_awkward_texts():
    value = {
        "a b": [
            "",
            "1",
            "1e3",
            "true",
            "no",
            "null",
            "~",
            "- x",
            "a: b",
            "#",
            'it\'s "x"\n',
            "0x1",
            "1_000",
            "2026-11-21",
            "é",
            "-",
            "4x4",
        ],
        "n": [1, 1.5, True, None, [], {}, [[1, 2], [{"x": [3]}]], {"k": {"l": []}}],
    }
    assert yaml.safe_load(gke.to_yaml(value)) == value


@pytest.mark.parametrize(
    ("tpu", "words"),
    [
        ("v5e:4x8", ["--accelerator-type=v5litepod-32", "--runtime-version=v2-alpha-tpuv5-lite"]),
        ("v5p:4x4x4", ["--accelerator-type=v5p-128", "--runtime-version=v2-alpha-tpuv5"]),
        ("v4:2x2x4", ["--accelerator-type=v4-32", "--runtime-version=tpu-ubuntu2204-base"]),
        ("v6e:16x16", ["--accelerator-type=v6e-256", "--runtime-version=v2-alpha-tpuv6e"]),
        ("v5p:4x4x12", ["--type=v5p", "--topology=4x4x12"]),
    ],
)
def test_slices_have_the_clouds_names(tpu, words):
    run = launch("queued", *RUN, *BUCKET, "--tpu", tpu)
    (line,) = [line for line in run.stdout.splitlines() if "queued-resources create" in line]
    assert set(words) <= set(shlex.split(line.split("||")[0]))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("queued", ["--tpu", "v5e:4x4x4"], "a v5e slice has 2 sides"),
        ("queued", ["--tpu", "v9:4x4"], "begins with none of v4, v5e, v5p, v6e"),
        ("queued", ["--tpu", "v5e:3x2"], "four to a machine"),
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


# ---- What the shell does, with stand-ins for the programs ---------------------------------------


@pytest.mark.parametrize("forward", [True, False])
def test_told_to_stop_is_not_done(tmp_path, forward):
    # As training does: saves and exits with 0.
    training = tmp_path / "training"
    training.write_text(
        '#!/bin/bash\ntrap "sleep 0.2; echo saved; exit 0" TERM\necho ready\nfor _ '
        "in {1..1200}; do sleep 0.05; done\n"
    )
    training.chmod(0o755)
    shell = subprocess.Popen(
        ["bash", "-c", common.supervised(str(training), forward)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert shell.stdout.readline() == "ready\n"
    if forward:
        shell.send_signal(signal.SIGTERM)
    else:
        os.killpg(shell.pid, signal.SIGTERM)
    out, _ = shell.communicate(timeout=60)
    assert out == "saved\n" and shell.returncode == common.STOPPED


@pytest.mark.parametrize("code", [0, 2, 75])
@pytest.mark.parametrize("forward", [True, False])
def test_an_end_of_its_own_keeps_its_exit_code(code, forward):
    assert (
        subprocess.run(["bash", "-c", common.supervised(f"(exit {code})", forward)]).returncode
        == code
    )


def test_a_worker_starts_once_and_tells_how_it_ended(tmp_path):
    args = argparse.Namespace(config="c.py", workdir="w", data=None, set=[])
    program = tmp_path / "venv" / "bin" / "mdmspeech"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/bin/bash\necho "training $@"\nuntil [ -e go ]; do sleep 0.05; done\nexit 3\n'
    )
    (program.parent / "python").write_text("#!/bin/bash\necho python >> installed\n")
    for file in program.parent.iterdir():
        file.chmod(0o755)
    (tmp_path / "worker.sh").write_text(common.worker(args, "gpu", unpack=False))
    start = lambda: (
        subprocess.run(
            ["bash", "worker.sh"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
    )
    assert start() == "" and start() == "already training\n"
    (tmp_path / "go").touch()
    followed = subprocess.run(
        ["bash", "-c", common.follow()], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (
        followed.returncode == 3 and followed.stdout == "training train --config c.py --workdir w\n"
    )
    assert (tmp_path / "installed").read_text() == "python\n", "installed once"
    subprocess.run(["bash", "-c", common.stop()], cwd=tmp_path, check=True)


_GCLOUD = """#!/bin/bash
echo "$*" >> "$LOG"
next() { head -n 1 "$1"; sed -i 1d "$1"; }
case "$*" in
  *"queued-resources describe"*) state=$(next states); [ "$state" = NONE ] && exit 1; echo "$state" ;;
  *worker=0*) exit "$(next codes)" ;;
esac
"""


def drive(tmp_path, states, codes, *options):
    """(exit code, calls to gcloud) of the loop of queued.py, against a stand-in that tells these
    states and exit codes of training.
    """
    run = launch("queued", *RUN, *BUCKET, "--tpu", "v5p:4x4x4", "--spot", "--poll", "1", *options)
    loop = "set -euo pipefail\nsleep() { :; }\n" + run.stdout[run.stdout.index("refused=0") :]
    (tmp_path / "gcloud").write_text(_GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    (tmp_path / "codes").write_text("\n".join(str(c) for c in codes) + "\n")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(tmp_path / "log")}
    done = subprocess.run(
        ["bash", "-c", loop], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    calls = [line for line in (tmp_path / "log").read_text().splitlines() if "describe" not in line]
    kinds = {
        "create": "resources create",
        "delete": "resources delete",
        "stop": "kill -TERM",
        "start": "bash worker.sh",
        "follow": "worker=0",
    }
    return done.returncode, [
        next(kind for kind, words in kinds.items() if words in call) for call in calls
    ]


def test_a_slice_is_asked_for_and_deleted_when_training_is_done(tmp_path):
    states = ["NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    assert drive(tmp_path, states, [0]) == (0, ["create", "start", "follow", "delete"])


def test_a_preempted_slice_is_asked_for_again(tmp_path):
    states = ["NONE", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED", "NONE", "ACTIVE"]
    code, calls = drive(tmp_path, states, [75, 255, 0])
    assert code == 0
    assert calls == [
        *["create", "start", "follow", "stop"],  # told to stop: exit code 75
        *["start", "follow"],  # the connection is lost
        *["delete", "delete", "create", "start", "follow", "delete"],
    ]


def test_training_that_crashes_is_given_up_and_the_slice_kept(tmp_path):
    code, calls = drive(tmp_path, ["ACTIVE"] * 9, [2] * 9, "--retries", "1")
    assert code == 2 and calls == ["start", "follow", "stop"] * 2


def test_kept_if_asked(tmp_path):
    assert drive(tmp_path, ["ACTIVE"], [0], "--keep") == (0, ["start", "follow"])


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


def test_the_exit_code_for_stopping_is_the_one_of_a_lost_worker():
    source = (ROOT / "mdmspeech" / "training" / "distributed.py").read_text()
    assert re.search(r"^TRY_AGAIN = 75\b", source, re.M)
