"""Bytes that a compiled program moves between HBM and the cores, loops included.

Every instruction outside fusions reads its operands and writes its results once; what a fusion only
slices, or writes into a larger array in place, counts with the size of the slice. Arrays the
compiler keeps on the chip (TPU memory space 1) cost nothing.
"""

import re

from mdmspeech.planning.hlo import ONCE, Array, Instruction, Module, Trips

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id",
    "optimization-barrier", "domain", "add-dependency",
}  # fmt: skip
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound")
_SLICES = ("dynamic-slice", "slice", "gather")


def hbm_bytes(module: Module, unknown_trips: Trips = ONCE) -> float:
    """Of one call of the program, on one device."""
    return sum(times * _computation(module, name) for name, times in module.executed(unknown_trips))


def instruction_bytes(module: Module, where: str, i: Instruction) -> int:
    """Of one instruction of computation `where`."""
    return _instruction(module, i, module.named[where])


def _computation(module: Module, name: str) -> int:
    return sum(_instruction(module, i, module.named[name]) for i in module.computations[name])


def _instruction(module: Module, i: Instruction, named: dict[str, Instruction]) -> int:
    if i.opcode in _FREE or i.opcode.endswith("-done"):
        return 0
    if i.opcode == "custom-call" and any(
        f'custom_call_target="{name}"' in i.attributes for name in _FREE_CALLS
    ):
        return 0
    operands = [named[o].arrays if o in named else [] for o in i.operands]
    if i.opcode in ("fusion", "async-start") and i.called().get("calls"):
        return _fusion(module, i, operands)
    if i.opcode in _SLICES:
        return 2 * _hbm(i.arrays)
    if i.opcode == "slice-start":  # ((operand), result, ...)
        return sum((1 + a.in_hbm) * a.bytes for a in i.arrays[1:2])
    if i.opcode == "copy-start":  # (result, operand, ...)
        return _hbm(i.arrays[:2])
    if i.opcode == "dynamic-update-slice":
        return 2 * _hbm(operands[1])
    if i.opcode.endswith("-start"):  # a collective: its result stands beside its operand
        return _hbm(i.arrays)
    return _hbm(i.arrays) + sum(map(_hbm, operands))


def _fusion(module: Module, i: Instruction, operands: list[list[Array]]) -> int:
    body = module.computations[i.called()["calls"][0]]
    named = module.named[i.called()["calls"][0]]
    root = next(x for x in body if x.is_root)
    results = [named.get(o) for o in root.operands] if root.opcode == "tuple" else [root]
    aliased = {
        (int(out) if out else 0): int(given)
        for out, given in re.findall(
            r"\{(\d*)\}: \((\d+), \{\}", i.attributes.partition("kind=")[2]
        )
    }
    total = 0
    for index, array in enumerate(i.arrays):
        made = (
            _through(results[index], named)
            if index < len(results) and results[index] is not None
            else None
        )
        if made is not None and made.opcode == "dynamic-update-slice":
            update = named.get(made.operands[1])
            total += (
                min(array.bytes, sum(a.bytes for a in update.arrays))
                if update and array.in_hbm
                else 0
            )
        elif index not in aliased:
            total += array.bytes if array.in_hbm else 0
    for x in body:
        if (
            x.opcode == "parameter"
            and int(x.literal) not in aliased.values()
            and int(x.literal) < len(operands)
        ):
            given = _hbm(operands[int(x.literal)])
            total += min(given, _read(module, body, x, given))
    return total


def _read(module: Module, body: list[Instruction], parameter: Instruction, whole: int) -> int:
    """Bytes of a fusion's parameter of `whole` bytes that the fusion reads, in fusions inside it too."""
    names = _names(module, parameter.name, body)
    if any(i.is_root and i.name in names for i in body):
        return whole
    total = 0
    for user in (i for i in body if i.name not in names and names & set(i.operands)):
        at = [index for index, name in enumerate(user.operands) if name in names]
        if user.opcode in _SLICES and at == [0]:
            total += sum(a.bytes for a in user.arrays)
        elif user.opcode == "fusion":
            inner = module.computations[user.called()["calls"][0]]
            total += sum(
                _read(module, inner, x, whole)
                for x in inner
                if x.opcode == "parameter" and int(x.literal) in at
            )
        elif not (user.opcode == "dynamic-update-slice" and at == [0]):
            return whole
    return total


def _names(module: Module, name: str, body: list[Instruction]) -> set[str]:
    """An array and what is the same array under another name: bitcasts, and fusions that hold
    nothing else.
    """
    names = {name}
    for i in body:
        if i.opcode == "bitcast" and i.operands[0] in names:
            names.add(i.name)
        elif i.opcode == "fusion" and len(i.operands) == 1 and i.operands[0] in names:
            inner = module.computations[i.called()["calls"][0]]
            given = next(x for x in inner if x.opcode == "parameter")
            if next(x for x in inner if x.is_root).name in _names(module, given.name, inner):
                names.add(i.name)
    return names


def _through(i: Instruction | None, named: dict[str, Instruction]) -> Instruction | None:
    while i is not None and i.opcode == "bitcast":
        i = named.get(i.operands[0])
    return i


def _hbm(found: list[Array]) -> int:
    return sum(a.bytes for a in found if a.in_hbm)
