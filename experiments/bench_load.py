"""Loading a checkpoint of 2 GB: memory and time of the streamed load (mdmspeech/interop/rules.py),
whole and split over eight devices.

Command: make bench-load (two minutes, 7 GB of memory, 2 GB in the temporary folder). Not an
  experiment with a config, and no test.

The checkpoint is made first: random weights of a Qwen3 with 1.0 B parameters, in bfloat16, as a
Hugging Face folder of five safetensors files. Each load runs in a process of its own. "besides" is
what the process held at its peak over what it held before and the parameters themselves; a group is
one parameter with its layers stacked, the least that must be put together at once.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np

SHARD_BYTES = 450_000_000
CASES = [(dtype, devices) for dtype in ("bfloat16", "float32") for devices in (1, 8)]


def config():
    from mdmspeech.models.thinker import ThinkerConfig

    sizes = dict(
        vocab_size=98304,
        dim=2048,
        num_layers=16,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        ffn_dim=6144,
    )
    return ThinkerConfig(**sizes, qk_norm=True, scan_layers=True)


class Random:
    """A tensor that is drawn when it is written."""

    dtype = np.dtype(ml_dtypes.bfloat16)

    def __init__(self, shape):
        self.shape = tuple(shape)

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        return (
            np.random.default_rng(start)
            .random((stop - start, *self.shape[1:]), np.float32)
            .astype(self.dtype)
        )

    def __array__(self, dtype=None, copy=None):
        return self[slice(None)]


def make(folder: Path) -> None:
    """Writes the checkpoint."""
    from flax.traverse_util import flatten_dict

    from mdmspeech.interop.export import How, write_opened
    from mdmspeech.interop.huggingface import thinker_shapes
    from mdmspeech.interop.huggingface_rules import thinker_rules
    from mdmspeech.interop.sources import OpenedThinker

    shapes = flatten_dict(thinker_shapes(config()), sep="/")
    tensors = {
        rule.name: Random(rule.theirs(shapes[rule.path].shape)) for rule in thinker_rules(config())
    }
    write_opened(
        folder,
        OpenedThinker(config(), tensors, lambda: None, "random weights"),
        How(shard_bytes=SHARD_BYTES),
    )


def load(folder: Path, dtype: str, devices: int) -> None:
    """One measurement, printed as a line of the table."""
    import jax

    from mdmspeech.interop.huggingface import read_thinker_folder, thinker_shapes
    from mdmspeech.training.mesh import make_mesh, param_shardings

    shapes = thinker_shapes(config())
    places = param_shardings(make_mesh(1, 4, 2), shapes) if devices == 8 else None
    jax.block_until_ready(jax.device_put(np.zeros(8)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before, start, busy = _megabytes("VmRSS"), time.perf_counter(), time.process_time()
    _, params = read_thinker_folder(folder, dtype=dtype, shardings=places, scan_layers=True)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    item = np.dtype(dtype).itemsize
    sizes = [leaf.size * item / 1e6 for leaf in jax.tree.leaves(shapes)]
    result = (
        sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        if places is None
        else sum(map(_held, jax.tree.leaves(params)))
    )
    peak = _megabytes("VmHWM") - before
    besides = peak - result / 1e6
    row(
        dtype,
        devices,
        f"{result / 1e6:,.0f}",
        f"{max(sizes):,.0f}",
        f"{peak:,.0f}",
        f"{besides:,.0f}",
        f"{besides / max(sizes):.2f}",
        f"{seconds:.1f}",
        f"{busy:.1f}",
    )


def _held(array) -> int:
    return sum(shard.data.nbytes for shard in array.addressable_shards)


def _megabytes(entry: str) -> float:
    return (
        int(re.search(rf"^{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1])
        * 1024
        / 1e6
    )


def row(*cells):
    """A line of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--case",
        nargs=3,
        metavar=("FOLDER", "DTYPE", "DEVICES"),
        help="only this load, in this process",
    )
    args = parser.parse_args()
    if args.case:
        load(Path(args.case[0]), args.case[1], int(args.case[2]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, start = Path(temporary) / "checkpoint", time.perf_counter()
        make(folder)
        files = sorted(folder.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        print(
            f"wrote {size / 1e9:.2f} GB in {len(files)} files in "
            f"{time.perf_counter() - start:.0f} s\n"
        )
        row(
            "read as",
            "devices",
            "parameters MB",
            "largest group MB",
            "peak over start MB",
            "besides MB",
            "besides / group",
            "seconds",
            "CPU seconds",
        )
        row(*["---"] * 9)
        for dtype, devices in CASES:
            flags = (
                f"{os.environ.get('XLA_FLAGS', '')} "
                f"--xla_force_host_platform_device_count={devices}"
            )
            command = [
                sys.executable,
                "-m",
                "experiments.bench_load",
                "--case",
                str(folder),
                dtype,
                str(devices),
            ]
            subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=True)


if __name__ == "__main__":
    main()
