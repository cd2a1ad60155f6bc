"""What the sbatch script does with exit codes and signals, by stand-ins for Slurm's programs. On a
real Slurm: test_slurm_real.py.
"""

import re
import signal
import subprocess
import time

import common
import pytest
from dry_run import RUN, files, launch

# As Slurm's: the tasks side by side, killed when one fails; the largest exit code.
SRUN = r"""#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for SLURM_PROCID in 0 1; do
  export SLURM_PROCID; setsid "$@" & echo $! >> pids
done
max=0
for pid in $(cat pids); do wait "$pid"; code=$?; [ "$code" -le "$max" ] || max=$code; done
exit "$max"
"""
# To the tasks' first processes alone, as with proctrack/cgroup, or to all of them.
SCANCEL = r"""#!/bin/bash
echo "$*" >> scancelled
for pid in $(cat pids); do kill -TERM -- "$GROUP$pid"; done
"""
TRAIN = r"""#!/bin/bash
case "$(cat "task$SLURM_PROCID")" in
  train) trap 'saved=1' TERM; echo ready >> started
    for _ in {1..600}; do [ -n "${saved:-}" ] && { sleep 0.2; echo saved >> saved; exit 0; }; sleep 0.05; done ;;
  *) exit "$(cat "task$SLURM_PROCID")" ;;
esac
"""
SCONTROL = r"""#!/bin/bash
[ "$1" != requeue ] || { echo "$*" >> requeued; exit; }
echo "JobId=17 JobState=$(cat state) EndTime=$(cat ends) Reason=None"
"""
PROGRAMS = {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL, "venv/bin/mdmspeech": TRAIN}


@pytest.fixture
def start(tmp_path):
    """start(tasks, options of the launcher) -> the running batch script; tasks: what each does;
    group: "-" for signals to all processes of a task.
    """

    def begin(tasks, *options, group="", ends="2100-01-01T00:00:00"):
        (tmp_path / "state").write_text("RUNNING")
        (tmp_path / "ends").write_text(ends)
        for name, text in PROGRAMS.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        for number, what in enumerate(tasks):
            (tmp_path / f"task{number}").write_text(what)
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "GROUP": group}
        return subprocess.Popen(["bash", "-c", script(*options)], cwd=tmp_path, env=env)

    return begin


def script(*options):
    run = launch("slurm", *RUN, "--workdir", "w", "--folder", "/shared/code", *options)
    (text,) = [text for path, text in files(run.stdout).items() if path.endswith(".sbatch")]
    return text


@pytest.mark.parametrize(
    ("tasks", "code", "again"),
    [
        (("0", "0"), 0, False),
        (("75", "75"), 75, True),  # a late or lost peer
        (("137", "75"), 137, True),  # killed: a lost node
        (("134", "137"), 137, True),  # JAX's own check
        (("2", "2"), 2, False),  # a wrong setting, loss that is not finite
        (("2", "137"), 2, False),  # the same, and srun killed the other
        (("75", "1"), 1, False),  # one fails, the other has lost it
        (("1", "134"), 1, False),
        (("127", "127"), 127, False),  # not installed
        (("139", "75"), 139, False),  # a segmentation fault
    ],
)
def test_which_ends_are_queued_again(start, tmp_path, tasks, code, again):
    assert start(tasks).wait(60) == code
    assert (tmp_path / "requeued").exists() == again
    if again:
        assert (tmp_path / "requeued").read_text() == "requeue 17\n"


@pytest.mark.parametrize("group", ["", "-"])
def test_told_to_stop_the_tasks_save_and_the_job_is_queued_again(start, tmp_path, group):
    batch = start(("train", "train"), group=group)
    until(tmp_path / "started", 2)
    # Slurm signals the tasks; a person may signal the script, which does the same.
    batch.send_signal(signal.SIGTERM)
    assert batch.wait(60) == common.STOPPED
    assert (tmp_path / "scancelled").read_text() == "--signal=TERM 17\n"
    assert (tmp_path / "saved").read_text() == "saved\n" * 2
    assert (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("state", "ends", "again"),
    [
        ("CANCELLED", "2100-01-01T00:00:00", False),
        ("COMPLETING", "2100-01-01T00:00:00", False),  # what a cancelled job is at first
        ("COMPLETING", "Unknown", False),  # without a limit
        ("COMPLETING", "2020-01-01T00:00:00", True),  # its time was up while it saved
        ("RUNNING", "2020-01-01T00:00:00", True),
        ("RUNNING", "2100-01-01T00:00:00", True),  # told to stop ahead of its end
    ],
)
def test_a_job_that_was_cancelled_is_not_queued_again(start, tmp_path, state, ends, again):
    batch = start(("train", "train"), ends=ends)
    until(tmp_path / "started", 2)
    (tmp_path / "state").write_text(state)
    batch.send_signal(signal.SIGTERM)
    assert batch.wait(60) == common.STOPPED
    assert (tmp_path / "requeued").exists() == again


def test_a_job_that_does_not_get_on_is_given_up(start, tmp_path):
    """Out of memory at every start, say; a long life begins the count anew."""
    again = lambda: (tmp_path / "requeued").read_text().count("requeue 17")
    for lives in (1, 2, 2):
        assert start(("137", "137"), "--retries", "2").wait(60) == 137
        (tmp_path / "pids").unlink()
        assert again() == lives
    text = script("--retries", "2").replace(f"-lt {common.QUICK_S}", "-lt 0")
    for lives in (3, 4, 5):
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
        assert subprocess.run(["bash", "-c", text], cwd=tmp_path, env=env).returncode == 137
        (tmp_path / "pids").unlink()
        assert again() == lives


def test_the_signal_before_the_end_goes_to_the_tasks():
    text = script("--grace", "90", "--cpus", "6")
    assert re.search(r"^#SBATCH --signal=TERM@90$", text, re.M)
    assert "srun --cpus-per-task=6 " in text, "srun does not take it from the job"


def until(path, lines):
    end = time.monotonic() + 30
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < end
        time.sleep(0.02)
