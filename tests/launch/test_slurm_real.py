"""launch/slurm.py on a real Slurm of one node, which the test starts and ends: what it submits is
the text that the launcher writes. `make slurm-test`; skipped where Slurm is not installed.
"""

import json
import os
import re
import shlex
import sys
import time

import pytest
from dry_run import ROOT, files, launch
from slurm_cluster import missing, running

sys.path.insert(0, str(ROOT / "tests" / "training"))

from environments import slurm_step
from processes import assert_identical, rows

from mdmspeech.training.joining import find_peers

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]
STEPS, TASKS = 50, 2


@pytest.fixture(scope="module")
def cluster():
    with running() as up:
        yield up


@pytest.fixture
def folder(tmp_path):
    """What the launcher would have installed: the code, and the program in venv/bin."""
    for name in ("experiments", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = tmp_path / "venv" / "bin" / "mdmspeech"
    program.parent.mkdir(parents=True)
    places = f"PYTHONPATH={ROOT} JAX_PLATFORMS=cpu XLA_FLAGS="
    program.write_text(
        f'#!/bin/sh\nexec env {places} {shlex.quote(sys.executable)} -m mdmspeech "$@"\n'
    )
    program.chmod(0o755)
    return tmp_path


def written(folder, name, *settings, time="10:00", grace=30):
    """The launcher's sbatch file of a run, in its folder."""
    run = launch(
        *("slurm", "--name", name, "--config", "tests/launch/paced.py"),
        *("--workdir", str(folder / name), "--folder", str(folder), "--nodes", "1"),
        *("--gpus", str(TASKS), "--cpus", "1", "--time", time, "--grace", str(grace)),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert run.returncode == 0, run.stderr
    (text,) = [text for path, text in files(run.stdout).items() if path.endswith(".sbatch")]
    script = folder / f"{name}.sbatch"
    script.write_text(text)
    return script


def log(folder, name):
    return (folder / f"{name}.log").read_text()


def test_preempted_by_time_it_saves_is_queued_again_and_ends_as_if_nothing_had_happened(
    cluster, folder
):
    whole = cluster.submit(written(folder, "whole"))
    assert cluster.ended(whole, 300)["ExitCode"] == "0:0", log(folder, "whole")
    # The signal comes 25 to 55 s after the start, and 50 batches of a second do not fit before it.
    number = cluster.submit(written(folder, "parts", "paced.pause=1.0", time="1:00", grace=5))
    job = cluster.ended(number, 600)
    said = log(folder, "parts")
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), said
    assert int(job["Restarts"]) >= 1
    stops = [int(step) for step in re.findall(rf"SIGTERM: saved.*at step (\d+)/{STEPS}", said)]
    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", said)]
    # Nothing is saved on the way, so it was because it was told to.
    assert 0 < stops[0] == resumed[0] and "new run" in said, said
    assert len(rows(folder / "parts")) >= STEPS
    assert_identical(folder / "whole", folder / "parts")


def test_told_to_stop_by_hand_it_goes_on_too(cluster, folder):
    """`scancel --signal` to the tasks, and --batch to the script, which passes it on."""
    number = cluster.submit(written(folder, "told", "paced.pause=0.5", "train.steps=20"))
    for life, options in enumerate([(), ("--batch",)], 1):
        _until_training(cluster, folder, life)
        cluster.run("scancel", "--signal=TERM", *options, number)
        _wait(lambda life=life: int(cluster.job(number)["Restarts"]) == life, cluster)
    assert cluster.ended(number, 300)["Restarts"] == "2", log(folder, "told")
    assert log(folder, "told").count("SIGTERM: saved") == 2
    assert rows(folder / "told")[-1]["step"] == 20


def test_cancelled_it_is_not_queued_again(cluster, folder):
    number = cluster.submit(written(folder, "told", "paced.pause=0.5"))
    _until_training(cluster, folder, 1)
    cluster.run("scancel", number)
    _wait(lambda: not cluster.run("squeue", "--noheader"), cluster)
    job = cluster.job(number)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), (job, log(folder, "told"))


@pytest.mark.parametrize(
    ("settings", "code"),
    [(["train.steps=0"], "2:0"), (["paced.pause=-1.0"], "1:0")],
)
def test_an_error_of_its_own_ends_it(cluster, folder, settings, code):
    number = cluster.submit(written(folder, "wrong", *settings))
    job = cluster.ended(number, 120)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", code, "0"), log(
        folder, "wrong"
    )


def test_the_environment_of_a_task_is_the_recorded_one(cluster, tmp_path):
    script = tmp_path / "env.sbatch"
    dump = shlex.quote(
        f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    )
    script.write_text(
        "#!/bin/sh\n#SBATCH --ntasks-per-node=2 --nodes=1 --output=batch.json\n"
        f"sh -c {dump}\nsrun --output=task%t.json sh -c {dump}\n"
    )
    cluster.ended(cluster.submit(script), 60)
    read = lambda name: json.loads((tmp_path / f"{name}.json").read_text())
    batch, tasks = read("batch"), [read("task0"), read("task1")]
    ask = lambda name: None
    assert find_peers(batch, platforms=None, libtpu=False, ask=ask) is None
    peers = [find_peers(task, platforms=None, libtpu=False, ask=ask) for task in tasks]
    host = os.uname().nodename.partition(".")[0]
    assert sorted((p.number, p.count, p.local_device) for p in peers) == [(0, 2, 0), (1, 2, 1)]
    assert {p.coordinator.partition(":")[0] for p in peers} == {host}
    assert slurm_step(2, 0).keys() <= tasks[0].keys()


def _until_training(cluster, folder, life):
    """A step and more of its so manieth life are done."""
    path = folder / "told.log"
    begun = re.compile(
        r"(?:new run|resumed at step)[^\n]*\n(?:(?!new run|resumed).)*?\nstep ", re.S
    )
    _wait(lambda: path.exists() and len(begun.findall(path.read_text())) >= life, cluster)


def _wait(condition, cluster):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.3)
