"""What the launchers' shell does, with stand-ins for the programs: how it stops, starts once, keeps
its logs, follows pods through restarts.
"""

import argparse
import os
import re
import signal
import subprocess
import time

import common
import pods
import pytest
from dry_run import BUCKET, ROOT, RUN, launch

ARGS = argparse.Namespace(config="c.py", workdir="w", data=None, system=None, set=[])


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
    program = tmp_path / "venv" / "bin" / "mdmspeech"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/bin/bash\necho "training $@"\nuntil [ -e go ]; do sleep 0.05; done\nexit 3\n'
    )
    (program.parent / "python").write_text("#!/bin/bash\necho python >> installed\n")
    for file in program.parent.iterdir():
        file.chmod(0o755)
    (tmp_path / "worker.sh").write_text(common.worker(ARGS, "gpu", unpack=False))
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
    log = "training train --config c.py --workdir w\n"
    assert followed.returncode == 3 and followed.stdout == f"{log}{common.ENDED} 3\n"
    assert (tmp_path / "installed").read_text() == "python\n", "installed once"
    subprocess.run(["bash", "-c", common.stop()], cwd=tmp_path, check=True)


def write(folder, **programs):
    """Programs of bash, by name."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)


def test_logs_of_a_worker_are_kept_here_and_in_the_bucket(tmp_path):
    write(tmp_path / "venv" / "bin", mdmspeech="echo the end", python="")
    # the copy of the log is as it was when it was made
    write(
        tmp_path / "bin", gcloud='echo "$*" >> copies; cp run.log copied', hostname="echo t1v-w-3"
    )
    script = common.worker(ARGS, "gpu", unpack=False, logs="gs://b/a run/logs")
    (tmp_path / "worker.sh").write_text(script.replace("sleep 300", "sleep 0.2"))
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    for n in range(6):
        (tmp_path / f"run.log{f'.{n}' * (n > 0)}").write_text(f"start {n} before this\n")
    subprocess.run(["bash", "worker.sh"], cwd=tmp_path, env=env, check=True)
    followed = ["bash", "-c", common.follow()]
    subprocess.run(followed, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    kept = sorted(path.name for path in tmp_path.glob("run.log*"))
    assert kept == ["run.log", *(f"run.log.{n}" for n in range(1, 6))]
    told = [(tmp_path / f"run.log.{n}").read_text() for n in range(1, 6)]
    assert told == [f"start {n} before this\n" for n in range(5)], "the oldest has gone"
    assert (tmp_path / "copied").read_text() == "the end\n"
    (copy,) = {re.sub(r"\d{8}T\d{6}Z", "TIME", line) for line in (tmp_path / "copies").open()}
    assert copy == "storage cp --quiet run.log gs://b/a run/logs/TIME-t1v-w-3.log\n"


def running(group):
    """Whether any process of a group is; one that only waits to be reaped is not."""
    told = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
    rows = (line.split() for line in told.splitlines())
    return any(pgid == group and not state.startswith("Z") for pgid, state in rows)


@pytest.mark.parametrize("saves", [True, False])
def test_stopping_waits_for_a_save_but_not_for_ever(tmp_path, saves):
    end = "trap 'sleep 0.5; echo saved > saved; exit 0' TERM" if saves else "trap '' TERM"
    write(tmp_path / "venv" / "bin", python="", mdmspeech=f"{end}; echo ready > ready; sleep 60 & "
          "while ! wait; do :; done")  # fmt: skip
    (tmp_path / "worker.sh").write_text(common.worker(ARGS, "gpu", unpack=False))
    subprocess.run(["bash", "worker.sh"], cwd=tmp_path, check=True)
    subprocess.run(["bash", "-c", "until [ -e ready ]; do sleep 0.02; done"], cwd=tmp_path)
    subprocess.run(["bash", "-c", common.stop(3 if saves else 1)], cwd=tmp_path, check=True)
    assert (tmp_path / "saved").exists() == saves
    group = (tmp_path / "run.pid").read_text().strip()
    for _ in range(100):
        if not running(group):
            break
        time.sleep(0.05)
    assert not running(group)
    assert not saves or (tmp_path / "run.exit").read_text() == f"{common.STOPPED}\n"


@pytest.mark.parametrize(
    ("code", "quick", "expected"),
    [
        (0, True, 0),
        (1, True, 1),
        (2, True, 2),
        (75, True, 1),  # nothing can have been learnt: counted
        (75, False, 75),
        (134, True, 134),
        (137, False, 137),
    ],
)
def test_what_a_pod_ends_with(tmp_path, code, quick, expected):
    write(tmp_path, mdmspeech=f"exit {code}")
    shell = pods.command(ARGS).replace("cd /mdmspeech", ":")
    assert f"-lt {common.QUICK_S} " in shell
    if not quick:
        shell = shell.replace(f"-lt {common.QUICK_S} ", "-lt 0 ")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True)
    assert done.returncode == expected
    assert ("counted as a crash" in done.stderr) == (code == 75 and quick)


def test_a_pod_that_is_told_to_stop_at_once_is_no_crash(tmp_path):
    write(tmp_path, mdmspeech="trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    shell = subprocess.Popen(
        ["bash", "-c", pods.command(ARGS).replace("cd /mdmspeech", ":")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout.readline() == "ready\n"
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(timeout=60) == common.STOPPED


_KUBECTL = """
echo "$*" >> $LOG
case "$*" in
  *"get jobset"*range*) echo "Failed: jobset failed due to policy" ;;
  *"get jobset"*) line=$(head -n 1 states); sed -i 1d states; [ "$line" = ERROR ] && exit 1
    [ "$line" = GONE ] || echo "run1 $line" ;;
  *logs*) echo "[pod] a line" ;;
esac
"""


@pytest.mark.parametrize(
    ("states", "code", "said"),
    [
        (["", "", "Completed"], 0, ""),
        (["", "ERROR", "ERROR", "", "Completed"], 0, "says nothing of the run"),
        (["ERROR", "Failed"], 1, "due to policy"),
        (["", "Failed"], 1, "due to policy"),
        (["", "GONE"], 1, "was deleted"),
    ],
)
@pytest.mark.parametrize("name", ["gke", "xpk"])
def test_pods_are_followed_through_restarts_to_the_end(tmp_path, name, states, code, said):
    image = ["--image", "registry/x:1", "--cluster", "c1"]
    run = launch(name, *RUN, *BUCKET, *image, "--tpu", "v5e:4x4", "--slices", "2")
    script = run.stdout[run.stdout.index("# Follow the logs") :]
    folder = common.stage("run1")
    script = "set -euo pipefail\nsleep() { :; }\n" + script.replace(folder, str(tmp_path))
    write(tmp_path / "bin", kubectl=_KUBECTL)
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "pods.log").write_text("of the launcher before\n")
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "LOG": str(tmp_path / "called")}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code and said in done.stderr
    followed = [line for line in (tmp_path / "called").open() if line.startswith("logs")]
    running = sum(state == "" for state in states)
    assert len(followed) == running == done.stdout.count("a line")
    assert all("--max-log-requests=8" in line and "jobset-name=run1" in line for line in followed)
    assert ["--since-time=20" in line for line in followed] == [n > 0 for n in range(running)]
    assert (tmp_path / "logs" / "pods.log.1").read_text() == "of the launcher before\n"
    if running:
        assert (tmp_path / "logs" / "pods.log").read_text() == "[pod] a line\n" * running


@pytest.mark.parametrize("name", ["gke", "xpk"])
@pytest.mark.parametrize(("there", "built"), [("jobset/run1", False), ("", True), ("ERROR", None)])
def test_a_job_that_runs_is_not_built_again(tmp_path, name, there, built):
    image = ["--image", "registry/x:1", "--cluster", "c1"]
    run = launch(name, *RUN, *BUCKET, *image, "--tpu", "v5e:4x4", "--no-preflight")
    script = run.stdout.replace(common.stage("run1"), str(tmp_path / "stage"))
    called = "echo $(basename $0) $* >> $LOG\n"
    answer = "case $* in *terminalState*) echo run1 Completed ;; *output=name*) "
    answer += "exit 1 ;; esac" if there == "ERROR" else f"echo {there} ;; esac"
    tools = dict.fromkeys(("gcloud", "xpk", "git", "tar"), called)
    write(tmp_path / "bin", kubectl=called + answer, **tools)
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "LOG": str(tmp_path / "called")}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, timeout=60)
    calls = (tmp_path / "called").read_text()
    assert done.returncode == (1 if built is None else 0), done.stderr
    assert (
        ("builds submit" in calls)
        == ("apply" in calls or "workload create" in calls)
        == bool(built)
    )
    assert ("terminalState" in calls) == (built is not None)


def test_the_exit_code_for_stopping_is_the_one_of_a_lost_worker():
    sources = (ROOT / "mdmspeech").rglob("*.py")
    found = [re.findall(r"^TRY_AGAIN = (\d+)\b", path.read_text(), re.M) for path in sources]
    assert [code for codes in found for code in codes] == [str(common.STOPPED)]


def test_the_readme_has_the_table_of_exit_codes():
    text = (ROOT / "launch" / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.M)
    assert rows == [(str(ending.code), ending.meaning) for ending in common.ENDINGS]
