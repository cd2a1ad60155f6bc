"""How long the compiled program takes: the compiler has put the instructions in an order (the module
`is_scheduled`), so what overlaps can be read, not guessed.

A core does one instruction after another. How long one takes is told twice: at the rate of the chip
(the longer of its FLOPs and its HBM bytes), which nothing beats; and as the compiler itself
estimates it, in cycles, from how it tiles matrices and fills the vector unit. Copies between HBM and
the chip's memory, and collectives, are started and waited for later: they run beside what stands
between, one after another on each resource. A collective that is not started ahead makes the core
wait.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator

import numpy as np

from mdmspeech.hardware import Tpu
from mdmspeech.planning import traffic
from mdmspeech.planning.collectives import DCN, ICI
from mdmspeech.planning.hlo import ONCE, Instruction, Module, Trips

HBM = "hbm"
_RESOURCES = (HBM, ICI, DCN)
_KERNEL = 'custom_call_target="tpu_custom_call"'
# of the peak that a Pallas attention kernel reaches, where the compiler gives no estimate; assumed
KERNEL_SHARE = 0.5
# cycles that mean "not known": the compiler writes the largest number there is
_NO_ESTIMATE = 2**62
_ASYNC = "async-collective-"  # how the compiler calls fusions that start and end a collective


@dataclasses.dataclass
class Times:
    """Seconds of one call of the program on one chip.

    Attributes:
      kernels: of all that the core does, each instruction at the chip's rate.
      estimated: the same as the compiler estimates it; at the chip's rate where it does not.
      exposed: what the core waits, by what it waits for ("hbm": copies, "ici", "dcn").
      serial: of copies and collectives one by one.
    """

    kernels: float = 0.0
    estimated: float = 0.0
    exposed: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(_RESOURCES, 0.0)
    )
    serial: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(_RESOURCES, 0.0)
    )

    @property
    def scheduled(self) -> float:
        """Of the whole, every instruction at the chip's rate, overlapping as it is scheduled."""
        return self.kernels + sum(self.exposed.values())

    def add(self, other: "Times", times: float) -> None:
        """`times` runs more of `other`."""
        self.kernels += times * other.kernels
        self.estimated += times * other.estimated
        for resource in _RESOURCES:
            self.exposed[resource] += times * other.exposed[resource]
            self.serial[resource] += times * other.serial[resource]


@dataclasses.dataclass(frozen=True)
class Rates:
    """Attributes:
    flops, bandwidth, clock: of a chip, a second. tile: rows and columns of its matrix unit.
    kernel_flops: of all Pallas kernels of one call on one chip, which the module does not show;
      shared among them by the bytes they move.
    """

    flops: float
    bandwidth: float
    clock: float
    tile: int
    kernel_flops: float = 0.0


def rates(module: Module, tpu: Tpu, total_flops: float, unknown_trips: Trips = ONCE) -> Rates:
    """Of a chip. total_flops: of one call on one chip, Pallas kernels included."""
    shown = sum(
        times * flops
        for name, times in module.executed(unknown_trips)
        for i in module.computations[name]
        for flops, _ in products(module, i, name, tpu.tile)
    )
    hidden = max(total_flops - shown, 0.0)
    return Rates(tpu.chip.bf16_flops, tpu.chip.bandwidth, tpu.clock, tpu.tile, hidden)


def walk(
    module: Module,
    rates: Rates,
    collective: Callable[[Instruction, str], tuple[str, float] | None],
    unknown_trips: Trips = ONCE,
) -> Times:
    """The schedule from begin to end.

    Args:
      collective: (instruction, its computation) -> (network, seconds) of a collective, also of one
        inside a fusion; None for anything else.
      unknown_trips: see `Module.executed`.
    """
    kernel_bytes = sum(
        times * traffic.instruction_bytes(module, name, i)
        for name, times in module.executed(unknown_trips)
        for i in module.computations[name]
        if _KERNEL in i.attributes
    )
    per_byte = rates.kernel_flops / kernel_bytes if kernel_bytes else 0.0
    return _Walk(module, rates, collective, per_byte).run(module.entry, unknown_trips)


class _Walk:
    def __init__(self, module, rates, collective, kernel_flops_per_byte):
        self._module, self._rates, self._collective = module, rates, collective
        self._per_byte = kernel_flops_per_byte

    def run(self, name: str, trips: Trips) -> Times:
        """Of one computation. What is in flight at its end is waited for."""
        times = Times()
        free = dict.fromkeys(_RESOURCES, 0.0)  # when each is done with what it has
        ends: dict[str, tuple[str, float]] = {}  # what is in flight -> (resource, when it is there)

        def wait(resource: str, until: float) -> None:
            times.exposed[resource] += max(until - times.scheduled, 0.0)

        for i in self._module.computations[name]:
            for inner, runs, left in self._module.inside(i, name, trips):
                times.add(self.run(inner, left), runs)
            key = flight(self._module, i, name)
            if is_done(i):
                wait(*ends.pop(key, (HBM, 0.0)))
                continue
            found = None if key in ends else self._transfer(i, name)
            if found:
                resource, seconds = found
                times.serial[resource] += seconds
                free[resource] = max(times.scheduled, free[resource]) + seconds
                if is_start(i):
                    ends[key] = resource, free[resource]
                else:
                    wait(resource, free[resource])
            elif i.opcode not in ("while", "call", "conditional"):
                seconds, estimated = self._seconds(i, name)
                times.kernels += seconds
                times.estimated += estimated
        for resource, end in ends.values():
            wait(resource, end)
        return times

    def _transfer(self, i: Instruction, where: str) -> tuple[str, float] | None:
        """(resource, seconds) of what runs beside the core."""
        if i.opcode in ("copy-start", "slice-start"):
            moved = traffic.instruction_bytes(self._module, where, i)
            return HBM, moved / self._rates.bandwidth
        return self._collective(i, where)

    def _seconds(self, i: Instruction, where: str) -> tuple[float, float]:
        """(at the rate of the chip, as the compiler estimates)."""
        moved = traffic.instruction_bytes(self._module, where, i) / self._rates.bandwidth
        if _KERNEL in i.attributes:
            matrix = moved * self._rates.bandwidth * self._per_byte / self._rates.flops
            return max(matrix, moved), max(matrix / KERNEL_SHARE, moved)
        found = products(self._module, i, where, self._rates.tile)
        matrix = sum(flops / filled for flops, filled in found) / self._rates.flops
        bound = max(matrix, moved)
        cycles = re.search(r'"estimated_cycles":"(\d+)"', i.attributes)
        if not cycles or int(cycles[1]) >= _NO_ESTIMATE:
            return bound, bound
        return bound, max(bound, int(cycles[1]) / self._rates.clock)


def is_start(i: Instruction) -> bool:
    """Whether an instruction starts something that another waits for."""
    name = i.name if i.opcode == "fusion" else ""
    return i.opcode.endswith("-start") or i.opcode == "send" or name.startswith(_ASYNC + "start")


def is_done(i: Instruction) -> bool:
    """Whether an instruction waits for something that another has started."""
    name = i.name if i.opcode == "fusion" else ""
    return i.opcode.endswith("-done") or name.startswith(_ASYNC + "done")


def flight(module: Module, i: Instruction, where: str) -> str:
    """What ties the start of a transfer to its end: the name of a transfer between slices, the
    channel of a collective, or the name of what started a copy.
    """
    if i.opcode.endswith("-done"):
        if i.opcode == "send-done":  # nobody waits for it
            return i.name
        i = module.named[where][i.operands[0]]
    transfer = re.search(r'_xla_host_transfer_rendezvous="([^"]+)"', i.attributes)
    if transfer:
        return transfer[1]
    if i.opcode == "fusion":
        inside = i.called()["calls"][0]
        keys = (flight(module, inner, inside) for inner in module.computations[inside])
        return next((key for key in keys if key.startswith("channel")), i.name)
    channel = re.search(r"channel_id=(\d+)", i.attributes)
    return f"channel {channel[1]}" if channel else i.name


def products(
    module: Module, i: Instruction, where: str, tile: int
) -> Iterator[tuple[float, float]]:
    """(FLOPs, share of the matrix unit's tiles that is filled) of every product of matrices of an
    instruction, those in fusions included.
    """
    if i.opcode in ("convolution", "dot"):
        yield product(module, i, where, tile)
    elif i.opcode == "fusion":
        inside = i.called()["calls"][0]
        for inner in module.computations[inside]:
            yield from products(module, inner, inside, tile)


def product(module: Module, i: Instruction, where: str, tile: int) -> tuple[float, float]:
    """(FLOPs, share of the matrix unit's tiles that is filled) of a convolution or dot.

    A product of matrices is a convolution on TPUs; taps that fall on padding or between dilated
    elements cost nothing.
    """
    named = module.named[where]
    left, right = (named[o].arrays[0].dims for o in i.operands[:2])
    out = i.arrays[0].dims
    if i.opcode == "dot":
        at = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
        inner = math.prod(left[int(n)] for n in at[1].split(",")) if at and at[1] else 1
        return 2.0 * math.prod(out) * inner, _filled(
            math.prod(out) // out[-1], inner, out[-1], tile
        )
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    assert labels is not None
    lhs, rhs, result = labels.groups()
    inner, columns, rows = right[rhs.index("i")], out[result.index("f")], out[result.index("b")]
    taps = 1.0
    for axis in (c for c in result if c.isdigit()):
        size = right[rhs.index(axis)]
        window = {key: _window(i.attributes, key, int(axis)) for key in _DEFAULTS}
        low = int(str(window["pad"]).split("_")[0])
        taps *= _taps(left[lhs.index(axis)], size, out[result.index(axis)], low, window)
    flops = 2.0 * rows * columns * inner * taps
    return flops, _filled(math.prod(out) // columns, inner, columns, tile)


_DEFAULTS = {"stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}


def _window(attributes: str, key: str, axis: int) -> str:
    """One number of `window={size=1x8 pad=0_0x7_7 ...}`."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    found = re.search(rf"\b{key}=(\S+)", window[1]) if window else None
    return found[1].split("x")[axis] if found else _DEFAULTS[key]


def _taps(length: int, size: int, out: int, low: int, window: dict[str, str]) -> int:
    """Pairs of an output and a tap of the window along one axis that meet an input."""
    stride, dilate = int(window["stride"]), int(window["lhs_dilate"])
    at = np.arange(out)[:, None] * stride - low + np.arange(size) * int(window["rhs_dilate"])
    return int(((at >= 0) & (at <= (length - 1) * dilate) & (at % dilate == 0)).sum())


def _filled(rows: int, inner: int, columns: int, tile: int) -> float:
    """Share of the tiles (8 rows; `tile` x `tile` of the stationary matrix) that is no padding."""
    up = lambda n, to: n / (-(-n // to) * to)
    return up(rows, 8) * up(inner, tile) * up(columns, tile)
