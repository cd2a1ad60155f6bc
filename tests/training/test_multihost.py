"""Several real processes: the same run as one process, whatever happens to them in between."""

import contextlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from environments import KAGGLE, device_plugin, jobset, lws, open_mpi, slurm_step, tpu_vm
from metadata_server import serving
from processes import (
    Process,
    assert_identical,
    free_port,
    last_row,
    rows,
    start_together,
    steps_saved,
    stored,
    wait_until,
)
from tiny import TinyTask, tiny_config

from mdmspeech.cli import main
from mdmspeech.errors import TRY_AGAIN, TryAgainError, UserError
from mdmspeech.training import distributed
from mdmspeech.training.joining import Peers
from mdmspeech.training.loop import train
from mdmspeech.training.mesh import make_mesh

STEPS, HEARTBEAT_S = 16, 10
OPTIONS = ("--steps", STEPS, "--eval-every", 0, "--heartbeat-s", HEARTBEAT_S)
COUNTS = [2, pytest.param(4, marks=pytest.mark.full)]
# how a process ends that has lost another: JAX's own check aborts
LOST = (TRY_AGAIN, -signal.SIGABRT)


def one_process(workdir, steps=STEPS, **mesh):
    config = tiny_config(steps=steps, eval_every=0)
    config.mesh.update(mesh)
    return train(config, TinyTask(), workdir)


def losses(workdir):
    return {row["step"]: row["train/loss"] for row in rows(workdir) if "train/loss" in row}


def assert_close(one, other, steps=STEPS):
    """The same curve and final state, up to the order in which devices add."""
    a, b = losses(one), losses(other)
    assert list(a) == list(b) == list(range(1, steps + 1))
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)
    (x, data_x, *_), (y, data_y, *_) = stored(one), stored(other)
    assert data_x == data_y == {"json": {"position": 8 * steps}}
    for name in x:
        np.testing.assert_allclose(x[name], y[name], rtol=1e-4, atol=1e-6, err_msg=name)


def all_ended(processes, codes):
    ended = [process.ended() for process in processes]
    assert all(code in codes for code in ended), "\n".join(process.log for process in processes)
    return ended


def losing_one(workdir, processes, victim, until=6):
    """Kills one of the processes in training, checks how the others end, returns the seconds that
    took.
    """
    wait_until(lambda: steps_saved(workdir)[-1:] >= [until], processes)
    processes[victim].kill()
    began = time.monotonic()
    others = [p for i, p in enumerate(processes) if i != victim]
    all_ended(others, LOST)
    seconds = time.monotonic() - began
    for process in others:
        assert re.search(
            (
                r"process \d of \d on .*(lost another process|another process or "
                r"its host was lost)"
            ),
            process.log,
        ), process.log
        assert "Start the same command again on every host: the run resumes" in process.log
    assert losses(workdir)
    return seconds


def here(env, count):
    """The same environment with the hosts' names those of this machine."""
    names = dict(
        TPU_WORKER_HOSTNAMES=",".join(["localhost"] * count),
        MEGASCALE_COORDINATOR_ADDRESS="localhost",
        SLURM_STEP_NODELIST="localhost",
        SLURM_STEP_NUM_NODES="1",
    )
    return env | {name: text for name, text in names.items() if name in env}


POD = device_plugin("v6e-8", "2x4", "1,2,1", "2,2,1")
ONE_HOST = device_plugin("v5litepod-8", "2x4", "1,1,1", "2,4,1")
ORTE = "1531576320.0;tcp://127.0.0.1:34911"
# The environment of process i of two; a slice has as many hosts as the second number.
LIVES = {
    "GKE": (lambda i: POD | jobset("t", "slice", 1, 2, 0, i), 2),
    "xpk, two slices of a host": (lambda i: ONE_HOST | jobset("t", "slice-job", 2, 1, i, 0), 1),
    "Slurm": (lambda i: slurm_step(2, i), 1),
    "LeaderWorkerSet": (lambda i: lws(i, "localhost:8476,localhost:8477"), 2),
    "Open MPI": (lambda i: open_mpi(2, i, OMPI_MCA_orte_hnp_uri=ORTE), 1),
}


def start_in(place, count, workdir, *options):
    """As `start_together`, but two processes find each other by what the environment says."""
    if count != 2:
        return start_together(workdir, count, *options)
    env, hosts = LIVES[place]
    port = {"JAX_COORDINATOR_PORT": str(free_port())}
    return [Process(workdir, *options, env=here(env(i), hosts) | port) for i in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
def test_one_run_through_every_trouble_equals_one_process(tmp_path, count):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    one_process(whole, data=4)

    # Four steps in one process of eight devices,
    # then on with several processes of two devices: one is killed.
    class Short(TinyTask):
        def batches(self, split, seed):
            class Ends(type(super().batches(split, seed))):
                def __next__(self):
                    if self.position >= 4 * self.size:
                        raise StopIteration
                    return super().__next__()

            return Ends(seed, self.size)

    train(tiny_config(steps=STEPS, eval_every=0), Short(), parts)
    assert steps_saved(parts)[-1] == 4
    processes = start_in("GKE", count, parts, *OPTIONS, "--pause", 0.3)
    seconds = losing_one(parts, processes, victim=count - 1)
    assert last_row(parts) < STEPS
    print(
        f"{count} processes, the last one killed: the others ended after "
        f"{seconds:.1f} s (heartbeat {HEARTBEAT_S} s)"
    )

    # Resumed; then one of them gets a signal.
    processes = start_in("xpk, two slices of a host", count, parts, *OPTIONS, "--pause", 0.3)
    wait_until(lambda: "\nstep " in processes[0].log, processes)
    processes[-1].send_signal(signal.SIGTERM)
    all_ended(processes, [0])
    stopped = steps_saved(parts)[-1]
    assert 4 < stopped < STEPS
    assert (
        f"a signal to another process: saved, start again to go on, at step {stopped}/{STEPS}"
        in processes[0].log
    )
    assert "resumed at step" in processes[0].log
    assert "step" not in processes[-1].log.replace("[Gloo]", ""), "only the lead reports"

    # To the end on another mesh shape.
    all_ended(start_in("Slurm", count, parts, *OPTIONS, "--fsdp", 2), [0])
    assert_close(whole, parts)


@pytest.mark.full
def test_restored_in_one_process_it_goes_on(tmp_path):
    """Saved by two processes, continued by one, on one device."""
    workdir = tmp_path / "run"
    processes = start_together(workdir, 2, *OPTIONS, "--pause", 0.3)
    wait_until(lambda: steps_saved(workdir)[-1:] >= [4], processes)
    for process in processes:
        process.terminate()
    all_ended(processes, [0])
    one_process(tmp_path / "whole", data=8)
    one_process(workdir, data=1)
    assert_close(tmp_path / "whole", workdir)


@pytest.mark.full
@pytest.mark.parametrize("count", [2, 4])
def test_undisturbed_equals_killed_bit_for_bit(tmp_path, count):
    all_ended(start_together(tmp_path / "whole", count, *OPTIONS), [0])
    one_process(tmp_path / "one", data=2 * count)
    assert_close(tmp_path / "one", tmp_path / "whole")
    for victim in (0, 1):  # the first holds JAX's coordinator
        killed = tmp_path / f"killed {victim}"
        processes = start_together(killed, count, *OPTIONS, "--pause", 0.3)
        seconds = losing_one(killed, processes, victim)
        assert last_row(killed) < STEPS
        print(
            f"{count} processes, process {victim} killed: the others ended after "
            f"{seconds:.1f} s (heartbeat {HEARTBEAT_S} s)"
        )
        all_ended(start_together(killed, count, *OPTIONS), [0])
        assert_identical(tmp_path / "whole", killed)


@pytest.mark.full
def test_an_error_on_one_process_ends_all(tmp_path):
    processes = start_together(tmp_path / "run", 2, *OPTIONS, "--fail-at", 44)
    first, second = [p.ended() for p in processes]
    assert second == 1 and first != 0
    assert re.search(r"process 1 of 2 on .*: ValueError: record-44 is damaged", processes[1].log), (
        processes[1].log
    )
    assert "Start the same command again" in processes[0].log


@pytest.mark.full
def test_they_find_each_other_wherever_they_are(tmp_path):
    """One run whose lives are in one place after the other: in each the processes join, resume, train
    five steps and more, and one is killed, but in the last.
    """
    places = [*LIVES]
    steps, parts = 6 * len(places), tmp_path / "parts"
    options = ("--steps", steps, "--eval-every", 0, "--heartbeat-s", HEARTBEAT_S, "--pause", 0.2)
    for number, place in enumerate(places[:-1]):
        processes = start_in(place, 2, parts, *options)
        losing_one(parts, processes, victim=number % 2, until=6 * (number + 1))
        assert ("resumed at step" in processes[0].log) == (number > 0), place
    all_ended(start_in(places[-1], 2, parts, *options), [0])
    one_process(tmp_path / "whole", steps, data=4)
    assert_close(tmp_path / "whole", parts, steps)


@pytest.mark.full
def test_they_find_each_other_by_the_metadata_server(tmp_path):
    """Four TPU VMs, two slices by queued resources: numbered slice by slice."""
    port = {"JAX_COORDINATOR_PORT": str(free_port())}
    slices = dict(MEGASCALE_NUM_SLICES="2", MEGASCALE_COORDINATOR_ADDRESS="localhost")
    with contextlib.ExitStack() as servers:
        processes = []
        for slice_, worker in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            about = tpu_vm(["localhost"] * 2, worker, MEGASCALE_SLICE_ID=str(slice_), **slices)
            address = servers.enter_context(serving(about))
            processes.append(
                Process(
                    tmp_path / "run",
                    *("--tpu-vm", "--steps", 6, "--eval-every", 0),
                    env=port | {"GCE_METADATA_IP": address},
                )
            )
        all_ended(processes, [0])
    one_process(tmp_path / "whole", 6, data=8)
    assert_close(tmp_path / "whole", tmp_path / "run", 6)


def test_one_host_needs_no_others(monkeypatch):
    for name, text in KAGGLE.items():
        monkeypatch.setenv(name, text)
    with distributed.session():
        assert distributed.gather(1) == [1]


# ---- Too late -----------------------------------------------------------------------------------


def test_the_others_do_not_come(tmp_path):
    where = ("--coordinator", f"localhost:{free_port()}", "--processes", 2, "--join-s", 5)
    began = time.monotonic()
    process = Process(tmp_path / "run", *where, "--process", 0)
    assert process.ended() == TRY_AGAIN, process.log
    assert time.monotonic() - began < 60
    assert re.search(
        r"process 0 of 2: not all processes came together at localhost:\d+ within 5 s.*--processes 1",
        process.log,
    ), process.log


@pytest.mark.full
def test_two_of_the_same_number(tmp_path):
    where = ("--coordinator", f"localhost:{free_port()}", "--processes", 3, "--join-s", 10)
    processes = [Process(tmp_path / "run", *where, "--process", number) for number in (0, 1, 1)]
    all_ended(processes, LOST)


def test_no_coordinator_is_said_in_time():
    said = r"no coordinator at localhost:1 after 1 s .*refused.*start process 0 there"
    with (
        pytest.raises(TryAgainError, match=said),
        distributed.session("localhost:1", 2, 1, join_s=1.0),
    ):
        pass


def test_the_program_says_that_it_may_be_tried_again(tmp_path, monkeypatch, capsys):
    wait = distributed._wait_for
    monkeypatch.setattr(distributed, "_wait_for", lambda address, seconds: wait(address, 0.2))
    train = ("train", "--config", "experiments/compact_talker.py:runlocal", "--workdir")
    peers = ("--coordinator", "localhost:1", "--processes", "2", "--process")
    assert main([*train, str(tmp_path / "run"), *peers, "1"]) == 75
    assert "no coordinator at localhost:1" in capsys.readouterr().err
    assert main([*train, str(tmp_path / "run"), *peers, "2"]) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            jax.errors.JaxRuntimeError("UNKNOWN: Failed to bind: Address already in use"),
            TryAgainError,
        ),
        (
            jax.errors.JaxRuntimeError("ABORTED: connected with a different incarnation"),
            TryAgainError,
        ),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out"), TryAgainError),
        (OSError("Network is unreachable"), TryAgainError),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Unexpected task 5"), UserError),
        (ValueError("coordinator_address should be defined."), UserError),
    ],
)
def test_what_may_be_over_at_the_next_try(error, kind):
    assert type(distributed._join_error(error, Peers("h:1", 2, 1))) is kind


def test_a_slice_whose_hosts_are_not_known_is_named():
    distributed._check_alone(1)
    with pytest.raises(UserError, match=r"has 4 hosts.*--process 0\.\.3"):
        distributed._check_alone(4)


def test_incomplete_arguments_are_named():  # more of them in test_joining.py
    with pytest.raises(UserError, match="needs all three"), distributed.session("host:1", 2):
        pass


def test_the_same_words_by_the_environment(monkeypatch):
    for name, value in dict(
        JAX_COORDINATOR_ADDRESS="localhost:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="1"
    ).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match="no coordinator at localhost:1"),
        distributed.session(join_s=0.1),
    ):
        pass


def test_one_process_needs_nothing():
    with distributed.session():
        assert distributed.is_lead() and distributed.gather({"a": 1}) == [{"a": 1}]
        assert distributed.share() == (0, 1)
        votes = distributed.StopConsensus(make_mesh())
        votes.cast(lambda: 3)
        assert votes.result() == 3
        distributed.barrier("nobody to wait for")


def test_an_exit_message_is_printed_only_if_not_taken_back(tmp_path):
    code = (
        "import os, signal; from mdmspeech.training.distributed import _ExitMessage "
        "as M; m = M(); m.set('one'); m.set({!r}); "
    )
    for line, end, said in [
        ("two", "os.kill(os.getpid(), signal.SIGKILL)", "two\n"),
        ("two", "os.abort()", "two\n"),
        ("", "os.abort()", ""),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code.format(line) + end],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode < 0 and done.stderr == said


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        ([{0, 1}, {2, 3}], [(0, 2), (1, 2)]),  # data or fsdp over hosts
        # tensor over pairs of hosts
        ([{0, 1}, {0, 1}, {2, 3}, {2, 3}], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ([{0, 1}, {0, 1}], [(0, 1), (0, 1)]),  # tensor over all
        ([{2, 3}, {0, 1}], [(1, 2), (0, 2)]),  # the mesh turned the hosts round
    ],
)
def test_each_process_makes_its_share_of_a_batch(parts, shares):
    assert [
        distributed.share_of(dict(enumerate(parts)), i, {}) for i in range(len(parts))
    ] == shares


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{0, 2}, {1, 3}], "overlapping"),
        ([{0, 1}, {1, 2}], "overlapping"),
        ([{0, 1}, set()], "without a device"),
    ],
)
def test_meshes_that_do_not_suit_the_hosts_are_named(parts, message):
    with pytest.raises(UserError, match=message):
        distributed.share_of(dict(enumerate(parts)), 0, {"data": 2})
