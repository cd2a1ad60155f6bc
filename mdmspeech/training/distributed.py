"""Several processes, one run: every host of a pod starts the same command, and the processes find
each other, agree and end together.

`session` wraps the whole program. Inside it `jax.devices()` are those of all processes, arrays may
be larger than a process, and every process calls the same jitted functions in the same order. One
process, the lead (number 0), also writes files and prints; JAX's coordinator runs in it. A process
that dies is noticed by its missing heartbeat; then all others end, and a restart of the same
command resumes. With one process everything here does nothing.
"""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mdmspeech.errors import TRY_AGAIN, TryAgainError, UserError
from mdmspeech.nn.partition import spec
from mdmspeech.training import chips, joining

JOIN_S = 300.0  # to wait at the start until all processes are there
HEARTBEAT_S = 60.0  # without a sign of life from a process before the others end
# at a barrier whose other side may be drawing pictures; a dead process is noticed long before
_BARRIER_TIMEOUT_S = 24 * 3600


@contextlib.contextmanager
def session(
    coordinator: str = "",
    processes: int = 0,
    process: int = -1,
    *,
    join_s: float = JOIN_S,
    heartbeat_s: float = HEARTBEAT_S,
) -> Iterator[None]:
    """Joins the other processes for the `with` block; must come before anything touches a device.

    Who they are: the arguments, else what the environment says (`joining.find_peers`). Without
    either, a run of one process. Where there are TPU chips, they must be free.

    With several processes an exception ends this one at once (exit code 2 after a `UserError`,
    `TRY_AGAIN` after the loss of another process and where not all come together in time, else 1;
    JAX's own check of lost processes ends with SIGABRT): a usual exit would wait for the others,
    who wait for us.

    Args:
      coordinator: "host:port" of process 0, reachable from all.
      processes: how many there are.
      process: number of this one, from 0.
      join_s: how long to wait for the others.
      heartbeat_s: how long a process may be silent before it counts as lost.

    Raises:
      UserError: incomplete arguments.
      TryAgainError: a coordinator that does not answer in time, chips that another process holds.
    """
    platforms, libtpu = (
        getattr(jax.config, "jax_platforms", None),
        importlib.util.find_spec("libtpu") is not None,
    )
    peers = joining.find_peers(
        os.environ,
        platforms=platforms,
        libtpu=libtpu,
        ask=joining.Metadata(os.environ),
        coordinator=coordinator,
        processes=processes,
        process=process,
    )
    may_be_tpu = libtpu and (not platforms or "tpu" in platforms)
    if may_be_tpu:
        chips.check()
    if peers is None:
        if may_be_tpu:
            _check_alone(jax.process_count())
        yield
        return
    exit_message = _ExitMessage()
    try:
        _initialize(peers, exit_message, join_s, heartbeat_s)
        if jax.process_count() == 1:
            yield
            return
        exit_message.set(
            f"{_who()}: ended from outside or by JAX's own check, most likely because another "
            "process or its host was lost (the lines above say which). Start the same command "
            "again on every host: the run resumes from its newest checkpoint."
        )
        try:
            yield
        except BaseException as error:
            if not (isinstance(error, SystemExit) and not error.code):
                _end_at_once(error, exit_message)
            jax.distributed.shutdown()  # waits for the others, who have agreed to end here
            raise
        jax.distributed.shutdown()
    finally:
        exit_message.set("")


def is_lead() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """What each process gave (anything JSON can hold), in their order. All must call."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([data.size], np.int32)).reshape(-1)
    rows = multihost_utils.process_allgather(np.pad(data, (0, int(sizes.max()) - data.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def barrier(name: str) -> None:
    """Waits for all processes. Not a collective on the devices, so it may take as long as it takes.
    `name` may be used once.
    """
    if jax.process_count() > 1:
        ocp.multihost.sync_global_processes(
            f"mdmspeech:{name}",
            timeout=_BARRIER_TIMEOUT_S,
            processes=set(range(jax.process_count())),
        )


def to_lead(tree: Any) -> Any:
    """Global arrays as numpy arrays on the lead, None elsewhere; leaf by leaf, so that one whole
    leaf must fit on a device. All must call.
    """

    def one(leaf: jax.Array) -> np.ndarray | None:
        if not leaf.is_fully_replicated:
            everywhere = NamedSharding(cast(NamedSharding, leaf.sharding).mesh, PartitionSpec())
            leaf = jax.jit(lambda x: x, out_shardings=everywhere)(leaf)
        return np.asarray(leaf.addressable_data(0)) if is_lead() else None

    leaves, structure = jax.tree.flatten(tree)
    found = [one(leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, found) if is_lead() else None


def share() -> tuple[int, int]:
    """(index, count) of this process's part of every global batch, by the mesh in context:
    `index * B / count` and on, B / count rows.

    Processes whose devices hold the same rows (a tensor axis across hosts) have the same index.

    Raises:
      UserError: the rows of a process are not one piece, or overlap with another's: the mesh shape
        does not suit the hosts.
    """
    if jax.process_count() == 1:
        return 0, 1
    mesh = jax.sharding.get_mesh()
    rows_of = rows_by_process(mesh, range(jax.process_count()))
    return share_of(rows_of, jax.process_index(), dict(mesh.shape))


def rows_by_process(mesh: Mesh, processes: Iterable[int]) -> dict[int, set[int]]:
    """Process -> the rows that its devices hold, of a batch with one row a device."""
    rows_of: dict[int, set[int]] = {process: set() for process in processes}
    sharding = NamedSharding(mesh, spec("batch"))
    owners: dict[Any, Any] = dict(sharding.devices_indices_map((mesh.size,)))
    for device, (rows, *_) in owners.items():
        rows_of[device.process_index].update(range(*rows.indices(mesh.size)))
    return rows_of


class StopConsensus:
    """The largest of the numbers that the processes give for a step, known to all of them.

    `cast` before a step is sent to the devices, `result` after: the vote is a tiny computation in
    front of the step, so that reading it waits for the step before, whose numbers the loop reads
    anyway. With one process `result` asks again, and nothing runs on a device.
    """

    def __init__(self, mesh: Mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._local = len(self._sharding.addressable_devices)
        self._largest = jax.jit(
            lambda votes: votes.max(), out_shardings=NamedSharding(mesh, PartitionSpec())
        )
        self._pending: Any = None

    def cast(self, reason: Callable[[], int]) -> None:
        """Gives this process's number."""
        if jax.process_count() == 1:
            self._pending = reason
        else:
            mine = np.full((self._local,), reason(), np.int32)
            self._pending = self._largest(
                jax.make_array_from_process_local_data(self._sharding, mine)
            )

    def result(self) -> int:
        """The largest number of the last `cast`."""
        return int(self._pending() if callable(self._pending) else self._pending)


def share_of(rows_of: dict[int, set[int]], process: int, mesh: dict[str, int]) -> tuple[int, int]:
    """`share`, given the rows of each process."""
    distinct = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
    size = len(distinct[0])
    if not size:
        raise UserError(
            f"mesh {mesh} leaves some of the {len(rows_of)} processes without a "
            "device: let it take all (mesh.data=-1)"
        )
    if distinct != [tuple(range(i * size, (i + 1) * size)) for i in range(len(distinct))]:
        raise UserError(
            f"mesh {mesh} gives the {len(rows_of)} processes overlapping parts "
            "of a batch: let mesh.data or mesh.fsdp cover whole hosts"
        )
    return distinct.index(tuple(sorted(rows_of[process]))), len(distinct)


class _ExitMessage:
    """A shell that prints one line if this process ends without taking it back: neither `kill -9`
    nor JAX's abort leave us the time.
    """

    _SHELL = (
        'last=; while IFS= read -r line; do last=$line; done; [ -z "$last" ] || '
        'printf "%s\\n" "$last" >&2'
    )

    def __init__(self) -> None:
        # A session of its own: a signal to our whole group (Ctrl-C, Slurm) must not end it.
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", self._SHELL], stdin=subprocess.PIPE, start_new_session=True
        )

    def set(self, line: str) -> None:
        """Replaces the line; "" for none."""
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):
            self._shell.stdin.write(" ".join(line.split()).encode() + b"\n")
            self._shell.stdin.flush()


def _check_alone(hosts: int) -> None:
    """After the decision for a run of one process, with the number of hosts that the TPU says."""
    if hosts > 1:
        raise UserError(
            f"this TPU slice has {hosts} hosts, but nothing in the environment says who they are: "
            "start the same command on all of them, each with --coordinator HOST:PORT --processes "
            f"{hosts} --process 0..{hosts - 1}"
        )


def _initialize(
    peers: joining.Peers, exit_message: _ExitMessage, join_s: float, heartbeat_s: float
) -> None:
    began = time.monotonic()
    name = f"process {peers.number} of {peers.count}"
    late = (
        f"{name}: not all processes came together at {peers.coordinator} within {join_s:.0f} s. "
        "Check that the same command runs on every host, each with its own number, and that process "
        f"0 can be reached from all (told by {peers.told_by}; for a run of this process alone say "
        "--processes 1)."
    )
    if peers.number:
        _wait_for(peers.coordinator, join_s)
    exit_message.set(late)
    # the loop has its own handler of SIGTERM, and its own vote
    jax.config.update("jax_enable_preemption_service", False)
    left = max(join_s - (time.monotonic() - began), 1.0)
    # JAX aborts when its time is up, which looks like a crash: we are a little earlier.
    give_up = threading.Timer(left, _exit, (TRY_AGAIN,))
    give_up.daemon = True
    give_up.start()
    try:
        jax.distributed.initialize(
            coordinator_address=peers.coordinator,
            num_processes=peers.count,
            process_id=peers.number,
            local_device_ids=None if peers.local_device is None else [peers.local_device],
            cluster_detection_method="deactivate",  # joining.py has decided
            initialization_timeout=round(left) + 30,
            heartbeat_timeout_seconds=round(heartbeat_s),
            shutdown_timeout_seconds=round(join_s),
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise _join_error(error, peers) from error
    finally:
        give_up.cancel()
        exit_message.set("")


def _join_error(error: Exception, peers: joining.Peers) -> UserError:
    """What could not be joined: a wrong argument, or something that may be over at the next try."""
    wrong = not isinstance(error, (jax.errors.JaxRuntimeError, OSError)) or "INVALID_ARG" in str(
        error
    )
    kind = UserError if wrong else TryAgainError
    return kind(
        f"process {peers.number} of {peers.count} cannot join the others at {peers.coordinator} "
        f"(told by {peers.told_by}): {error}; another run may still hold this port, or one of the "
        "processes is from an earlier try; name them by --coordinator HOST:PORT --processes N "
        "--process 0..N-1"
    )


def _exit(code: int) -> None:
    """At once, with what the exit message says."""
    sys.stdout.flush()
    os._exit(code)


def _wait_for(address: str, seconds: float) -> None:
    """Returns when something listens at `address`. JAX would abort the process where this can say
    what is wrong.
    """
    host, _, port = address.rpartition(":")
    end, problem = time.monotonic() + seconds, "no answer"
    while time.monotonic() < end:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            problem = str(error)
        time.sleep(0.2)
    raise TryAgainError(
        f"no coordinator at {address} after {seconds:.0f} s ({problem}): start process 0 there, or "
        "correct --coordinator; a firewall may close the port"
    )


def _who() -> str:
    return f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}"


def _end_at_once(error: BaseException, exit_message: _ExitMessage) -> None:
    """Says what happened and ends this process. Never returns."""
    text = str(error)
    code = 1
    if isinstance(error, UserError):
        code, lines = error.exit_code, " ".join(text.split())
    elif isinstance(error, jax.errors.JaxRuntimeError) and any(
        mark in text.lower() for mark in ("gloo", "coordination", "unavailable")
    ):
        code, lines = (
            TRY_AGAIN,
            (
                f"lost another process ({text.splitlines()[0][:200]}). Start the same command "
                "again on every host: the run resumes from its newest checkpoint."
            ),
        )
    else:
        lines = "".join(traceback.format_exception(error))
    prefix = _who()
    sys.stdout.flush()
    print(
        "\n".join(f"{prefix}: {line}" for line in lines.splitlines()), file=sys.stderr, flush=True
    )
    exit_message.set("")
    if code != TRY_AGAIN:
        # If all found the same fault, all get to say so before the coordinator goes; if not, the
        # others notice by our missing heartbeat.
        with contextlib.suppress(Exception):
            ocp.multihost.sync_global_processes(
                "mdmspeech:failed", timeout=3, processes=set(range(jax.process_count()))
            )
    os._exit(code)
