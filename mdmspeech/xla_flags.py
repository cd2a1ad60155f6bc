"""What the TPU compiler is told by each kind of chip: one table, a reason and a source a group.

libtpu reads `LIBTPU_INIT_ARGS` when it is loaded, so `apply` comes before JAX looks for devices.
What the user has set there wins, flag by flag; `MDMSPEECH_XLA_FLAGS=none` leaves everything as it
is. No flag changes what is computed. Importing this needs no JAX.

Sources: "XLA compiler flags", docs.jax.dev/en/latest/xla_flags.html (what a flag does), and
github.com/AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py (which are used together). Those
of libtpu 0.0.42 are known to be taken by the compiler (tests/planning/test_xla_flags.py); what they
bring to these programs on a chip has not been measured.
"""

import dataclasses
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

VARIABLE, SWITCH = "LIBTPU_INIT_ARGS", "MDMSPEECH_XLA_FLAGS"


@dataclasses.dataclass(frozen=True)
class Group:
    """Flags that work together.

    Attributes:
      why: what they are for. chips: names of `hardware.TPUS` that get them. slices: only where
        several slices compute together.
    """

    why: str
    chips: tuple[str, ...]
    flags: Mapping[str, str]
    slices: bool = False


GROUPS: Mapping[str, Group] = {
    "async collectives": Group(
        "fsdp gathers a layer's parameters in front of the layer: the transfer goes on beside the "
        "products of the layer before, in several pieces, on the one core that these chips have",
        ("v5e", "v6e"),
        {
            "xla_enable_async_all_gather": "true",
            "xla_tpu_enable_async_collective_fusion": "true",
            "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
            "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
            "xla_tpu_overlap_compute_collective_tc": "true",
        },
    ),
    "async collectives of two cores": Group(
        "the same where a chip's two cores act as one (megacore), whose own fusion the compiler "
        "chooses",
        ("v4", "v5p"),
        {
            "xla_enable_async_all_gather": "true",
            "xla_tpu_enable_async_collective_fusion": "true",
            "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
            "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
        },
    ),
    "latency hiding": Group(
        "the schedule that hides transfers keeps more arrays at a time: where it would not fit, it is "
        "made again with less of that, instead of being given up",
        ("v4", "v5e", "v5p", "v6e"),
        {"xla_latency_hiding_scheduler_rerun": "2"},
    ),
    "gradient layout": Group(
        "a layout of gradients in which their reduce-scatter over fsdp needs no copy",
        ("v6e",),
        {
            "xla_tpu_use_minor_sharding_for_major_trivial_input": "true",
            "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": "1",
            "xla_tpu_assign_all_reduce_scatter_layout": "true",
        },
    ),
    "scoped VMEM": Group(
        "of the memory beside the matrix units (VMEM) one operation may use 96 MiB: products of "
        "Transformers are bound by compute, and larger tiles read HBM less often. The rest is left to "
        "what is fetched ahead",
        ("v6e",),
        {"xla_tpu_scoped_vmem_limit_kib": "98304"},
    ),
    "several slices": Group(
        "gradients of several slices are added over the data centre's network, which is slow: the "
        "addition goes on beside other work, over iterations of a loop. It takes memory",
        ("v4", "v5e", "v5p", "v6e"),
        {
            "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
            "xla_tpu_data_parallel_opt_different_sized_ops": "true",
        },
        slices=True,
    ),
}
# Of TPU_ACCELERATOR_TYPE ("v5litepod-16"), and of Google's devices on the PCI bus (as in
# jax/_src/hardware_utils.py).
_TYPES = {"v4": "v4", "v5litepod": "v5e", "v5e": "v5e", "v5p": "v5p", "v6e": "v6e"}
_GOOGLE = "0x1ae0"
_DEVICES = {"0x005e": "v4", "0x0062": "v5p", "0x0063": "v5e", "0x006f": "v6e"}


def flags_for(chip: str, slices: int = 1) -> dict[str, str]:
    """Flag -> value for a chip of `hardware.TPUS`; {} for one that the table does not know."""
    found: dict[str, str] = {}
    for group in GROUPS.values():
        if chip in group.chips and (slices > 1 or not group.slices):
            found |= group.flags
    return found


def with_flags(chip: str, given: str = "", slices: int = 1) -> str:
    """`LIBTPU_INIT_ARGS`: the table's flags for a chip, then those that are given, which win."""
    own = _names(given)
    ours = [f"--{k}={v}" for k, v in flags_for(chip, slices).items() if k not in own]
    return " ".join([*ours, *given.split()])


def apply(env: MutableMapping[str, str] | None = None, root: Path = Path("/")) -> str:
    """Sets `LIBTPU_INIT_ARGS` for this machine's chips; a line for the log, "" where nothing is done:
    no chip was found, or not wanted.

    Args:
      env: by default that of this process. root: of the file system, for tests.
    """
    env = os.environ if env is None else env
    chip = find_chip(env, root)
    if not chip or env.get(SWITCH) == "none" or env.get("JAX_PLATFORMS", "") == "cpu":
        return ""
    given, number = env.get(VARIABLE, ""), env.get("MEGASCALE_NUM_SLICES", "")
    slices = int(number) if number.isdecimal() else 1
    ours = [name for name in flags_for(chip, slices) if name not in _names(given)]
    if not ours:
        return ""
    env[VARIABLE] = with_flags(chip, given, slices)
    yours = f", after them yours: {given}" if given else ""
    return (
        f"{VARIABLE} has {len(ours)} flags for {chip} (mdmspeech.xla_flags; {SWITCH}=none leaves "
        f"them out){yours}"
    )


def find_chip(env: Mapping[str, str], root: Path = Path("/")) -> str:
    """The kind of this machine's TPU chips, "" if there is none or an unknown one. JAX is not asked."""
    kind = env.get("TPU_ACCELERATOR_TYPE", "").rpartition("-")[0]
    if kind in _TYPES:
        return _TYPES[kind]
    for vendor in sorted(root.glob("sys/bus/pci/devices/*/vendor")):
        device = vendor.parent / "device"
        if vendor.read_text().strip() != _GOOGLE or not device.is_file():
            continue
        if chip := _DEVICES.get(device.read_text().strip()):
            return chip
    return ""


def _names(given: str) -> set[str]:
    """Of the flags in a line: "--name=value", or "--name" and, of a boolean one, "--noname"."""
    names = {word.lstrip("-").partition("=")[0] for word in given.split() if word.startswith("-")}
    return names | {name.removeprefix("no") for name in names}
