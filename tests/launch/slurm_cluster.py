"""A Slurm of one node on this machine, from Debian's packages, as root: its own folder, ports, key
and daemons, which end with it. Nothing of the machine's own Slurm, if there is one, is touched.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*_DAEMONS, "sbatch", "srun", "scontrol", "scancel")
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
    """Attributes: folder: of all its files; env: with which its client programs run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Writes its files, starts its daemons and waits for its node."""
        host = socket.gethostname().partition(".")[0]
        self.folder.chmod(0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        conf = _CONF.format(
            folder=self.folder, host=host, controller=_free_port(), node=_free_port()
        )
        (self.folder / "slurm.conf").write_text(conf)
        gpus = (f"NodeName={host} Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
        (self.folder / "gres.conf").write_text("".join(gpus))
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        files = ("key-file", "socket", "pid-file", "log-file", "seed-file")
        own = (f"--{name}={self.folder}/munge.{name.partition('-')[0]}" for name in files)
        self._daemon("munged", "--foreground", "--force", *own)
        self._until((self.folder / "munge.socket").exists)
        for name in ("slurmctld", "slurmd"):
            self._daemon(name, "-D", "-f", str(self.folder / "slurm.conf"))
        self._until(lambda: "idle" in self._ask("sinfo", "--noheader", "--format=%T"))

    def stop(self) -> None:
        """Ends jobs, daemons and what is left of them."""
        if len(self._daemons) == len(_DAEMONS):
            self._ask("scancel", "--user=root")
            end = time.monotonic() + 20
            while self._ask("squeue", "--noheader") and time.monotonic() < end:
                time.sleep(0.5)
        for process in reversed(self._daemons):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        mark = f"SLURM_CONF={self.folder}/".encode()
        for about in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in about.read_bytes():
                    os.kill(int(about.parent.name), signal.SIGKILL)

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """Standard output of a client program; fails with what was said."""
        done = self._client(words, cwd)
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
        end, over = time.monotonic() + limit_s, ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")
        while (job := self.job(number))["JobState"] not in over:
            assert time.monotonic() < end, f"{job}\n{self.logs()}"
            time.sleep(0.5)
        return job

    def logs(self) -> str:
        """The daemons' last words."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{f.name}: ...{f.read_text(errors='replace')[-3000:]}" for f in files)

    def _client(self, words: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            words,
            env=self.env,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _ask(self, *words: str) -> str:
        return self._client(words).stdout

    def _daemon(self, *words: str) -> None:
        with open(self.folder / f"{words[0]}.log", "w") as log:
            self._daemons.append(
                subprocess.Popen(words, env=self.env, stdout=log, stderr=log, cwd=self.folder)
            )

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            alive = all(daemon.poll() is None for daemon in self._daemons)
            assert alive and time.monotonic() < end, self.logs()
            time.sleep(0.2)


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster that is up."""
    # munged wants a folder whose parents only root may write to, or sticky ones.
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp")))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
