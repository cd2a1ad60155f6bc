"""Real processes of `train_tiny.py`: starting them, looking into their runs, comparing what they
left.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

HERE = Path(__file__).parent
# numbers that say how fast, not what
TIMED = re.compile(r".*/(.*_per_s|s_per_step|data_wait|host|mfu|goodput)")


class Process(subprocess.Popen):
    """One process of a run; `log` has what it printed, both streams together."""

    def __init__(self, workdir, *options, devices=2, env=None):
        Path(workdir).parent.mkdir(parents=True, exist_ok=True)
        self.workdir = Path(workdir)
        self._file = open(f"{workdir}.{time.monotonic_ns()}.log", "w+")  # noqa: SIM115
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = (
            os.environ
            | {"PYTHONPATH": str(HERE.parents[1]), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            | (env or {})
        )
        command = [sys.executable, str(HERE / "train_tiny.py"), str(workdir), *map(str, options)]
        super().__init__(command, stdout=self._file, stderr=subprocess.STDOUT, env=environment)

    @property
    def log(self):
        return Path(self._file.name).read_text()

    def ended(self, timeout=1200):
        """Waits; returns the exit code."""
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {timeout} s:\n{self.log}") from None


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start_together(workdir, count, *options, devices=2):
    """`count` processes of one run on this machine."""
    where = ("--coordinator", f"localhost:{free_port()}", "--processes", count, "--process")
    return [Process(workdir, *options, *where, index, devices=devices) for index in range(count)]


def wait_until(condition, processes, timeout=1200):
    """Waits for a condition; all of the processes must live on until then."""
    end = time.monotonic() + timeout
    while not condition():
        for process in processes:
            assert process.poll() is None, process.log
        assert time.monotonic() < end, "\n".join(process.log for process in processes)
        time.sleep(0.002)


def rows(workdir):
    """The lines of metrics.jsonl without what depends on speed."""
    path = Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {k: v for k, v in json.loads(line).items() if not TIMED.fullmatch(k)}
        for line in lines
        if line.endswith("}")
    ]


def last_row(workdir):
    """Step of the last complete line; 0 if there is none."""
    found = rows(workdir)
    return found[-1]["step"] if found else 0


def steps_saved(workdir):
    folder = Path(workdir) / "checkpoints"
    return (
        sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []
    )


def stored(workdir):
    """Everything in the newest checkpoint: ({path: array}, data position, log, checksums)."""
    folder = Path(workdir).absolute() / "checkpoints" / str(steps_saved(workdir)[-1])
    handler = ocp.StandardCheckpointHandler()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=device),
        dict(handler.metadata(folder / "state").tree),
    )
    tree = handler.restore(folder / "state", args=ocp.args.StandardRestore(like))
    about = json.loads((folder / "about" / "metadata").read_text())
    arrays = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    return arrays, about["data"], about["log"], about["sums"]


def assert_identical(one, other):
    """Two runs left the same, bit for bit: parameters, optimiser state, averages, random key, data
    position, checksums, metrics.
    """
    (a, *rest_a), (b, *rest_b) = stored(one), stored(other)
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name
    assert rest_a == rest_b
    assert rows(one) == rows(other)
