"""What the devices of a compiled program send each other: how often, how much, along which mesh
axis, and how long the links need for it.

Inside a slice that goes over its links (ICI). Between slices the compiler writes a transfer by the
hosts and their network (DCN), each chip its own part.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from mdmspeech.planning.hlo import ONCE, Instruction, Module, Trips
from mdmspeech.planning.topology import Topology

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
ICI, DCN = "ici", "dcn"
HOP_S = 1e-6  # of an ICI link: "about 1 us a hop" (jax-ml.github.io/scaling-book/tpus)
# of one reduction between slices: two ways through hosts and switches; assumed, not published
DCN_S = 200e-6


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of the program, as often as it runs in one call.

    Attributes:
      axes: the mesh axes it spans, "data+fsdp"; "" if it could not be told.
      group: devices that take part in one instance.
      bytes: of the whole array each device has in the end (all-gather), or in the beginning (the
        others).
      count: runs in one call of the program.
      seconds: all of them, one after another, by the formulas of `Links`.
      network: "ici" or "dcn".
    """

    kind: str
    axes: str
    group: int
    bytes: int
    count: float
    seconds: float = 0.0
    network: str = ICI


class Links:
    """How long a collective takes on a slice.

    A group of n devices that spans some axes of the torus uses their links in both directions: W =
    link x sum over axes (2 on a ring, 1 on a line). Of an array of V bytes an all-gather or
    reduce-scatter moves V (n-1)/n at W, an all-reduce twice that; an all-to-all is limited by the
    links in the middle of its longest axis; permutes by the link that most bytes cross, routed axis
    by axis. To that come the hops of the longest way, HOP_S each.

    Between slices: a chip has its share of its host's network card. Of V bytes a reduction over S
    slices sends and receives 2 V (S-1)/S, anything else V (S-1)/S.
    """

    def __init__(self, topology: Topology, coordinates: np.ndarray):
        """coordinates: int [devices, dims], of partition p of the program."""
        self._topology, self._at = topology, coordinates
        self.slices = topology.slices

    def seconds(self, kind: str, group: Sequence[int], size: int) -> float:
        """One run of anything but permutes. group: partitions of one instance; size: bytes, see
        `Collective.bytes`.
        """
        link, n = self._topology.tpu.link, len(group)
        spans = [len(set(self._at[list(group), axis])) for axis in range(self._at.shape[1])]
        ways = [
            2 if ring and span == length else 1
            for ring, span, length in zip(
                self._topology.rings, spans, self._topology.shape, strict=True
            )
        ]
        used = [way for way, span in zip(ways, spans, strict=True) if span > 1]
        if n < 2 or not used:
            return 0.0
        if kind == "all-to-all":
            return max(
                size * span / (4 * way * link)
                for span, way in zip(spans, ways, strict=True)
                if span > 1
            )
        passes = 2 if kind == "all-reduce" else 1
        hops = sum((span - 1) / way for way, span in zip(ways, spans, strict=True))
        return passes * (size * (n - 1) / n / (link * sum(used)) + hops * HOP_S)

    def between_slices(self, kind: str, size: int) -> float:
        """One run over the network between slices. size: bytes that one chip gives."""
        slices, tpu = self._topology.slices, self._topology.tpu
        passes = 2 if kind == "all-reduce" else 1
        return passes * size * (slices - 1) / slices / (tpu.dcn / tpu.host) + DCN_S

    def permute_seconds(self, permutes: Sequence[tuple[Sequence[tuple[int, int]], int]]) -> float:
        """One run each of (source-target pairs, bytes), all at the same time: XLA sends halves both
        ways round a ring.
        """
        load: dict[tuple[tuple[int, ...], int, int], int] = {}
        for pairs, size in permutes:
            for source, target in pairs:
                for hop in self._route(source, target):
                    load[hop] = load.get(hop, 0) + size
        most = max(
            (sum(1 for _ in self._route(*pair)) for pairs, _ in permutes for pair in pairs),
            default=0,
        )
        return max(load.values(), default=0) / self._topology.tpu.link + most * HOP_S

    def _route(self, source: int, target: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """(chip, axis, direction) of every link on the way."""
        at = [int(n) for n in self._at[source]]
        for axis, (length, ring) in enumerate(
            zip(self._topology.shape, self._topology.rings, strict=True)
        ):
            way = int(self._at[target][axis]) - at[axis]
            if ring and abs(way) > length / 2:
                way -= length if way > 0 else -length
            sign = 1 if way > 0 else -1
            for _ in range(abs(way)):
                yield tuple(at), axis, sign
                at[axis] = (at[axis] + sign) % length


def find(
    module: Module, sizes: dict[str, int], links: Links | None = None, unknown_trips: Trips = ONCE
) -> list[Collective]:
    """Every collective of the program.

    Args:
      sizes: devices per mesh axis, in the order in which partitions are numbered.
      unknown_trips: see `Module.executed`.
    """
    total: dict[tuple[str, str, int, int, str], list[float]] = {}

    def add(kind, axes, group, size, times, seconds, network=ICI) -> None:
        entry = total.setdefault((kind, axes, group, size, network), [0.0, 0.0])
        entry[0] += times
        entry[1] += times * seconds

    for name, times in module.executed(unknown_trips):
        permutes: list[tuple[list[tuple[int, int]], int]] = []
        for instruction, kind, size in _in(module, name):
            group, pairs = _group(instruction)
            if pairs:
                permutes.append((pairs, size))
            elif kind != "collective-permute":  # one without pairs sends nothing
                add(
                    kind,
                    _axes([group], sizes),
                    len(group),
                    size,
                    times,
                    links.seconds(kind, group, size) if links else 0.0,
                )
        together = links.permute_seconds(permutes) if links else 0.0
        whole = sum(size for _, size in permutes)
        for pairs, size in permutes:
            add(
                "collective-permute",
                _axes(pairs, sizes, along=True),
                _cycle(pairs),
                size,
                times,
                together * size / max(whole, 1),
            )
        for kind, size in filter(None, map(_transfer, module.computations[name])):
            seconds = links.between_slices(kind, size) if links else 0.0
            add(kind, "data", links.slices if links else 0, size, times, seconds, DCN)
    found = [
        Collective(kind, axes, group, size, count, seconds, network)
        for (kind, axes, group, size, network), (count, seconds) in total.items()
    ]
    return sorted(found, key=lambda c: (-c.seconds, -c.bytes * c.count))


def cost(
    module: Module, instruction: Instruction, where: str, links: Links
) -> tuple[str, float] | None:
    """(network, seconds) of a collective, or of a fusion that is nothing else; None if an
    instruction of computation `where` is neither.
    """
    sent = _transfer(instruction)
    if sent:
        return DCN, links.between_slices(*sent)
    kind = instruction.opcode.removesuffix("-start")
    if kind in KINDS:
        kind, size = _kind_and_bytes(instruction, kind, module.computations[where])
        group, pairs = _group(instruction)
        if pairs:
            return ICI, links.permute_seconds([(pairs, size)])
        return (ICI, links.seconds(kind, group, size)) if group else None
    if instruction.opcode in ("fusion", "async-start"):
        for inside in instruction.called().get("calls", []):
            costs = (cost(module, i, inside, links) for i in module.computations[inside])
            found = next(filter(None, costs), None)
            if found:
                return found
    return None


def _transfer(instruction: Instruction) -> tuple[str, int] | None:
    """(kind, bytes that a chip gives) of what goes to other slices."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
    if instruction.opcode != "send" or not kind:
        return None
    return kind[1].lower().replace("_", "-"), instruction.arrays[0].bytes


def _in(module: Module, name: str) -> list[tuple[Instruction, str, int]]:
    """(instruction, kind, bytes) in a computation and its fusions. XLA spreads one asynchronous
    collective over several fusions: counted once.
    """
    found: list[tuple[Instruction, str, int]] = []
    seen: set[str] = set()

    def visit(inside: str) -> None:
        body = module.computations[inside]
        for instruction in body:
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                channel = re.search(r"channel_id=(\d+)", instruction.attributes)
                key = f"{kind} {channel[1]}" if channel else f"{inside} {instruction.name}"
                if key not in seen:
                    seen.add(key)
                    found.append((instruction, *_kind_and_bytes(instruction, kind, body)))
            elif instruction.opcode in ("fusion", "async-start"):
                for called in instruction.called().get("calls", []):
                    visit(called)

    visit(name)
    return found


def _kind_and_bytes(
    instruction: Instruction, kind: str, body: list[Instruction]
) -> tuple[str, int]:
    named = {i.name: i for i in body}
    operands = [named[o] for o in instruction.operands if o in named]
    given = sum(a.bytes for o in operands for a in o.arrays)
    if kind == "all-gather":
        if instruction.opcode.endswith("-start"):  # ((operands), (results), ...)
            return kind, sum(a.bytes for a in instruction.arrays) - given
        return kind, sum(a.bytes for a in instruction.arrays)
    if kind == "all-reduce":
        users = [i for i in body if instruction.name in i.operands]
        # how TPUs write a reduce-scatter
        if len(users) == 1 and users[0].opcode == "dynamic-slice" and users[0].is_root:
            while (
                len(operands) == 1
                and operands[0].opcode in ("pad", "bitcast", "copy")
                and operands[0].operands[0] in named
            ):
                operands = [named[operands[0].operands[0]]]
            return "reduce-scatter", sum(a.bytes for o in operands for a in o.arrays)
    return kind, given


def _group(instruction: Instruction) -> tuple[list[int], list[tuple[int, int]]]:
    """(partitions of the first group, source-target pairs of a permute)."""
    text = instruction.attributes
    pairs = re.search(r"source_target_pairs=\{(.*?\})\}", text)
    if pairs:
        return [], [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1])]
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if listed:
        return [int(n) for n in listed[1].split(",") if n], []
    # [groups,size]<=[dims]T(order): rows of the device numbers, reshaped and transposed.
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if iota:
        return _iota(iota[3], iota[4]).reshape(int(iota[1]), int(iota[2]))[0].tolist(), []
    # mesh['a'=2,'b'=8], device_ids=([2,8]T(1,0)) {'b'}:
    # a mesh of its own, and the axes a group spans
    meshed = re.search(
        (
            r"replica_groups=mesh\[([^\]]*)\](?:, "
            r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
        ),
        text,
    )
    if meshed:
        axes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", meshed[1])}
        shape = list(axes.values())
        devices = _iota(meshed[2], meshed[3]) if meshed[2] else np.arange(math.prod(shape))
        spanned = re.findall(r"'([^']+)'", meshed[4])
        first = tuple(slice(None) if name in spanned else 0 for name in axes)
        return devices.reshape(shape)[first].reshape(-1).tolist(), []
    return [], []


def _iota(dims: str, order: str | None) -> np.ndarray:
    shape = [int(n) for n in dims.split(",")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return (numbers.transpose([int(n) for n in order.split(",")]) if order else numbers).reshape(-1)


def _axes(groups: Sequence[Sequence[int]], sizes: dict[str, int], along: bool = False) -> str:
    """Mesh axes along which the partitions of a group differ. Pairs (`along`): those along which
    most pairs step, since a ring's end steps elsewhere.
    """
    varying: dict[str, int] = dict.fromkeys(sizes, 0)
    for group in groups:
        at = (
            np.array(np.unravel_index(list(group), tuple(sizes.values())))
            if group
            else np.zeros((len(sizes), 1))
        )
        for axis, row in zip(sizes, at, strict=True):
            varying[axis] += len(set(row.tolist())) > 1
    if along:
        return max(varying, key=lambda axis: varying[axis])
    return "+".join(axis for axis, count in varying.items() if count)


def _cycle(pairs: Sequence[tuple[int, int]]) -> int:
    """Devices in the ring that the pairs of a permute form."""
    step, start = dict(pairs), pairs[0][0]
    at, count = step[start], 1
    while at != start and at in step and count < len(pairs):
        at, count = step[at], count + 1
    return count if at == start else count + 1
