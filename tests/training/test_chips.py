"""Whether the TPU's chips are there and free: trees of /sys, /dev, /proc and /tmp as machines have
them, a lock that a real process holds, and this machine.
"""

import os
import re
import subprocess
import sys

import pytest

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.training import chips

FOUR = ["vfio/0", "vfio/1", "vfio/2", "vfio/10"]


@pytest.fixture
def machine(tmp_path):
    """make(nodes, ...) builds a tree in tmp_path; then check(**env) looks at it."""

    class Machine:
        def make(self, nodes, there=None, vendor="0x1ae0"):
            for number, node in enumerate(nodes):
                device = tmp_path / "sys/bus/pci/devices" / f"0000:00:{number:02x}.0"
                device.mkdir(parents=True)
                (device / "vendor").write_text(vendor + "\n")
                if node.startswith("vfio"):
                    (device / "iommu_group").symlink_to(f"../../kernel/iommu_groups/{node[5:]}")
            for node in nodes if there is None else there:
                path = tmp_path / "dev" / node
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            return self

        def process(self, pid, *targets, command="python train.py"):
            fds = tmp_path / "proc" / str(pid) / "fd"
            fds.mkdir(parents=True)
            (fds.parent / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
            for number, target in enumerate(targets):
                (fds / str(number)).symlink_to(target)
            return self

        def lock(self, pid):
            (tmp_path / "tmp").mkdir()
            (tmp_path / "tmp/libtpu_lockfile").touch()
            about = os.stat(tmp_path / "tmp/libtpu_lockfile")
            file = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
            (tmp_path / "proc").mkdir(exist_ok=True)
            (tmp_path / "proc/locks").write_text(
                f"1: FLOCK  ADVISORY  WRITE 11 00:1a:99 0 EOF\n2: POSIX  ADVISORY  WRITE {pid} {file} 0 EOF\n"
            )
            return self

        def check(self, **env):
            chips.check(env, tmp_path, wait_s=0.0)

    return Machine()


def test_a_machine_without_chips_is_left_alone(machine):
    # a virtual machine holds a graphics card by vfio, and there is an accelerator of another make
    machine.make(["vfio/0"], vendor="0x10de").process(7, "/dev/vfio/0", "/dev/accel0").check()
    chips.check()  # this machine


@pytest.mark.parametrize("nodes", [FOUR, ["accel0", "accel1"]])
def test_free_chips(machine, nodes):
    machine.make(nodes).process(7, "/dev/null", "/dev/vfio/vfio", "/dev/accel7", "/dev/vfio/100")
    machine.process(os.getpid(), f"/dev/{nodes[0]}").lock(os.getpid()).check()


@pytest.mark.parametrize("nodes", [FOUR, ["accel0", "accel1"]])
def test_who_holds_them_is_named_with_the_cure(machine, nodes):
    machine.make(nodes).process(70, "/dev/null", f"/dev/{nodes[1]}", command="python -m jax train")
    machine.process(71, f"/dev/{nodes[0]}", command="sleep 9")
    with pytest.raises(TryAgainError) as error:
        machine.check()
    said = str(error.value)
    assert re.search(rf"process 70 \(python -m jax train, of \w+\) holds /dev/{nodes[1]}", said)
    assert "process 71 (sleep 9, of " in said and "end it by kill 70 71 (with sudo" in said
    assert error.value.exit_code == 75


def test_a_holder_that_cannot_be_looked_into_is_known_by_its_lock(machine):
    machine.make(FOUR).lock(4242)
    with pytest.raises(
        TryAgainError, match="process 4242 holds /tmp/libtpu_lockfile: end it by kill"
    ):
        machine.check()
    # Those that share a machine's chips take no lock.
    machine.check(TPU_CHIPS_PER_PROCESS_BOUNDS="1,1,1")
    machine.check(ALLOW_MULTIPLE_LIBTPU_LOAD="true")


def test_a_holder_without_a_number(machine):
    machine.make(FOUR).lock(-1)
    with pytest.raises(TryAgainError, match=r"process \? holds .*find it by sudo lsof"):
        machine.check()


def test_a_real_process_holds_the_lock(machine, tmp_path):
    machine.make(FOUR)
    (tmp_path / "tmp").mkdir()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "tmp/libtpu_lockfile")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/locks").symlink_to("/proc/locks")
        with pytest.raises(TryAgainError, match=f"process {holder.pid} holds"):
            machine.check()
        holder.communicate(b"\n")
    machine.check()


@pytest.mark.parametrize("name", ["TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"])
def test_chips_of_others_do_not_matter(machine, name):
    machine.make(FOUR).process(7, "/dev/vfio/0", "/dev/vfio/1")
    shared = dict(TPU_CHIPS_PER_PROCESS_BOUNDS="1,2,1", TPU_PROCESS_BOUNDS="1,1,1")
    machine.check(**{name: "2,3"}, **shared)
    with pytest.raises(TryAgainError, match="holds /dev/vfio/1"):
        machine.check(**{name: "1"}, **shared)


def test_it_waits_for_one_that_is_ending(machine, tmp_path):
    machine.make(FOUR).process(7, "/dev/vfio/0")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            (tmp_path / "proc/7/fd/0").unlink()

    chips.check({}, tmp_path, wait_s=60.0, sleep=sleep)
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("there", "env", "kind", "said"),
    [
        ([], {}, UserError, "vfio/10 cannot be seen: a container must ask"),
        (FOUR[:3], dict(TPU_CHIPS_PER_HOST_BOUNDS="2,2,1"), TryAgainError, "3 of this machine's 4"),
        (FOUR[:2], dict(TPU_CHIPS_PER_HOST_BOUNDS="1,2,1"), None, ""),  # a half of TPU7x's chips
        (FOUR[:2], {}, None, ""),
    ],
)
def test_chips_that_are_not_there(machine, there, env, kind, said):
    machine.make(FOUR, there)
    if kind is None:
        machine.check(**env)
        return
    with pytest.raises(kind, match=said) as error:
        machine.check(**env)
    assert type(error.value) is kind


def test_chips_that_may_not_be_opened(machine, tmp_path, monkeypatch):
    machine.make(FOUR)
    (tmp_path / "dev/vfio/1").chmod(0)
    if os.geteuid() == 0:  # who may open everything
        monkeypatch.setattr(os, "access", lambda path, mode: os.stat(path).st_mode & 0o600 != 0)
    with pytest.raises(UserError, match=r"/dev/vfio/1: this user may not open.*ls -l /dev/vfio/1"):
        machine.check()
