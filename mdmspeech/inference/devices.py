"""Which processor JAX should look for, decided before it looks. Importing this needs no JAX."""

import importlib.util
import os
import sys
from pathlib import Path

_GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def look_for_no_tpu(devices: Path = Path("/dev")) -> None:
    """Tells JAX to use the CPU where libtpu is installed, as it compiles plans, but there is
    neither a TPU nor a GPU's plugin: its complaints would frighten.
    """
    installed = lambda name: importlib.util.find_spec(name) is not None
    if (
        os.environ.get("JAX_PLATFORMS")
        or not installed("libtpu")
        or any(map(installed, _GPU_PLUGINS))
    ):
        return
    named = any(os.environ.get(name) for name in ("TPU_NAME", "TPU_WORKER_ID"))
    if not named and not [*devices.glob("accel*"), *devices.glob("vfio/[0-9]*")]:
        os.environ["JAX_PLATFORMS"] = "cpu"
        jax = sys.modules.get("jax")  # what has been imported has read its environment
        if jax is not None and not jax.config.jax_platforms:
            jax.config.update("jax_platforms", "cpu")
