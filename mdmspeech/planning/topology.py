"""TPU slices by name, and their devices for the compiler, without a TPU: libtpu describes any slice
on any machine.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from mdmspeech.errors import UserError
from mdmspeech.hardware import SHAPES, TPUS, Tpu

_NAMES = {name: tpu for tpu in TPUS.values() for name in tpu.names}
# libtpu otherwise asks the cloud's metadata server who it is, and locks out every other process
# that only wants to compile.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # of this machine, not of what is planned; it only silences a warning
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice, or several equal ones joined by the network between hosts: `shape` chips along each
    axis of a slice's torus.
    """

    tpu: Tpu
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def name(self) -> str:
        """ "v5p:4x4x4"; of two slices "2xv5p:4x4x4" """
        return self._of_all(f"{self.tpu.name}:{'x'.join(map(str, self.shape))}")

    @property
    def slice_name(self) -> str:
        """ "v5p-128"; of two slices "2xv5p-128" """
        return self._of_all(f"{self.tpu.name}-{math.prod(self.shape) * self.tpu.cores}")

    def _of_all(self, one: str) -> str:
        return f"{self.slices}x{one}" if self.slices > 1 else one

    @property
    def rings(self) -> tuple[bool, ...]:
        """Which axes are closed to a ring; on 3D chips all or none."""
        closed = tuple(n % self.tpu.ring == 0 for n in self.shape)
        return (all(closed),) * len(closed) if self.tpu.dims == 3 else closed

    def devices(self) -> list[Any]:
        """One device a chip, for compiling only. UserError: no libtpu, or a shape it does not know."""
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                "planning needs the TPU compiler: pip install 'mdmspeech[plan]' "
                "(the package libtpu, Linux on x86-64)"
            )
        from jax.experimental import topologies

        host = [min(2, n) for n in self.shape[:2]] + [1]
        options: dict[str, Any] = {"chips_per_host_bounds": host} | (
            {"chip_config_name": "megacore"} if self.tpu.megacore else {}
        )
        if self.slices > 1:
            options["num_slices"] = self.slices
        # read when libtpu is loaded, by the first call; what the user has set stays
        for key, value in _ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        try:
            described = topologies.get_topology_desc(
                platform="tpu",
                topology_name=dataclasses.replace(self, slices=1).name,
                **options,
            )
        except Exception as error:  # a bare RuntimeError with libtpu's words
            raise UserError(
                f"libtpu does not take the topology {self.name}: {str(error).splitlines()[0]}"
            ) from error
        return list(described.devices)


def parse(name: str, slices: int = 1) -> Topology:
    """ "v5p:4x4x4" (chips along each axis), or a slice name as the cloud uses it: "v5p-128",
    "v5litepod-16", "v6e-256" (its number counts TensorCores, two a chip, for v4 and v5p, and chips
    for v5e and v6e). "2xv5e-256": two such slices, as `slices` says as well.

    Raises:
      UserError: says what is known.
    """
    match = re.fullmatch(
        r"(?:(\d+) ?x ?)?([a-z]\w*?)(?::(\d+(?:x\d+)+)|-(\d+))", name.strip().lower()
    )
    if not match or match[2] not in _NAMES:
        raise UserError(
            f"unknown topology {name!r}: give {', '.join(TPUS)} with a shape "
            "(v5e:4x4, v5p:4x4x4) or a slice size (v5e-16, v5p-128), for several slices with "
            "their number in front (2xv5e-256)"
        )
    slices = int(match[1] or 1) * slices
    if slices < 1:
        raise UserError(f"topology {name!r} of {slices} slices: give 1 or more")
    return Topology(_NAMES[match[2]], _shape(name, _NAMES[match[2]], match[3], match[4]), slices)


def _shape(name: str, tpu: Tpu, along: str | None, number: str | None) -> tuple[int, ...]:
    """Of "4x4", or of a slice size."""
    if along:
        shape = tuple(int(n) for n in along.split("x"))
        if len(shape) != tpu.dims or 0 in shape:
            raise UserError(
                f"topology {name!r}: {tpu.name} is wired in {tpu.dims} dimensions; give a shape "
                f"like {tpu.name}:{'x'.join('4' * tpu.dims)}"
            )
        return shape
    shapes, count = SHAPES[tpu.dims], int(number or 0)
    if count % tpu.cores or count // tpu.cores not in shapes:
        known = ", ".join(f"{tpu.name}-{chips * tpu.cores}" for chips in shapes)
        raise UserError(
            f"there is no slice {name!r}: known are {known}; any other shape by "
            f"its axes, as in {tpu.name}:{'x'.join('4' * tpu.dims)}"
        )
    return shapes[count // tpu.cores]
