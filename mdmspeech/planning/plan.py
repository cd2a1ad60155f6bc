"""One plan: compile a program for a slice that is not there, and read off memory, FLOPs, bytes and
collectives.
"""

import dataclasses
import importlib.metadata
import os
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mdmspeech import xla_flags
from mdmspeech.errors import UserError
from mdmspeech.nn.tracing import attention_backend
from mdmspeech.planning import collectives, hlo, memory, schedule, traffic
from mdmspeech.planning.advice import advise
from mdmspeech.planning.collectives import Collective
from mdmspeech.planning.program import Program
from mdmspeech.planning.roofline import Roofline, estimate
from mdmspeech.planning.topology import Topology
from mdmspeech.training.mesh import make_mesh

# of HBM, kept free: for what the compiler does not
# see (prefetched batches, the runtime, fragmentation)
HEADROOM = 0.10
# What nearly all of a compilation goes into is the code of every fusion and what it keeps on the
# chip, which a plan needs little of.
_QUICK: dict[str, str | bool] = {"xla_optimization_level": "EFFORT_O1"}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Attributes:
    name, what, way: of the configuration; "train", "decode" or "think"; how a Talker decodes.
    remat, accum: of a training step.
    topology, slice_name, chips: of the whole slice. mesh: devices per axis. rows: of the global
      batch (or decoded together).
    memory: bytes on one chip by kind, see `memory.split`; without what the compiler did not get to
      say if it ran out of memory.
    needed, available: bytes of one chip; `needed` is at least so much if memory ran out.
    compiled: False if the compiler ran out of memory. fits: compiled, with HEADROOM to spare.
    model_flops, flops: of one call over all devices; hbm_bytes of one device.
    unit, units: of one call.
    advice: what to change if it does not fit.
    seconds: of tracing and compiling, here.
    quick: see `make_plan`.
    """

    name: str
    what: str
    topology: str
    slice_name: str
    chips: int
    mesh: dict[str, int]
    rows: int
    unit: str
    units: int
    memory: dict[str, int]
    needed: int
    available: int
    compiled: bool
    fits: bool
    model_flops: float
    flops: float
    hbm_bytes: float = 0.0
    collectives: tuple[Collective, ...] = ()
    roofline: Roofline | None = None
    advice: tuple[str, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    quick: bool = False
    way: str = ""
    remat: str = ""
    accum: int = 1

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Plan":
        """The inverse of `to_json`."""
        row = dict(row)
        row["collectives"] = tuple(Collective(**c) for c in row["collectives"])
        row["roofline"] = Roofline(**row["roofline"]) if row["roofline"] else None
        row["advice"] = tuple(row["advice"])
        return cls(**row)


def versions() -> dict[str, str]:
    """Of what decides the result."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}


def slice_mesh(topology: Topology, sizes: dict[str, int]) -> Mesh:
    """The mesh that training makes of the slice's devices. UserError if they cannot be arranged so."""
    return make_mesh(**sizes, devices=topology.devices())


def make_plan(
    name: str,
    what: str,
    topology: Topology,
    sizes: dict[str, int],
    program_of: Callable[[Mesh], Program],
    settings: dict[str, Any] | None = None,
    quick: bool = False,
    way: str = "",
) -> Plan:
    """Compiles and reads. A training step gets the flags with which `train` compiles on such chips
    (`xla_flags`).

    Args:
      sizes: devices per mesh axis (data, fsdp, tensor); may be fewer than the slice has.
      program_of: the program on a mesh.
      settings: what `advice` may talk about: remat, dtype, accum, ema.
      quick: compile with little effort, in a third of the time: the same FLOPs and collectives;
        memory somewhat higher, and HBM traffic up to twice, because nothing is fetched ahead and
        kept on the chip.

    Raises:
      UserError: see `slice_mesh`, `train_program`; or the compiler refuses for another reason than
        memory.
    """
    mesh = slice_mesh(topology, sizes)
    began = time.perf_counter()
    # before the mesh is in context: no array, not even a key, can be made on its devices
    program = program_of(mesh)
    plan = Plan(
        name=name, what=what, topology=topology.name, slice_name=topology.slice_name,
        chips=topology.chips, mesh=dict(mesh.shape),
        rows=program.rows, unit=program.unit, units=program.units, memory={}, needed=0,
        available=int(topology.tpu.chip.memory), compiled=False,
        fits=False, model_flops=program.model_flops, flops=program.flops, versions=versions(),
        quick=quick, way=way, remat=(settings or {}).get("remat", ""),
        accum=(settings or {}).get("accum", 1),
    )  # fmt: skip
    options: dict[str, str | bool] = dict(_QUICK if quick else {})
    if what == "train" and os.environ.get(xla_flags.SWITCH) != "none":
        options |= xla_flags.flags_for(topology.tpu.name, topology.slices)
    with jax.set_mesh(mesh), attention_backend("tpu"):
        lowered = jax.jit(
            program.function, donate_argnums=program.donated, out_shardings=program.out_shardings
        ).lower(*program.arguments)
    traced = time.perf_counter()
    try:
        compiled = lowered.compile(options or None)
    except jax.errors.JaxRuntimeError as error:
        plan = _refused(plan, program, error)
    else:
        plan = _read(plan, program, topology, mesh, compiled)
    plan = dataclasses.replace(
        plan, seconds={"trace": traced - began, "compile": time.perf_counter() - traced}
    )
    return (
        plan if plan.fits else dataclasses.replace(plan, advice=tuple(advise(plan, settings or {})))
    )


def _read(plan: Plan, program: Program, topology: Topology, mesh: Mesh, compiled: Any) -> Plan:
    module = hlo.parse(compiled.as_text())
    coordinates = np.array([device.coords[: topology.tpu.dims] for device in mesh.devices.flat])
    links = collectives.Links(topology, coordinates)
    found = collectives.find(module, dict(mesh.shape), links, program.unknown_trips)
    moved = traffic.hbm_bytes(module, program.unknown_trips)
    times = schedule.walk(
        module,
        schedule.rates(module, topology.tpu, program.flops / mesh.size, program.unknown_trips),
        lambda instruction, where: collectives.cost(module, instruction, where, links),
        program.unknown_trips,
    )
    sizes = memory.split(compiled, program.parts)
    needed = sum(sizes.values())
    return dataclasses.replace(
        plan,
        memory=sizes,
        needed=needed,
        compiled=True,
        fits=needed <= (1 - HEADROOM) * plan.available,
        hbm_bytes=moved,
        collectives=tuple(found),
        roofline=estimate(
            topology,
            mesh.size,
            program.flops,
            program.model_flops,
            moved,
            found,
            times,
            program.units,
        ),
    )


def _refused(plan: Plan, program: Program, error: Exception) -> Plan:
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text or "hbm" not in text.lower():
        raise UserError(
            f"{plan.name} on {plan.topology}, mesh {describe(plan.mesh)}: the "
            f"TPU compiler refuses: {' '.join(text.split())[:400]}"
        ) from error
    sizes = {name: memory.part_bytes(part) for name, part in program.parts.items()}
    # "... HLO temporaries (30.94G) exceeds available HBM (15.75G)" or "Used 30.94G of 15.75G hbm"
    amount = re.search(r"\(([\d.]+)([KMGT]?)B?\) exceeds|[Uu]sed ([\d.]+)([KMGT]?) of", text)
    asked = 0
    if amount:
        number, unit = (amount[1], amount[2]) if amount[1] else (amount[3], amount[4])
        asked = int(float(number) * _UNITS[unit])
    if "temporaries" in text:
        sizes["temporaries"] = asked
    return dataclasses.replace(plan, memory=sizes, needed=max(sum(sizes.values()), asked))


def describe(sizes: dict[str, int]) -> str:
    """ "data=2 fsdp=8 tensor=1" """
    return " ".join(f"{axis}={n}" for axis, n in sizes.items())
