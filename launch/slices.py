"""TPU slices by the name that `mdmspeech plan --topology` uses ("v5e:4x4"), and what Google Cloud
calls them.

Sources: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e (shapes and names), /tpu/docs/runtimes
(software versions), /kubernetes-engine/docs/concepts/plan-tpus (node selectors, machine types);
of shapes also xpk 1.13, src/xpk/core/system_characteristics.py.
"""

import argparse
import dataclasses
import math
import re

# that flex-start gives a slice at most
FLEX_START_S = 7 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class _Kind:
    prefix: str  # of an accelerator type
    cores: int  # TensorCores a chip, which the number in an accelerator type counts for some
    dims: int
    runtime: str
    gke: str


_KINDS = {
    "v4": _Kind("v4", 2, 3, "tpu-ubuntu2204-base", "tpu-v4-podslice"),
    "v5e": _Kind("v5litepod", 1, 2, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice"),
    "v5p": _Kind("v5p", 2, 3, "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v6e": _Kind("v6e", 1, 2, "v2-alpha-tpuv6e", "tpu-v6e-slice"),
}
# The shape that an accelerator type of so many chips has; others must be asked for by shape.
_SHAPES = {
    2: ["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"],
    3: [
        "2x2x1",
        "2x2x2",
        "2x2x4",
        "2x4x4",
        "4x4x4",
        "4x4x8",
        "4x8x8",
        "8x8x8",
        "8x8x16",
        "8x16x16",
        "16x16x16",
    ],
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """Attributes: topology "4x4"; chips in it; accelerator_type "v5litepod-16"; runtime: software
    version of its VMs; gke_accelerator: its node label; chips_per_pod: TPU chips of one Kubernetes
    node; pods: nodes in the slice; usual: whether the accelerator type alone names the shape."""

    kind: str
    topology: str

    @property
    def name(self) -> str:
        """As `mdmspeech plan --topology` takes it."""
        return f"{self.kind}:{self.topology}"

    @property
    def chips(self) -> int:
        """Chips in the slice."""
        return math.prod(int(n) for n in self.topology.split("x"))

    @property
    def accelerator_type(self) -> str:
        """Name in gcloud and xpk."""
        return f"{_KINDS[self.kind].prefix}-{self.chips * _KINDS[self.kind].cores}"

    @property
    def runtime(self) -> str:
        """TPU software version."""
        return _KINDS[self.kind].runtime

    @property
    def gke_accelerator(self) -> str:
        """Value of the node label cloud.google.com/gke-tpu-accelerator."""
        return _KINDS[self.kind].gke

    @property
    def chips_per_pod(self) -> int:
        """Chips of a node: slices of more than one host are made of machines with four chips."""
        return min(self.chips, 4)

    @property
    def pods(self) -> int:
        """Nodes of the slice."""
        return self.chips // self.chips_per_pod

    def gcloud(self) -> list[str]:
        """Options of `gcloud compute tpus ... create` that ask for it."""
        if self._usual:
            return [f"--accelerator-type={self.accelerator_type}"]
        return [f"--type={_KINDS[self.kind].prefix}", f"--topology={self.topology}"]

    @property
    def xpk(self) -> str:
        """Value of xpk's --tpu-type. By a number of cores it would make the usual shape of them."""
        prefix = _KINDS[self.kind].prefix
        return self.accelerator_type if self._usual else f"{prefix}-{self.topology}"

    @property
    def _usual(self) -> bool:
        """Whether its accelerator type says its shape."""
        return self.topology in _SHAPES[_KINDS[self.kind].dims]


def parse_slice(text: str) -> Slice:
    """ "v5e:4x4" -> Slice; for `type=` of an argparse option."""
    kind, _, topology = text.partition(":")
    if re.fullmatch(r"(tpu)?v?7x?", kind.lower()):
        raise argparse.ArgumentTypeError(
            f'{text!r}: TPU7x is not supported (launch/README.md, "Which TPUs", says why); '
            f"use {', '.join(_KINDS)}"
        )
    if kind not in _KINDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} begins with none of {', '.join(_KINDS)}: write for example v5e:4x4"
        )
    dims = _KINDS[kind].dims
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)" + f"{{{dims - 1}}}", topology):
        raise argparse.ArgumentTypeError(
            f"{text!r}: a {kind} slice has {dims} sides, for example {kind}:{_SHAPES[dims][3]}"
        )
    found = Slice(kind, topology)
    if found.chips > 4 and found.chips % 4:
        raise argparse.ArgumentTypeError(
            f"{text!r} has {found.chips} chips: they come four to a machine"
        )
    if topology not in _SHAPES[dims] and not (dims == 3 and _of_cubes(kind, topology)):
        more = ", or sides that are multiples of 4 in rising order" if dims == 3 else ""
        raise argparse.ArgumentTypeError(
            f"{text!r}: there are no such {kind} slices, but {', '.join(_SHAPES[dims])}{more}"
        )
    return found


def _of_cubes(kind: str, topology: str) -> bool:
    """Whether it is made of whole cubes of 4x4x4 chips, in an order that there is."""
    sides = [int(n) for n in topology.split("x")]
    return not any(side % 4 for side in sides) and (kind == "v4" or sides == sorted(sides))
