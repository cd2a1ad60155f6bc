"""Public figures of accelerators, the one table that MFU and planning read: chips, how TPUs are
wired, and how their slices are named. And the memory of this machine.

Sources: each chip's own page; for the wiring the system architecture pages of Google Cloud
(docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e: "bidirectional ICI bandwidth per chip", ports,
DCN bandwidth per pod or chip), the TPU v4 paper (arXiv 2304.01433, table 4: six links of 50 GB/s
each way), and for the wiring of small slices "How to Scale Your Model"
(jax-ml.github.io/scaling-book/tpus).
"""

import dataclasses
import os
import sys
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Chip:
    """Attributes: bf16_flops: peak FLOP/s, dense (GPUs: without sparsity); memory: bytes; bandwidth
    of it in bytes/s; source of the figures.
    """

    bf16_flops: float
    memory: float
    bandwidth: float
    source: str


_TPU = "https://docs.cloud.google.com/tpu/docs/"
_GPU = "https://www.nvidia.com/en-us/data-center/"
CHIPS: dict[str, Chip] = {
    "v4": Chip(275e12, 32 * 2**30, 1200e9, _TPU + "v4"),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, _TPU + "v5e"),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, _TPU + "v5p"),
    "v6e": Chip(918e12, 32 * 2**30, 1638e9, _TPU + "v6e"),
    "A100": Chip(312e12, 80e9, 2039e9, _GPU + "a100/"),  # SXM, 80 GB
    "H100": Chip(989e12, 80e9, 3350e9, _GPU + "h100/"),  # SXM
    "H200": Chip(989e12, 141e9, 4800e9, _GPU + "h200/"),  # SXM
    "L4": Chip(121e12, 24e9, 300e9, _GPU + "l4/"),
}

# What `jax.Device.device_kind` says of TPUs.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def find_chip(device_kind: str) -> Chip | None:
    """The chip of a `jax.Device.device_kind` ("TPU v5 lite", "NVIDIA H100 80GB HBM3"); None if the
    table lacks it.
    """
    if device_kind in _KINDS:
        return CHIPS[_KINDS[device_kind]]
    words = device_kind.replace("-", " ").split()
    # those H100 are slower than the SXM figures above
    if "NVIDIA" not in words or {"PCIe", "NVL"} & set(words):
        return None
    return next((CHIPS[word] for word in words if word in CHIPS), None)


@dataclasses.dataclass(frozen=True)
class Tpu:
    """Attributes:
    name: ours. names: how slice names begin ("v5litepod-16").
    chip: peak, memory and its bandwidth.
    dims: of the torus. link: bytes/s of one ICI link, one way.
    ring: a torus axis is closed to a ring if its length is a multiple of this (else it is a line).
    cores: TensorCores a chip, which the number in a slice name counts. host: chips a host. dcn:
      bytes/s of one host's network.
    tile: rows and columns of a matrix unit. units: matrix units a chip, as many as the compiler's
      estimates in cycles count for.
    megacore: the compiler must be told that a chip's cores act as one device.
    """

    name: str
    names: tuple[str, ...]
    chip: Chip
    dims: int
    link: float
    ring: int
    cores: int
    host: int
    dcn: float
    tile: int
    units: int
    megacore: bool = False

    @property
    def clock(self) -> float:
        """Cycles a second: those in which the matrix units, each tile x tile multiply-adds a cycle,
        reach the chip's peak. (v4: 1.05 GHz, as in its paper.)
        """
        return self.chip.bf16_flops / (2 * self.units * self.tile**2)


TPUS: dict[str, Tpu] = {
    tpu.name: tpu
    for tpu in (
        # 300 GB/s each way over 6 links (paper). DCN: no figure on its page; the 200 Gbit/s a host
        # that v5p (the same host layout) has.
        Tpu(
            "v4",
            ("v4",),
            CHIPS["v4"],
            dims=3,
            link=50e9,
            ring=4,
            cores=2,
            host=4,
            dcn=25e9,
            tile=128,
            units=8,
            megacore=True,
        ),
        # 400 GB/s both ways over 4 ports; 2 x 100 Gbit/s cards a host.
        Tpu(
            "v5e",
            ("v5e", "v5litepod"),
            CHIPS["v5e"],
            dims=2,
            link=50e9,
            ring=16,
            cores=1,
            host=8,
            dcn=25e9,
            tile=128,
            units=4,
        ),
        # 1200 GB/s both ways over 6 ports; 50 Gbit/s a chip, 4 chips a host.
        Tpu(
            "v5p",
            ("v5p",),
            CHIPS["v5p"],
            dims=3,
            link=100e9,
            ring=4,
            cores=2,
            host=4,
            dcn=25e9,
            tile=128,
            units=8,
        ),
        # 800 GB/s both ways over 4 ports; 25.6 Tbit/s a pod of 256 chips, 8 chips a host.
        # Its page names two units; only four make its peak at a clock that the others have, and the
        # compiler counts a large product at 70 % of four.
        Tpu(
            "v6e",
            ("v6e",),
            CHIPS["v6e"],
            dims=2,
            link=100e9,
            ring=16,
            cores=1,
            host=8,
            dcn=100e9,
            tile=256,
            units=4,
        ),
    )
}

# Slice sizes in chips -> shape, as the cloud offers them.
SHAPES: dict[int, dict[int, tuple[int, ...]]] = {
    2: {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16),
        256: (16, 16)},
    3: {
        4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8),
        256: (4, 8, 8), 512: (8, 8, 8),
        1024: (8, 8, 16), 2048: (8, 16, 16), 4096: (16, 16, 16),
    },
}  # fmt: skip


_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def machine_memory() -> int | None:
    """Bytes of memory that this machine, or the container, has; None where that is not known."""
    try:
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(have, int(_LIMIT.read_text()))
    except (OSError, ValueError):  # none, or "max"
        return have


def peak_memory() -> int | None:
    """Bytes that this process has held at most, parts of memory maps that it has read included; None
    where that is not known.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
