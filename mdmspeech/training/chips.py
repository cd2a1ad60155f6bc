"""Whether this machine's TPU chips are there and free, looked up before JAX touches them: what JAX
says of a chip that another process holds comes late and names neither it nor the cure.

The rules are those of libtpu: a process that takes all chips of a machine keeps a lock on
/tmp/libtpu_lockfile while it lives, and every process keeps its chips' device files open (openxla
xla/stream_executor/tpu/tpu_initialize_util.cc). Which chips there are says the PCI bus, as JAX
reads it (jax/_src/hardware_utils.py); machines without a chip are left alone.
"""

import math
import os
import pwd
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mdmspeech.errors import TryAgainError, UserError

ENDING_S = 30.0  # to wait for a process that still holds chips: the last one may be ending
_GOOGLE = "0x1ae0"


def check(
    env: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    wait_s: float = ENDING_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when the chips that this process may use are there and free.

    Args:
      root: of the file system, for tests.
      wait_s: how long another process may go on holding them.

    Raises:
      UserError: no chip's device file is there, or may be opened by this user.
      TryAgainError: another process holds chips; there are fewer than the environment says.
    """
    nodes = _nodes(env, root)
    if not nodes:
        return
    _check_nodes(env, root, nodes)
    end = time.monotonic() + wait_s
    while held := _holders(env, root, nodes):
        if time.monotonic() >= end:
            raise TryAgainError(_told(root, held))
        sleep(0.5)


def _nodes(env: Mapping[str, str], root: Path) -> list[str]:
    """Device files of this process's chips, whether or not they are there."""
    found = []
    for vendor in sorted(root.glob("sys/bus/pci/devices/*/vendor")):
        if vendor.read_text().strip() == _GOOGLE:
            group = vendor.parent / "iommu_group"
            found.append(os.readlink(group).rpartition("/")[2] if group.is_symlink() else "")
    if (root / "dev/accel0").exists():
        nodes = [f"/dev/accel{chip}" for chip in range(len(found))]
    else:
        nodes = [f"/dev/vfio/{group}" for group in sorted(filter(str.isdigit, found), key=int)]
    chosen = _chosen(env)
    return [nodes[chip] for chip in chosen if chip < len(nodes)] if chosen else nodes


def _chosen(env: Mapping[str, str]) -> list[int]:
    """Of the machine's chips, those that this process may use; none for all."""
    mine = env.get("TPU_VISIBLE_CHIPS") or env.get("TPU_VISIBLE_DEVICES") or ""
    return [int(text) for text in re.findall(r"\d+", mine)]


def _check_nodes(env: Mapping[str, str], root: Path, nodes: list[str]) -> None:
    there = [node for node in nodes if (root / node[1:]).exists()]
    if not there:
        raise UserError(
            f"this machine has TPU chips, but {', '.join(nodes)} cannot be seen: a container must ask "
            "for them (Kubernetes: resources google.com/tpu; Docker: --privileged)"
        )
    closed = [node for node in there if not os.access(root / node[1:], os.R_OK | os.W_OK)]
    if closed:
        raise UserError(
            f"{', '.join(closed)}: this user may not open the TPU's chips; run as root, or as a user "
            f"of the group that owns them (ls -l {closed[0]})"
        )
    bounds = env.get("TPU_CHIPS_PER_PROCESS_BOUNDS") or env.get("TPU_CHIPS_PER_HOST_BOUNDS") or "0"
    wanted = math.prod(int(side) for side in re.findall(r"\d+", bounds))
    if len(there) < wanted and not _chosen(env):
        raise TryAgainError(
            f"{len(there)} of this machine's {wanted} TPU chips are there ({', '.join(there)}): one may "
            "be broken; start again on another machine, or delete and make this one anew"
        )


def _holders(env: Mapping[str, str], root: Path, nodes: list[str]) -> dict[int, str]:
    """Processes other than this one -> what they hold. Pid 0: not known."""
    held: dict[int, str] = {}
    for link in root.glob("proc/[0-9]*/fd/*"):
        pid = int(link.parts[-3])
        try:
            target = os.readlink(link)
        except OSError:  # gone, or another user's
            continue
        if target in nodes and pid != os.getpid():
            held[pid] = target
    if not held and _takes_all(env):
        held = {pid: "/tmp/libtpu_lockfile" for pid in _lockers(root) if pid != os.getpid()}
    return held


def _takes_all(env: Mapping[str, str]) -> bool:
    """Whether libtpu will want the lock."""
    bounds = (
        env.get("TPU_CHIPS_PER_PROCESS_BOUNDS") or env.get("TPU_CHIPS_PER_HOST_BOUNDS") or "2,2,1"
    )
    shared = env.get("ALLOW_MULTIPLE_LIBTPU_LOAD", "").lower() not in ("", "0", "false")
    return bounds == "2,2,1" and not shared and not env.get("TPU_LOAD_LIBRARY")


def _lockers(root: Path) -> list[int]:
    """Processes with a lock on libtpu's file, of all users. The file is not opened: closing it would
    take this process's own lock away.
    """
    try:
        about = os.stat(root / "tmp/libtpu_lockfile")
        lines = (root / "proc/locks").read_text().splitlines()
    except OSError:
        return []
    file = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    rows = [line.split() for line in lines]
    # A line that waits for a lock has an arrow; a lock of no single process has pid -1.
    return [max(int(row[4]), 0) for row in rows if len(row) > 5 and row[5] == file]


def _told(root: Path, held: dict[int, str]) -> str:
    said = []
    for pid, what in sorted(held.items()):
        about = root / "proc" / str(pid)
        try:
            command = (about / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            owner = pwd.getpwuid(about.stat().st_uid).pw_name
            said.append(f"process {pid} ({command.strip()[:80]}, of {owner}) holds {what}")
        except (OSError, KeyError):
            said.append(f"process {pid or '?'} holds {what}")
    pids = " ".join(str(pid) for pid in sorted(held) if pid)
    cure = f"end it by kill {pids}" if pids else "find it by sudo lsof -w /dev/accel0 /dev/vfio/*"
    return (
        f"the TPU's chips are in use: {'; '.join(said)}: {cure} (with sudo if it is another user's), "
        "and start again"
    )
