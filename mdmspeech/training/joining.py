"""Who the other processes of a run are and where they meet, told by the arguments or by what the
machines' manager has put into the environment.

Decided here and not by JAX's own detection, which on a TPU needs the chips in sight, asks the
metadata server where TPU_SKIP_MDS_QUERY forbids it (github.com/jax-ml/jax/issues/40854), waits for
peers that an interactive Slurm shell does not have, and takes a process for a lone one where
something is missing. Everything but `Metadata` is a function of its arguments.

Sources: jax/_src/clusters; the environment that GKE's device plugin, LeaderWorkerSet, xpk, Slurm
and Open MPI set is recorded, with where it was read, in tests/training/environments.py.
"""

import dataclasses
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from mdmspeech.errors import TryAgainError, UserError

TPU_PORT = 8482  # of the coordinator on a TPU slice, as in JAX
_BY_HAND = "--coordinator HOST:PORT --processes N --process 0..N-1"
_ALONE = "for a run of this process alone say --processes 1"
# Ports of a Slurm or MPI job: the last 4,096, by its number, as in JAX.
_PORTS, _FIRST_PORT = 2**12, 65535 - 2**12 + 1

Ask = Callable[[str], str | None]


@dataclasses.dataclass(frozen=True)
class Peers:
    """Attributes: coordinator: "host:port" where all meet, of process 0; count: how many processes;
    number: of this one, from 0; told_by: what says so, for messages; local_device: the one device
    that this process may use of those in its machine, None for all."""

    coordinator: str
    count: int
    number: int
    told_by: str = "the arguments"
    local_device: int | None = None


def find_peers(
    env: Mapping[str, str],
    *,
    platforms: str | None,
    libtpu: bool,
    ask: Ask,
    coordinator: str = "",
    processes: int = 0,
    process: int = -1,
) -> Peers | None:
    """The other processes, or None for a run of one.

    In this order: the arguments; JAX_COORDINATOR_ADDRESS (and _PORT), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID; the hosts and slices that TPU_WORKER_HOSTNAMES or TPU_PROCESS_ADDRESSES and
    MEGASCALE_NUM_SLICES name (GKE, xpk, LeaderWorkerSet), whether or not TPU_SKIP_MDS_QUERY is set;
    Open MPI; a Slurm step; the metadata server of a TPU VM (queued resources). What the first two
    leave open, the others fill in. `processes` or JAX_NUM_PROCESSES of 1 is a run of one process
    wherever it is.

    Args:
      env: environment variables.
      platforms: `jax.config.jax_platforms`.
      libtpu: whether it is installed.
      ask: gives an attribute from the metadata server, None if it has none of that name; only
        called where there may be a TPU.

    Raises:
      UserError: what is told is incomplete or contradicts itself.
    """
    coordinator = coordinator or _with_port(
        env.get("JAX_COORDINATOR_ADDRESS", ""), env.get("JAX_COORDINATOR_PORT", "")
    )
    count = processes or _number(env, "JAX_NUM_PROCESSES", 0)
    number = process if process >= 0 else _number(env, "JAX_PROCESS_ID", -1)
    if count == 1 and number <= 0:
        return None
    names = set((platforms or "").split(",")) - {""}
    tpu = libtpu and (not names or "tpu" in names) and "TPU_SKIP_MDS_QUERY" not in env
    complete = bool(coordinator and count and number >= 0)
    told = None if complete else _told(env, ask if tpu else None, names)
    if coordinator or count or number >= 0:
        return _completed(coordinator, count, number, told, _local_device(env))
    if told is not None and not told.coordinator:
        raise UserError(
            f"{told.told_by} says that this is process {told.number} of {told.count}, but not where "
            "process 0 is: add --coordinator HOST:PORT, or mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT"
        )
    return told


def _told(env: Mapping[str, str], ask: Ask | None, platforms: set[str]) -> Peers | None:
    """What the manager of the machines says."""
    if "proxy" in platforms:  # Pathways: one process drives the devices of all hosts
        return None
    if ask is None or _hosts(env):
        return _tpu_slice(env) or _open_mpi(env) or _slurm(env)
    return _open_mpi(env) or _slurm(env) or _tpu_slice(_tpu_vm(env, ask))


def _completed(
    coordinator: str, count: int, number: int, told: Peers | None, local_device: int | None
) -> Peers:
    """Peers of what was given, the rest as the manager told it."""
    coordinator = coordinator or (told.coordinator if told else "")
    count = count or (told.count if told else 0)
    number = number if number >= 0 else (told.number if told else -1)
    if not (coordinator and count and number >= 0):
        raise UserError(
            f"coordinator {coordinator or '?'}, processes {count or '?'}, process "
            f"{number if number >= 0 else '?'}: a run of several processes needs all three "
            f"({_BY_HAND})"
        )
    if not coordinator.rpartition(":")[2].isdigit() or coordinator.startswith(":"):
        raise UserError(f"coordinator {coordinator!r}: give the address of process 0 as HOST:PORT")
    if number >= count:
        raise UserError(f"process {number} of {count}: processes are numbered from 0")
    return Peers(coordinator, count, number, local_device=local_device)


# ---- TPU slices ---------------------------------------------------------------------------------


def _tpu_slice(env: Mapping[str, str]) -> Peers | None:
    """Of the hosts of one or more TPU slices; None where there is one host."""
    hosts, slices = _hosts(env), _number(env, "MEGASCALE_NUM_SLICES", 1)
    bounds = "TPU_PROCESS_BOUNDS" if env.get("TPU_PROCESS_BOUNDS") else "TPU_HOST_BOUNDS"
    expected = _volume(env.get(bounds, ""))
    if expected > max(len(hosts), 1):
        raise UserError(
            f"{bounds}={env[bounds]} says that this TPU slice has {expected} hosts, but "
            f"TPU_WORKER_HOSTNAMES names {', '.join(hosts) or 'none'}: on Kubernetes run it as a "
            "JobSet, or as an indexed Job with a subdomain, for which GKE sets TPU_WORKER_HOSTNAMES "
            f"and TPU_WORKER_ID; or name the processes by {_BY_HAND}"
        )
    each = max(len(hosts), 1)
    if each * slices <= 1:
        return None
    worker = _number(env, "TPU_WORKER_ID", -1 if each > 1 else 0)
    which = _number(env, "MEGASCALE_SLICE_ID", -1 if slices > 1 else 0)
    for value, name, all_of in (
        (worker, "TPU_WORKER_ID", each),
        (which, "MEGASCALE_SLICE_ID", slices),
    ):
        if not 0 <= value < all_of:
            raise UserError(
                f"{name}={env.get(name, '')!r}, but there are {all_of} (TPU_WORKER_HOSTNAMES="
                f"{','.join(hosts)}, MEGASCALE_NUM_SLICES={slices}): it must be 0 to {all_of - 1}; "
                f"or name the processes by {_BY_HAND}; {_ALONE}"
            )
    meet = hosts[0] if hosts else ""
    if slices > 1:
        meet = _host(env.get("MEGASCALE_COORDINATOR_ADDRESS", ""))
        if not meet:
            raise UserError(
                f"MEGASCALE_NUM_SLICES={slices}, but MEGASCALE_COORDINATOR_ADDRESS does not name "
                f"the first host of the first slice: set it, or name the processes by {_BY_HAND}"
            )
    port = env.get("JAX_COORDINATOR_PORT") or TPU_PORT
    told_by = "TPU_WORKER_HOSTNAMES and MEGASCALE_NUM_SLICES" if slices > 1 else "the TPU's hosts"
    return Peers(f"{meet}:{port}", each * slices, worker + which * each, told_by)


def _hosts(env: Mapping[str, str]) -> list[str]:
    """Of the processes of a slice, in their order."""
    listed = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES") or ""
    return [_host(part.strip()) for part in listed.split(",") if part.strip()]


def _tpu_vm(env: Mapping[str, str], ask: Ask) -> dict[str, str]:
    """The environment, with what the metadata server says of a TPU VM where the environment is
    silent, under the same names.
    """
    endpoints, worker = ask("worker-network-endpoints"), ask("agent-worker-number")
    if not endpoints or worker is None:
        return dict(env)
    told = dict(
        re.findall(r"^\s*(MEGASCALE_\w+)\s*:\s*'?([^'\n]*?)'?\s*$", ask("tpu-env") or "", re.M)
    )
    # Either HOST,HOST or NAME:ID:IP,NAME:ID:IP.
    hosts = ",".join(part.split(":")[-1].strip() for part in endpoints.split(","))
    return {**told, **env, "TPU_WORKER_HOSTNAMES": hosts, "TPU_WORKER_ID": worker.strip()}


class Metadata:
    """The metadata server of a Google Compute Engine VM: attribute -> text, None if there is none.

    Raises:
      TryAgainError: it does not answer, three times.
    """

    def __init__(self, env: Mapping[str, str], timeout_s: float = 10.0, pause_s: float = 1.0):
        self._host = env.get("GCE_METADATA_IP") or "metadata.google.internal"
        self._timeout_s, self._pause_s = timeout_s, pause_s

    def __call__(self, name: str) -> str | None:
        url = f"http://{self._host}/computeMetadata/v1/instance/attributes/{name}"
        request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
        # the machine's own: a proxy could not reach it
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        problem = ""
        for attempt in range(3):
            time.sleep(attempt * self._pause_s)
            try:
                with opener.open(request, timeout=self._timeout_s) as answer:
                    return answer.read().decode()
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                problem = str(error)
            except OSError as error:
                problem = str(error)
        raise TryAgainError(
            f"{url} does not answer ({problem}), so the other hosts of this TPU are not known: name "
            f"the processes by {_BY_HAND}; {_ALONE} and set TPU_SKIP_MDS_QUERY=1"
        )


# ---- Open MPI and Slurm -------------------------------------------------------------------------


def _open_mpi(env: Mapping[str, str]) -> Peers | None:
    """Of `mpirun`. Its version 5 does not say where process 0 is: then the coordinator is ""."""
    count = _number(env, "OMPI_COMM_WORLD_SIZE", 1)
    if count <= 1:
        return None
    uri = env.get("OMPI_MCA_orte_hnp_uri", "")
    host = re.search(r"tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]", uri)
    job = re.match(r"\d+", uri)
    meet = ""
    if host and job:
        port = env.get("JAX_COORDINATOR_PORT") or _port(int(job[0]) // 2**12)
        meet = f"{host[1] or f'[{host[2]}]'}:{port}"
    number = _rank(env, "OMPI_COMM_WORLD_RANK", count, "Open MPI")
    return Peers(meet, count, number, "Open MPI", _local_device(env))


def _slurm(env: Mapping[str, str]) -> Peers | None:
    """Of a step: the shell of `sbatch` or `salloc` is none, or one of a single task."""
    nodes = env.get("SLURM_STEP_NODELIST", "")
    tasks = "SLURM_STEP_NUM_TASKS" if env.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    count = _number(env, tasks, 1)
    if not nodes or count <= 1:
        return None
    # The first of "a,b", "node[001-015],b", "rack[1-2]n[3,5]-ib".
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    first = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
    port = env.get("JAX_COORDINATOR_PORT") or _port(_number(env, "SLURM_JOB_ID", 0))
    number = _rank(env, "SLURM_PROCID", count, "Slurm")
    return Peers(f"{first}:{port}", count, number, "Slurm", _local_device(env))


def _rank(env: Mapping[str, str], name: str, count: int, manager: str) -> int:
    number = _number(env, name, -1)
    if not 0 <= number < count:
        raise UserError(
            f"{manager} says that there are {count} processes, but {name}={env.get(name, '')!r} is "
            f"none of 0 to {count - 1}: name them by {_BY_HAND}"
        )
    return number


def _local_device(env: Mapping[str, str]) -> int | None:
    """The device of this task where several tasks of a machine share its devices. A task that has
    the machine to itself has all of them; one that sees a single device needs no number.
    """
    if env.get("JAX_LOCAL_DEVICE_IDS") or len(env.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1:
        return None
    if "OMPI_COMM_WORLD_LOCAL_RANK" in env:
        here = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE", 1)
        return _number(env, "OMPI_COMM_WORLD_LOCAL_RANK", 0) if here > 1 else None
    if "SLURM_STEP_NODELIST" not in env or "SLURM_LOCALID" not in env:
        return None
    tasks: list[int] = []  # of each node, from "2(x3),1"
    for number, times in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", env.get("SLURM_STEP_TASKS_PER_NODE", "")
    ):
        tasks += [int(number)] * int(times or 1)
    node = _number(env, "SLURM_NODEID", 0)
    shared = node >= len(tasks) or tasks[node] > 1
    return _number(env, "SLURM_LOCALID", 0) if shared else None


def _port(job: int) -> int:
    return job % _PORTS + _FIRST_PORT


# ---- Words --------------------------------------------------------------------------------------


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = (env.get(name) or "").strip()
    if not text:
        return default
    if not re.fullmatch(r"-?\d+", text):
        raise UserError(f"{name}={text!r}: it must be a whole number; unset it, or {_BY_HAND}")
    return int(text)


def _volume(bounds: str) -> int:
    """1,2,4 -> 8; 1 for anything else."""
    sides = bounds.split(",")
    return math.prod(map(int, sides)) if all(side.strip().isdigit() for side in sides) else 1


def _host(address: str) -> str:
    """An address without its port: HOST:PORT, [::1]:PORT, HOST, ::1."""
    if address.startswith("["):
        return address.partition("]")[0] + "]"
    return f"[{address}]" if address.count(":") > 1 else address.partition(":")[0]


def _with_port(address: str, port: str) -> str:
    """JAX_COORDINATOR_ADDRESS may lack the port, which JAX_COORDINATOR_PORT then has (xpk)."""
    has_one = address.rpartition(":")[2].isdigit() and ":" in address
    return address if not address or not port or has_one else f"{address}:{port}"
