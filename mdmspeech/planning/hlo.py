"""Reading an optimised HLO module: its instructions, and how often each computation runs.

XLA's own cost analysis counts the body of a loop once; a model whose layers are scanned is then
mostly missing. The trip count of a loop stands in `known_trip_count` where the backend writes it,
else in the loop's condition (i < N).
"""

import dataclasses
import functools
import re
from collections.abc import Iterator

# Bytes an element; sub-byte and token types are rounded to what they occupy.
_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s4": 1, "u4": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2,
    "f16": 2, "bf16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "token": 0, "opaque": 0,
}  # fmt: skip
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$")
_CALLED = re.compile(
    r"\b(calls|body|condition|to_apply|branch_computations|true_computation"
    r"|false_computation|called_computations)=(\{[^}]*\}|%[\w.\-]+)"
)

# Iterations of loops whose length depends on data: of the outermost, of those in it, and so on; the
# last holds for all further ones.
Trips = tuple[int, ...]
ONCE: Trips = (1,)


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape: bytes, and whether it lives in HBM (not in on-chip memory, which TPU
    layouts mark S(n)).
    """

    bytes: int
    dims: tuple[int, ...]
    in_hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation. `literal`: what stands in its parentheses, of use in constants and
    parameters.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    literal: str = ""

    @property
    def arrays(self) -> list[Array]:
        """Of the result, tuples flattened."""
        return arrays(self.shape)

    def called(self) -> dict[str, list[str]]:
        """Attribute ("calls", "body", ...) -> names of computations."""
        return {
            key: re.findall(r"%([\w.\-]+)", value)
            for key, value in _CALLED.findall(self.attributes)
        }


@dataclasses.dataclass(frozen=True)
class Module:
    """Computations by name, in the order of their instructions."""

    computations: dict[str, list[Instruction]]
    entry: str

    @functools.cached_property
    def named(self) -> dict[str, dict[str, Instruction]]:
        """Computation -> its instructions by name."""
        return {name: {i.name: i for i in body} for name, body in self.computations.items()}

    def executed(self, unknown_trips: Trips = ONCE) -> Iterator[tuple[str, float]]:
        """(computation, how often it runs) of the entry and of everything that loops, calls and
        conditionals run, fusions left out.

        A branch of a conditional counts as if always taken. unknown_trips: of loops without a known
        trip count.
        """
        stack: list[tuple[str, float, Trips]] = [(self.entry, 1.0, unknown_trips)]
        while stack:
            name, times, trips = stack.pop()
            yield name, times
            for instruction in self.computations[name]:
                stack += [
                    (inner, times * runs, left)
                    for inner, runs, left in self.inside(instruction, name, trips)
                ]

    def inside(self, i: Instruction, where: str, trips: Trips) -> list[tuple[str, float, Trips]]:
        """What a loop, call or conditional in computation `where` runs: (computation, how often,
        trips of unknown loops in it).
        """
        called = i.called()
        if i.opcode == "while":
            known = trip_count(self, where, i)
            if known is not None:
                return [(called["body"][0], known, trips)]
            return [(called["body"][0], trips[0], trips[1:] or trips)]
        if i.opcode in ("call", "conditional"):
            return [(name, 1, trips) for names in called.values() for name in names]
        return []


def parse(text: str) -> Module:
    """The module of `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            header = _HEADER.match(line)
            if header:
                current = computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
        # attributes of kernels run over several lines: "}}, metadata=..." closes one of them
        elif line.rstrip() == "}":
            current = None
        else:
            instruction = _instruction(line)
            if instruction:
                current.append(instruction)
    if not entry:
        raise ValueError("no ENTRY computation: this is no optimised HLO module")
    return Module(computations, entry)


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape as printed, tuples flattened."""
    found = []
    for kind, dims, layout in _ARRAY.findall(shape):
        sizes = tuple(int(re.sub(r"\D", "", d)) for d in dims.split(",") if d)
        count = 1
        for size in sizes:
            count *= size
        found.append(
            Array(count * _BYTES.get(kind, 4), sizes, not re.search(r"S\([1-9]\)", layout))
        )
    return found


def trip_count(module: Module, where: str, loop: Instruction) -> int | None:
    """Iterations of a `while` in computation `where`; None if it is not a count."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    called = loop.called()
    condition = {i.name: i for i in module.computations[called["condition"][0]]}
    root = next(i for i in condition.values() if i.is_root)
    if root.opcode == "fusion":  # the comparison, wrapped
        inner = module.computations[root.called()["calls"][0]]
        compare = next(i for i in inner if i.is_root)
        parameters = {i.name: int(i.literal) for i in inner if i.opcode == "parameter"}
        sides = [
            condition.get(root.operands[parameters[o]])
            if o in parameters
            else next(i for i in inner if i.name == o)
            for o in compare.operands
        ]
    else:
        compare, sides = root, [condition.get(o) for o in root.operands]
    direction = re.search(r"direction=(\w+)", compare.attributes)
    if (
        compare.opcode != "compare"
        or not direction
        or direction[1] not in ("LT", "GT", "LE", "GE")
        or len(sides) != 2
        or None in sides
    ):
        return None
    counter, limit = sides if sides[1].opcode == "constant" else sides[::-1]  # type: ignore[union-attr]
    if (
        limit is None
        or counter is None
        or limit.opcode != "constant"
        or counter.opcode != "get-tuple-element"
    ):
        return None
    index = int(re.search(r"index=(\d+)", counter.attributes)[1])  # type: ignore[index]
    first = _initial(module.computations[where], loop, index)
    last = int(limit.literal) + (direction[1] in ("LE", "GE"))
    step = _step(module.computations[called["body"][0]], index)
    return max(-(-abs(last - first) // step), 0)


def _initial(instructions: list[Instruction], loop: Instruction, index: int) -> int:
    """Start value of element `index` of a loop's state; 0 if it is no plain constant."""
    named = {i.name: i for i in instructions}
    state = named.get(loop.operands[0])
    value = (
        named.get(state.operands[index]) if state is not None and state.opcode == "tuple" else None
    )
    while value is not None and value.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        value = named.get(value.operands[0])
    return (
        int(value.literal)
        if value is not None and value.opcode == "constant" and value.literal.lstrip("-").isdigit()
        else 0
    )


def _step(body: list[Instruction], index: int) -> int:
    """What the body adds to element `index` of its state; 1 if it is no plain sum."""
    named = {i.name: i for i in body}
    root = next(i for i in body if i.is_root)
    value = named.get(root.operands[index]) if root.opcode == "tuple" else None
    while value is not None and value.opcode in ("copy", "bitcast"):
        value = named.get(value.operands[0])
    if value is not None and value.opcode == "add":
        steps = [
            int(named[o].literal)
            for o in value.operands
            if o in named and named[o].opcode == "constant" and named[o].literal.isdigit()
        ]
        if len(steps) == 1 and steps[0] > 0:
            return steps[0]
    return 1


def _instruction(line: str) -> Instruction | None:
    match = re.match(r"\s*(ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return None
    rest = re.sub(r"/\*.*?\*/", "", line[match.end() :])
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest, 0) - 1
    inside, attributes = rest[:end], rest[end + 1 :]
    return Instruction(
        match[2],
        opcode,
        shape,
        tuple(re.findall(r"%([\w.\-]+)", inside)),
        attributes,
        bool(match[1]),
        inside,
    )


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses: {text[:80]}")
