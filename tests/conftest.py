"""Before JAX is imported anywhere: eight CPU devices, and a rank promotion is an error. And what
tests of parity measure (tests/parity).
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a name that is no folder is asked of nobody
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Most of what a test costs is the compiler, so it is told to optimise little: less than half the
# time. JAX_DISABLE_MOST_OPTIMIZATIONS=false tests what users run (`make parity`, `make test-full`).
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true") == "true":
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
# What one test has compiled no other compiles again, nor a verb in a process of its own: in a
# folder that ends with the run (all processes of a run have this one's environment), not in the
# user's home.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mdmspeech-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

for folder in ("parity", "support"):  # for `from measured import close`, and the plugins
    sys.path.insert(0, str(Path(__file__).parent / folder))
pytest_plugins = ["measured", "parity_report", "tiny_decoder"]


def pytest_collection_finish(session):
    """Of what all test files have imported nothing is garbage, and tracing programs makes so many
    objects that a search begins every moment: some 4 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


_MUCH = 3 * 2**30  # bytes


@pytest.fixture(scope="module", autouse=True)
def small_memory():
    """Lets go of compiled programs after a file of tests if this process holds much: two of them
    must fit beside each other on a laptop.
    """
    yield
    held = Path("/proc/self/statm")
    if (
        "jax" in sys.modules
        and held.exists()
        and int(held.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > _MUCH
    ):
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def few_pictures(request, monkeypatch):
    """A run draws its curves after every evaluation, which takes far longer than a tiny model's
    steps: here only for tests marked `pictures`, which look at what is drawn.
    """
    observer = sys.modules.get("mdmspeech.training.observer")
    if observer and not request.node.get_closest_marker("pictures"):
        for name in ("plot_curves", "plot_goodput"):
            monkeypatch.setattr(observer, name, lambda *args: None)


@pytest.fixture(autouse=True)
def few_draws(request, monkeypatch):
    """At least 2,048 draws are packed together, several times before a run's first step: seconds
    where commands and experiments are tried on a few random records.
    """
    plan = sys.modules.get("mdmspeech.data.packing.plan")
    if plan and request.path.parent.name in ("cli", "experiments"):
        monkeypatch.setattr(plan, "_LEAST_WINDOW", 64)


def _compile_quickly():
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests that compile much and compute little: `pytestmark =
    pytest.mark.usefixtures("quick_compilation")`.
    """
    yield from _compile_quickly()


@pytest.fixture(scope="package")
def quick_compilation_of_package():
    """The same for all tests of a folder, asked for in its conftest.py."""
    yield from _compile_quickly()
