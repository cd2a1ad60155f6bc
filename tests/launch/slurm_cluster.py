"""A Slurm of one node on this machine, from Debian's packages, as root: its own folder, ports, key
and daemons, which end with it. Nothing of the machine's own Slurm, if there is one, is touched.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
INSTALL = "sudo apt-get install --no-install-recommends slurm-wlm munge, then sudo make slurm-test"
# Debian's munged and slurmd are in /usr/sbin.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_CONF = """
ClusterName=mdmspeech
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that was queued again may start once the credential of its last life has run out.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
KillWait=5
MpiDefault=none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs=8 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no such cluster can be had here; "" if it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed: {INSTALL}"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root: sudo make slurm-test"


class Cluster:
    """`run(words)` runs a client program in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}

    def run(self, *words: object, cwd: Path | None = None) -> str:
        """Standard output; fails with what was said."""
        done = subprocess.run(
            [str(word) for word in words],
            env=self.env,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def submit(self, script: Path) -> str:
        """Number of the job."""
        return self.run("sbatch", "--parsable", script.name, cwd=script.parent).strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        told = self.run("scontrol", "--oneliner", "show", "job", number)
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def ended(self, number: str, limit_s: float) -> dict[str, str]:
        """Waits for its last life's end."""
        end = time.monotonic() + limit_s
        while (job := self.job(number))["JobState"] in (
            "PENDING",
            "RUNNING",
            "COMPLETING",
            "REQUEUED",
        ):
            assert time.monotonic() < end, f"{job}\n{self.logs()}"
            time.sleep(0.5)
        return job

    def logs(self) -> str:
        """The daemons' last words."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{f.name}: ...{f.read_text(errors='replace')[-3000:]}" for f in files)


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster that is up."""
    # munged wants a folder whose parents only root may write to.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    daemons: list[subprocess.Popen] = []
    try:
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        ports = [_free_port() for _ in range(2)]
        conf = _CONF.format(folder=folder, host=host, controller=ports[0], node=ports[1])
        (folder / "slurm.conf").write_text(conf)
        for number in range(2):  # Slurm only looks whether they are there
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        cluster = Cluster(folder)

        def daemon(*words: object) -> None:
            log = open(folder / f"{words[0]}.log", "w")  # noqa: SIM115
            daemons.append(
                subprocess.Popen(
                    [str(w) for w in words], env=cluster.env, stdout=log, stderr=log, cwd=folder
                )
            )

        own = [f"--{n}={folder}/munge.{n.split('-')[0]}" for n in ("key-file", "socket", "pid-file",
            "log-file", "seed-file")]  # fmt: skip
        daemon("munged", "--foreground", "--force", *own)
        _until(lambda: (folder / "munge.socket").exists(), daemons, cluster)
        daemon("slurmctld", "-D", "-f", folder / "slurm.conf")
        daemon("slurmd", "-D", "-f", folder / "slurm.conf")
        idle = ["sinfo", "--noheader", "--format=%T"]
        _until(
            lambda: "idle" in subprocess.run(
                idle, env=cluster.env, capture_output=True, text=True, check=False
            ).stdout,
            daemons,
            cluster,
        )  # fmt: skip
        yield cluster
    finally:
        for process in reversed(daemons):
            process.terminate()
        for process in daemons:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _until(condition, daemons: list[subprocess.Popen], cluster: Cluster) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert all(d.poll() is None for d in daemons) and time.monotonic() < end, cluster.logs()
        time.sleep(0.2)
