"""The best mesh for a slice: every shape (data, fsdp, tensor) that divides, thinned by what
arithmetic can tell, the rest compiled.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from jax.sharding import Mesh

from mdmspeech.errors import UserError
from mdmspeech.planning.memory import part_bytes
from mdmspeech.planning.plan import HEADROOM, Plan, slice_mesh
from mdmspeech.planning.topology import Topology
from mdmspeech.training.mesh import AXES

REMATS = ("full", "dots", "none")  # from the least memory to the most
MOST_TENSOR = 8  # ways to split a layer: beyond, two all-reduces a layer cost more than they save


def shapes(chips: int, rows: int, accum: int = 1) -> list[dict[str, int]]:
    """Mesh sizes whose product is `chips` and whose data-parallel devices divide the micro-batches
    of `rows` rows (0: so many that they do).
    """
    found = []
    for tensor in (n for n in _divisors(chips) if n <= MOST_TENSOR):
        for fsdp in _divisors(chips // tensor):
            data = chips // tensor // fsdp
            if rows % (data * fsdp * accum) == 0:
                found.append(dict(zip(AXES, (data, fsdp, tensor), strict=True)))
    return found


def candidates(
    topology: Topology, rows: int, accum: int, state_of: Callable[[Mesh], Any]
) -> tuple[list[dict[str, int]], list[tuple[dict[str, int], str]]]:
    """(meshes worth compiling, the most promising first; those left out, with the reason).

    Left out: a mesh the torus does not hold, and one whose state alone does not fit. Promising:
    layers not split; then the state split no further than it must be to leave half of the memory,
    since gathering it costs time.

    Args:
      state_of: abstract arrays that a chip of the mesh holds between steps.
    """
    limit = (1 - HEADROOM) * topology.tpu.chip.memory
    kept: list[tuple[tuple[int, int, int], dict[str, int]]] = []
    left_out = []
    for sizes in shapes(topology.chips, rows, accum):
        try:
            mesh = slice_mesh(topology, sizes)
        except UserError as error:
            left_out.append((sizes, str(error)))
            continue
        held = part_bytes(state_of(mesh))
        if held > limit:
            left_out.append(
                (sizes, f"parameters and optimiser alone take {held / 2**30:.1f} GiB a chip")
            )
        else:
            kept.append(((sizes["tensor"], int(held > limit / 2), sizes["fsdp"]), sizes))
    return [sizes for _, sizes in sorted(kept, key=lambda row: row[0])], left_out


def sweep(
    meshes: list[dict[str, int]], plan_of: Callable[[dict[str, int]], Plan], tries: int = 6
) -> Iterator[Plan]:
    """Plans of the first `tries` meshes, spread over fsdp: after one that does not fit, those with
    less of it and no more tensor are skipped.
    """
    tried = 0
    too_big: list[dict[str, int]] = []
    for sizes in meshes:
        if tried >= tries:
            return
        if any(
            sizes["fsdp"] <= big["fsdp"] and sizes["tensor"] <= big["tensor"] for big in too_big
        ):
            continue
        plan = plan_of(sizes)
        tried += 1
        if not plan.fits:
            too_big.append(sizes)
        yield plan


def layouts(start: Plan, plan_of: Callable[[str, int], Plan], tries: int = 6) -> Iterator[Plan]:
    """Plans of one step with each remat policy and number of micro-batches, `start`'s left out, at
    most `tries`: from few rows at a time to many, where that has fitted so far.

    Args:
      plan_of: (remat, accum) -> its plan, on `start`'s mesh with `start`'s rows.
    """
    shards = start.mesh["data"] * start.mesh["fsdp"]
    accums = [n for n in (start.accum * 2, start.accum, start.accum // 2, start.accum // 4) if n]
    accums = [n for n in dict.fromkeys(accums) if start.rows % (shards * n) == 0]
    full: dict[str, bool] = {}  # policy -> nothing more fits under it
    left = [(accum, remat) for accum in accums for remat in REMATS]
    for accum, remat in left:
        if tries < 1:
            return
        if (remat, accum) == (start.remat, start.accum) or full.get(remat):
            continue
        plan = plan_of(remat, accum)
        tries -= 1
        if not plan.fits:
            # a policy that keeps more fits still less
            full |= dict.fromkeys(REMATS[REMATS.index(remat) :], True)
        yield plan


def best(plans: list[Plan]) -> Plan | None:
    """The fastest that fits: by the middle of its range of times. None if none fits."""
    timed = [(p, p.roofline) for p in plans if p.fits and p.roofline]
    middle = lambda row: math.sqrt(row[1].seconds_low * row[1].seconds_high)
    return min(timed, key=middle, default=(None, None))[0]


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
