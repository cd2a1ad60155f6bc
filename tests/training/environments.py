"""What the managers of machines put into the environment of a process, as far as it says who the
other processes are, and what `joining.find_peers` must make of it.

Where it was read:
  DEVICE_PLUGIN  GKE's device plugin: github.com/ai-on-gke/tpu-device-plugin, TestInitEnvs. It sets
                 TPU_SKIP_MDS_QUERY=true always, the hosts only where there is one.
  GKE            docs.cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice and .../how-to/tpus:
                 of an indexed Job with a subdomain, and so of a JobSet, GKE sets TPU_WORKER_ID,
                 TPU_WORKER_HOSTNAMES and, of several slices, MEGASCALE_*.
  JOBSET         pods are JOBSET-REPLICATEDJOB-INDEX-POD.JOBSET: jobset.sigs.k8s.io.
  XPK            github.com/AI-Hypercomputer/xpk, src/xpk/core/docker_resources.py (GPU, CPU) and
                 templates/pathways_workload_create.yaml.j2; TPU workloads are JobSets, replicated job
                 "slice-job".
  LWS            github.com/kubernetes-sigs/lws, pkg/utils/accelerators/tpu.go and its test.
  JAX            jax 0.10.2, jax/_src/clusters/*.py, jax/_src/cloud_tpu_init.py (which sets
                 TPU_SKIP_MDS_QUERY=1 where the PCI bus has no TPU chip).
  RAY            ray/util/tpu.py (get_tpu_coordinator_env_vars).
  SLURM          slurm.schedmd.com/srun.html, output environment variables; SALLOC:
                 slurm.conf, LaunchParameters=use_interactive_step. What 22.05 really sets is compared
                 with in tests/launch/test_slurm_real.py.
  OPEN_MPI       docs.open-mpi.org, environment variables; 4 has OMPI_MCA_orte_hnp_uri, 5 has not.
"""

import dataclasses

ALONE = None


@dataclasses.dataclass(frozen=True)
class Place:
    """A process somewhere. expected: (coordinator, count, number), or (..., local device), or a text
    that the error has, or ALONE; metadata: what the metadata server would answer."""

    name: str
    env: dict[str, str]
    expected: tuple | str | None
    platforms: str | None = "tpu,cpu"  # what JAX sets on a machine with chips
    libtpu: bool = True
    metadata: dict[str, str] | None = None


def device_plugin(kind: str, topology: str, hosts: str, chips: str) -> dict[str, str]:
    """DEVICE_PLUGIN; hosts and chips of one as x,y,z."""
    ports = ",".join(str(8431 + i) for i in range(8 if "tpu7x" in kind else 4))
    env = {
        "TPU_ACCELERATOR_TYPE": kind,
        "TPU_TOPOLOGY": topology,
        "TPU_TOPOLOGY_ALT": "false",
        "ALT": "false",
        "TPU_TOPOLOGY_WRAP": "false,false,false",
        "WRAP": "false,false,false",
        "HOST_BOUNDS": hosts,
        "TPU_HOST_BOUNDS": hosts,
        "CHIPS_PER_HOST_BOUNDS": chips,
        "TPU_CHIPS_PER_HOST_BOUNDS": chips,
        "TPU_SKIP_MDS_QUERY": "true",
        "TPU_RUNTIME_METRICS_PORTS": ports,
        "VBAR_CONTROL_SERVICE_URL": "unix:///var/run/tpu-plugin/vbar.sock",
        "KUBERNETES_SERVICE_HOST": "34.118.224.1",
    }
    if hosts == "1,1,1" and "tpu7x" not in kind:
        env |= {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}
    return env


def jobset(name: str, job: str, slices: int, pods: int, which: int, pod: int) -> dict[str, str]:
    """GKE and JOBSET: what is added to pod `pod` of slice `which`."""
    host = lambda slice_, index: f"{name}-{job}-{slice_}-{index}.{name}"
    env = {
        "TPU_WORKER_ID": str(pod),
        "TPU_WORKER_HOSTNAMES": ",".join(host(which, i) for i in range(pods)),
        "JOB_COMPLETION_INDEX": str(pod),
        "HOSTNAME": f"{name}-{job}-{which}-{pod}-x7k2p",
    }
    if slices > 1:
        env |= {
            "MEGASCALE_NUM_SLICES": str(slices),
            "MEGASCALE_SLICE_ID": str(which),
            "MEGASCALE_COORDINATOR_ADDRESS": host(0, 0),
        }
    return env


def slurm_step(tasks: int, number: int, nodes: str = "node[07-08]", **more: str) -> dict[str, str]:
    """SLURM, a task of a step over two nodes."""
    return {
        "SLURM_JOB_ID": "70001",
        "SLURM_JOBID": "70001",
        "SLURM_NTASKS": str(tasks),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_TASKS_PER_NODE": f"{tasks // 2}(x2)",
        "SLURM_NODEID": str(number // (tasks // 2)),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number % (tasks // 2)),
    } | more


def open_mpi(size: int, rank: int, **more: str) -> dict[str, str]:
    """OPEN_MPI, all on one machine."""
    return {
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
    } | more


def lws(index: int, addresses: str) -> dict[str, str]:
    """LWS."""
    return {
        "TPU_WORKER_HOSTNAMES": ",".join(a.partition(":")[0] for a in addresses.split(",")),
        "TPU_WORKER_ID": str(index),
        "TPU_NAME": "talker-0",
        "TPU_PROCESS_ADDRESSES": addresses,
        "TPU_PROCESS_PORT": "8476",
    }


def tpu_vm(hosts: list[str], worker: int, **tpu_env: str) -> dict[str, str]:
    """JAX: attributes of a TPU VM, made by `gcloud compute tpus` (queued resources too)."""
    lines = {
        "ACCELERATOR_TYPE": "v4-16",
        "WORKER_ID": str(worker),
        "ZONE": "us-central2-b",
    } | tpu_env
    return {
        "agent-worker-number": str(worker),
        "worker-network-endpoints": ",".join(hosts),
        "tpu-env": "".join(f"{key}: '{value}'\n" for key, value in lines.items()),
    }


V5E_16 = device_plugin("v5litepod-16", "4x4", "2,2,1", "2,2,1")
V6E_8 = device_plugin("v6e-8", "2x4", "1,2,1", "2,2,1")
KAGGLE = {  # and Colab: one host that must not ask the metadata server
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_PROCESS_BOUNDS": "1,1,1",
    "TPU_HOST_BOUNDS": "1,1,1",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_PROCESS_ADDRESSES": "local",
    "TPU_CHIPS_PER_HOST_BOUNDS": "2,4,1",
}
MULTISLICE_VM = dict(
    MEGASCALE_NUM_SLICES="2",
    MEGASCALE_SLICE_ID="1",
    MEGASCALE_COORDINATOR_ADDRESS="10.130.0.31",
    MEGASCALE_TRANSPORT_TYPE="grpc",
)
ORTE = "1531576320.0;tcp://10.96.0.1,10.148.0.1,10.108.0.1:34911"

PLACES = [
    # ---- TPU on Kubernetes
    Place("GKE, one slice by a JobSet", V5E_16 | jobset("talker", "slice", 1, 4, 0, 2),
        ("talker-slice-0-0.talker:8482", 4, 2)),
    Place("GKE, the first pod of it", V5E_16 | jobset("talker", "slice", 1, 4, 0, 0),
        ("talker-slice-0-0.talker:8482", 4, 0)),
    Place("GKE, one slice, JAX_PLATFORMS=cpu to debug", V5E_16 | jobset("talker", "slice", 1, 4, 0, 3),
        ("talker-slice-0-0.talker:8482", 4, 3), platforms="cpu"),
    Place("GKE, one slice, an image without libtpu", V5E_16 | jobset("talker", "slice", 1, 4, 0, 3),
        ("talker-slice-0-0.talker:8482", 4, 3), platforms=None, libtpu=False),
    Place("GKE, two slices by a JobSet", V6E_8 | jobset("talker", "slice", 2, 2, 1, 1),
        ("talker-slice-0-0.talker:8482", 4, 3)),
    Place("GKE, four slices, the third", V6E_8 | jobset("talker", "slice", 4, 2, 2, 0),
        ("talker-slice-0-0.talker:8482", 8, 4)),
    Place("GKE, two slices of one host", device_plugin("v5litepod-8", "2x4", "1,1,1", "2,4,1") | {
        "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "talker-slice-0-0.talker"},
        ("talker-slice-0-0.talker:8482", 2, 1)),
    Place("GKE, one host", device_plugin("v5litepod-8", "2x4", "1,1,1", "2,4,1"), ALONE),
    Place("GKE, one host of TPU7x, which has no host names",
        device_plugin("tpu7x-8", "2x2x1", "1,1,1", "2,2,1"), ALONE),
    Place("GKE, TPU7x by a JobSet", device_plugin("tpu7x-16", "2x2x2", "1,1,2", "2,2,1")
        | jobset("talker", "slice", 1, 2, 0, 1), ("talker-slice-0-0.talker:8482", 2, 1)),
    Place("GKE, a Deployment on a slice of four hosts", V5E_16, "TPU_HOST_BOUNDS=2,2,1 says.*4 hosts"),
    Place("GKE, a LeaderWorkerSet whose names were overwritten",
        V5E_16 | {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}, "names localhost"),
    Place("xpk, one slice", V5E_16 | jobset("me-run", "slice-job", 1, 4, 0, 1) | {
        "JOBSET_NAME": "me-run", "REPLICATED_JOB_NAME": "slice-job"},
        ("me-run-slice-job-0-0.me-run:8482", 4, 1)),
    Place("xpk, two slices", V5E_16 | jobset("me-run", "slice-job", 2, 4, 1, 3),
        ("me-run-slice-job-0-0.me-run:8482", 8, 7)),
    Place("xpk, Pathways: the one process of the user", {"JAX_PLATFORMS": "proxy",
        "JAX_BACKEND_TARGET": "grpc://localhost:29000", "TPU_SKIP_MDS_QUERY": "true",
        "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "0",
        "MEGASCALE_COORDINATOR_ADDRESS": "me-run-pathways-head-0-0.me-run"}, ALONE, platforms="proxy"),
    Place("xpk, GPUs", {"JAX_COORDINATOR_ADDRESS": "me-run-slice-job-0-0.me-run",
        "JAX_COORDINATOR_PORT": "6002", "NNODES": "2", "NODE_RANK": "1"}, "needs all three",
        platforms=None, libtpu=False),
    Place("LeaderWorkerSet", lws(1, "talker-0.talker:8476,talker-0-1.talker:8476"),
        ("talker-0.talker:8482", 2, 1)),
    Place("LeaderWorkerSet, two containers a pod",
        lws(3, "t-0.t:8476,t-0.t:8477,t-0-1.t:8476,t-0-1.t:8477"), ("t-0.t:8482", 4, 3)),
    Place("Ray, two slices", V6E_8 | jobset("ray", "w", 1, 2, 0, 1) | {"MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1", "MEGASCALE_PORT": "8081",
        "MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1:8081"}, ("10.0.0.1:8482", 4, 3)),
    Place("IPv6 addresses", {"TPU_WORKER_HOSTNAMES": "fd00::1, fd00::2", "TPU_WORKER_ID": "1"},
        ("[fd00::1]:8482", 2, 1)),
    Place("another port", V6E_8 | jobset("t", "s", 1, 2, 0, 1) | {"JAX_COORDINATOR_PORT": "9000"},
        ("t-s-0-0.t:9000", 2, 1)),
    # ---- TPU VMs
    Place("queued resources", {}, ("t1v-n-w-0:8482", 4, 3),
        metadata=tpu_vm([f"t1v-n-w-{i}" for i in range(4)], 3)),
    Place("queued resources, the older form", {}, ("10.128.0.7:8482", 2, 1),
        metadata=tpu_vm(["unknown:n0:10.128.0.7", "unknown:n1:10.128.0.8"], 1)),
    Place("queued resources, several slices", {}, ("10.130.0.31:8482", 4, 2),
        metadata=tpu_vm(["10.130.0.41", "10.130.0.42"], 0, **MULTISLICE_VM)),
    Place("slices of TPU VMs joined by hand", MULTISLICE_VM, ("10.130.0.31:8482", 4, 3),
        metadata=tpu_vm(["10.130.0.41", "10.130.0.42"], 1)),
    Place("one TPU VM", {}, ALONE, metadata=tpu_vm(["10.130.0.41"], 0)),
    Place("a Compute Engine machine without these attributes", {}, ALONE, metadata={}),
    Place("a TPU VM on its CPU", {}, ALONE, platforms="cpu",
        metadata=tpu_vm(["10.130.0.41", "10.130.0.42"], 1)),
    Place("a TPU VM for GPUs or without libtpu", {}, ALONE, libtpu=False,
        metadata=tpu_vm(["10.130.0.41", "10.130.0.42"], 1)),
    Place("Kaggle", KAGGLE, ALONE),
    # ---- Slurm and Open MPI
    Place("Slurm, a task of four on two nodes", slurm_step(4, 3), ("node07:61809", 4, 3, 1), None, False),
    Place("Slurm, a task a node: it has all GPUs", slurm_step(2, 1), ("node07:61809", 2, 1, None),
        None, False),
    Place("Slurm, a task that sees one GPU", slurm_step(4, 3, CUDA_VISIBLE_DEVICES="3"),
        ("node07:61809", 4, 3, None), None, False),
    Place("Slurm, uneven nodes", slurm_step(4, 3, SLURM_STEP_TASKS_PER_NODE="3,1", SLURM_NODEID="1"),
        ("node07:61809", 4, 3, None), None, False),
    Place("Slurm, other names of nodes", slurm_step(4, 0, "rack[1-2]n[3,5]-ib,login"),
        ("rack1n3-ib:61809", 4, 0, 0), None, False),
    Place("Slurm, a list", slurm_step(4, 1, "alpha,beta"), ("alpha:61809", 4, 1, 1), None, False),
    Place("Slurm, the shell of sbatch", {"SLURM_JOB_ID": "70001", "SLURM_NTASKS": "4",
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "node[07-08]"}, ALONE,
        None, False),
    Place("Slurm, the interactive shell of salloc", slurm_step(4, 0) | {"SLURM_STEP_NUM_TASKS": "1",
        "SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_STEP_NODELIST": "node07"}, ALONE, None, False),
    Place("Slurm with TPU VMs: the slice's numbers count", slurm_step(2, 0) | V6E_8
        | jobset("t", "s", 1, 2, 0, 1), ("t-s-0-0.t:8482", 2, 1)),
    Place("Open MPI 4", open_mpi(2, 1, OMPI_MCA_orte_hnp_uri=ORTE), ("10.96.0.1:62624", 2, 1, 1),
        None, False),
    Place("Open MPI 4, IPv6", open_mpi(2, 1, OMPI_MCA_orte_hnp_uri=
        "1314521088.0;tcp6://[fe80::b9b:ac5d:9cf0:b858,2620:10d::2]:43370"),
        ("[fe80::b9b:ac5d:9cf0:b858]:62880", 2, 1, 1), None, False),
    Place("Open MPI 5", open_mpi(2, 1), "Open MPI says.*not where process 0 is", None, False),
    Place("Open MPI 5 with the address", open_mpi(2, 1, JAX_COORDINATOR_ADDRESS="10.0.0.1:1234"),
        ("10.0.0.1:1234", 2, 1, 1), None, False),
    Place("Open MPI, one process", open_mpi(1, 0), ALONE, None, False),
    # ---- alone
    Place("a laptop with libtpu, as JAX leaves it", {"TPU_SKIP_MDS_QUERY": "1"}, ALONE,
        platforms=None),
    Place("a laptop without", {}, ALONE, platforms=None, libtpu=False),
    Place("a box with GPUs", {"CUDA_VISIBLE_DEVICES": "0,1"}, ALONE, platforms="cuda,cpu"),
    Place("a pod with GPUs", {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, ALONE,
        platforms=None, libtpu=False),
    # ---- what cannot be right
    Place("two hosts, no number", {"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_ID=''.*0 to 1"),
    Place("a number too large", {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "2"},
        "TPU_WORKER_ID='2'"),
    Place("no number at all", {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "two"},
        "TPU_WORKER_ID='two': it must be a whole number"),
    Place("no number of a slice", {"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "a,b",
        "TPU_WORKER_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "a"}, "MEGASCALE_SLICE_ID=''"),
    Place("slices without a first host", {"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "a,b",
        "TPU_WORKER_ID": "1", "MEGASCALE_SLICE_ID": "0"}, "MEGASCALE_COORDINATOR_ADDRESS does not"),
    Place("a Slurm step without a number", {"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "2"},
        "Slurm says.*SLURM_PROCID=.. is none", None, False),
]  # fmt: skip
