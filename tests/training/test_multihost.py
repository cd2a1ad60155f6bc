"""Several real processes: the same run as one process, whatever happens to them in between."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import (
    Process,
    assert_identical,
    last_row,
    rows,
    start_together,
    steps_saved,
    stored,
    wait_until,
)
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.training import distributed
from mdmspeech.training.loop import train
from mdmspeech.training.mesh import make_mesh

STEPS, HEARTBEAT_S = 16, 10
OPTIONS = ("--steps", STEPS, "--eval-every", 0, "--heartbeat-s", HEARTBEAT_S)
COUNTS = [2, pytest.param(4, marks=pytest.mark.full)]


def one_process(workdir, steps=STEPS, **mesh):
    config = tiny_config(steps=steps, eval_every=0)
    config.mesh.update(mesh)
    return train(config, TinyTask(), workdir)


def losses(workdir):
    return {row["step"]: row["train/loss"] for row in rows(workdir) if "train/loss" in row}


def assert_close(one, other):
    """The same curve and final state, up to the order in which devices add."""
    a, b = losses(one), losses(other)
    assert list(a) == list(b) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)
    (x, data_x, *_), (y, data_y, *_) = stored(one), stored(other)
    assert data_x == data_y == {"json": {"position": 8 * STEPS}}
    for name in x:
        np.testing.assert_allclose(x[name], y[name], rtol=1e-4, atol=1e-6, err_msg=name)


def all_ended(processes, codes):
    ended = [process.ended() for process in processes]
    assert all(code in codes for code in ended), "\n".join(process.log for process in processes)
    return ended


def losing_one(workdir, count, victim, options=OPTIONS):
    """Kills one of `count` processes in training, checks how the others end, returns the seconds
    that took.
    """
    processes = start_together(workdir, count, *options, "--pause", 0.3)
    wait_until(lambda: steps_saved(workdir)[-1:] >= [6], processes)
    processes[victim].kill()
    began = time.monotonic()
    others = [p for i, p in enumerate(processes) if i != victim]
    assert 0 not in [p.ended() for p in others]
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
    assert losses(workdir) and last_row(workdir) < STEPS
    return seconds


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
    seconds = losing_one(parts, count, victim=count - 1)
    print(
        f"{count} processes, the last one killed: the others ended after "
        f"{seconds:.1f} s (heartbeat {HEARTBEAT_S} s)"
    )

    # Resumed; then one of them gets a signal.
    processes = start_together(parts, count, *OPTIONS, "--pause", 0.3)
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
    all_ended(start_together(parts, count, *OPTIONS, "--fsdp", 2), [0])
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
        seconds = losing_one(killed, count, victim)
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
def test_the_others_do_not_come(tmp_path):
    process = Process(
        tmp_path / "run",
        "--coordinator",
        "localhost:1234",
        "--processes",
        2,
        "--process",
        0,
        "--join-s",
        5,
    )
    assert process.ended() != 0
    assert (
        "process 0 of 2: not all processes came together at localhost:1234 within 5 s"
        in process.log
    )


def test_no_coordinator_is_said_in_time():
    said = r"no coordinator at localhost:1 after 1 s .*refused.*start process 0 there"
    with pytest.raises(UserError, match=said), distributed.session("localhost:1", 2, 1, join_s=1.0):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2), "needs all three"),
        (("", 0, 1), "needs all three"),
        (("host", 2, 1), "as HOST:PORT"),
        (("host:1", 2, 2), "numbered from 0"),
    ],
)
def test_incomplete_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message), distributed.session(*arguments):
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
    assert [distributed._share(dict(enumerate(parts)), i, {}) for i in range(len(parts))] == shares


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
        distributed._share(dict(enumerate(parts)), 0, {"data": 2})
