"""What the launchers' shell does, with stand-ins for the programs: how it stops, starts once, asks
again for a slice that was taken away.
"""

import argparse
import os
import signal
import subprocess

import common
import pytest
from dry_run import BUCKET, RUN, launch

from mdmspeech.errors import TryAgainError


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


def test_the_exit_code_for_stopping_is_the_one_of_a_lost_worker():
    assert TryAgainError.exit_code == common.STOPPED
