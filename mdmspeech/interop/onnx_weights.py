"""The weights inside an ONNX file, and the nodes they feed, read as data: nothing of the graph is
ever run.

Written here rather than taken from the `onnx` package, which is no dependency of speaking and
listening. An exporter names its constants anonymously ("onnx::MatMul_2228"), so what a weight is
can only be told from the node that uses it. Format: onnx.proto (ModelProto, GraphProto, NodeProto,
TensorProto) in protobuf's wire encoding. The reader trusts no length: every field must end inside
its message, a tensor must hold exactly the bytes its shape asks for, and weights in other files are
refused.
"""

import dataclasses
import math
import mmap
import os
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from mdmspeech.errors import UserError

# TensorProto.DataType -> numpy; others are no weights
_DTYPES = {1: "<f4", 10: "<f2", 11: "<f8", 16: ml_dtypes.bfloat16}
# nodes, or weights, of a file: far beyond any model, near enough that a hostile file ends soon
_MOST = 200_000
_MOST_AXES = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of the graph: its name, its kind ("MatMul"), and the names of what goes in and
    comes out.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxWeights:
    """An opened ONNX file: `nodes` in the order of the graph, `names` of its weights, and
    `tensor(name)`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Raises UserError: not there, cut short, or no ONNX file."""
        self.path = os.fspath(path)
        self.nodes: list[Node] = []
        self._weights: dict[str, memoryview] = {}
        try:
            with open(self.path, "rb") as file:
                self._read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        except FileNotFoundError as error:
            raise UserError(f"{self.path} does not exist; check the path") from error
        except (OSError, ValueError) as error:  # a bad UTF-8 name is a ValueError too
            raise UserError(
                f"{self.path} is corrupt, cut short or no ONNX file ({error}); fetch it again"
            ) from error

    @property
    def names(self) -> list[str]:
        return list(self._weights)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def tensor(self, name: str) -> np.ndarray:
        """A copy of one weight, in its own type.

        Raises:
          UserError: its values are in another file, of an unknown type, or not as many as its shape
            asks for.
        """
        try:
            return _tensor(self._weights[name])
        except ValueError as error:
            raise UserError(
                f"{self.path}: weight {name[:80]!r} cannot be read ({error}); fetch "
                "the official file again"
            ) from error

    def _read(self, model: memoryview) -> None:
        graphs = [
            value
            for number, value in _fields(model)
            if number == 7 and isinstance(value, memoryview)
        ]
        if len(graphs) != 1:
            raise ValueError(f"it holds {len(graphs)} graphs")
        for number, value in _fields(graphs[0]):
            if number == 1:
                self.nodes.append(_node(_message(value)))
            elif number == 5:
                name = _text([v for n, v in _fields(_message(value)) if n == 8])
                if name in self._weights:
                    raise ValueError(f"two weights are called {name[:80]!r}")
                self._weights[name] = _message(value)
            if len(self.nodes) > _MOST or len(self._weights) > _MOST:
                raise ValueError(f"more than {_MOST} nodes or weights")


def _node(message: memoryview) -> Node:
    found: dict[int, list] = {1: [], 2: [], 3: [], 4: []}
    for number, value in _fields(message):
        if number in found:
            found[number].append(value)
    inputs, outputs = (tuple(_text([value]) for value in found[number]) for number in (1, 2))
    return Node(_text(found[3]), _text(found[4]), inputs, outputs)


def _tensor(message: memoryview) -> np.ndarray:
    shape: list[int] = []
    kind: int | memoryview = 0
    raw: list[memoryview] = []
    for number, value in _fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_varints(value))
            if len(shape) > _MOST_AXES:
                raise ValueError(f"more than {_MOST_AXES} axes")
        elif number == 2:
            kind = value
        # float_data, raw_data, double_data: all are little-endian values in a row
        elif number in (4, 9, 10):
            raw.append(_message(value))
        elif number == 13 or (number == 14 and value != 0):
            raise ValueError(
                "its values are in another file, and only files that hold all their "
                "weights are read"
            )
    if not isinstance(kind, int) or kind not in _DTYPES:
        raise ValueError(f"data type {kind!r}; known are float, double, float16 and bfloat16")
    # exact: Python's integers do not overflow
    dtype, count = np.dtype(_DTYPES[kind]), math.prod(shape)
    held = sum(map(len, raw))
    if not count or held != count * dtype.itemsize:
        raise ValueError(f"shape {shape} needs {count * dtype.itemsize} bytes, it has {held}")
    return np.frombuffer(b"".join(raw), dtype).reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message: an int of varints, the bytes of anything else. ValueError
    if it does not end where it should.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field without a number")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - at:
            raise ValueError("a field runs past the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """(unsigned value, where the next byte is); at most 10 bytes, 64 bits."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
    raise ValueError("a number without an end")


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _text(values: list) -> str:
    """The last of a field's values, as protobuf has it; "" if there is none."""
    return str(_message(values[-1]), "utf-8") if values else ""
