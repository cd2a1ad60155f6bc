"""The pickle inside a PyTorch checkpoint, followed without Python's unpickler.

A pickle is a program for a small stack machine that may import and call any function there is,
which is why such files are dangerous. Here that program is not given to Python: `pickletools` only
splits it into instructions, and `_Machine` follows those that a state dict needs, on plain values.
A global is never imported; it is a name, looked up in the tables below, and whatever is not there
ends the reading. So nothing is executed that is not in this file.

Instructions: CPython's pickletools.py. What torch.save writes: torch/serialization.py,
  torch/_utils.py.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, Protocol

import ml_dtypes
import numpy as np

_CURE = "nothing of it was run. Get the weights as safetensors or from their official place"
_LARGEST_INT_KEY = 2**31  # of a mapping

_STORAGES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.ComplexFloatStorage": np.complex64,
    "torch.ComplexDoubleStorage": np.complex128,
    "torch.UntypedStorage": None,
    "torch.storage.UntypedStorage": None,
}
_PLAIN = (
    "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool "
    "complex64 complex128"
)
_DTYPES = {f"torch.{name}": np.dtype(name) for name in _PLAIN.split()}
_DTYPES |= {
    f"torch.{name}": np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
}


class RefusedError(Exception):
    """Why a checkpoint is not read: the rest of a sentence that begins with the file's name."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """One run of numbers in the file."""

    key: str
    dtype: np.dtype | None  # None: untyped, counted in bytes
    count: int


class MakeTensor(Protocol):
    """Makes the array of a tensor, or raises RefusedError. Nothing is known about the last three
    but that they come from the file.
    """

    def __call__(
        self, storage: Storage, dtype: np.dtype, offset: Any, size: Any, stride: Any
    ) -> np.ndarray: ...


def follow(program: bytes, make_tensor: MakeTensor) -> Any:
    """The object that a pickle describes: dicts with texts and small integers as keys, lists,
    tuples, numbers, texts, bytes, arrays.

    Raises:
      RefusedError: an instruction, a global or a call that weights do not need.
      ValueError, TypeError, LookupError: a program that is corrupt.
    """
    machine = _Machine(make_tensor)
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "STOP":
            (result,) = machine.stack
            return result
        if opcode.name in _PUSHED:
            machine.stack.append(argument)
        elif opcode.name in _STEPS:
            _STEPS[opcode.name](machine, argument)
        elif opcode.name not in _IGNORED:
            what = f" ({argument!r:.80})" if isinstance(argument, str) else ""
            raise RefusedError(
                f"has the pickle instruction {opcode.name}{what}, which no weights need; {_CURE}"
            )
    raise ValueError("the pickle does not end")


@dataclasses.dataclass(frozen=True)
class _Global:
    """An imported name: never imported, only remembered."""

    name: str


class _Machine:
    """The pickle machine's stack, marks and memo, and the few things that it may do."""

    def __init__(self, make_tensor: MakeTensor):
        self.make_tensor = make_tensor
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        """Pops what is above the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def tuple_from_mark(self) -> None:
        items = tuple(self.to_mark())
        self.stack.append(items)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("the pickle takes more than it has")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def name(self, module: Any, name: Any) -> None:
        """A global."""
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if full not in _CALLS and full not in _STORAGES and full not in _DTYPES:
            raise RefusedError(f"asks for {full[:80]!r}, which no weights need; {_CURE}")
        self.stack.append(_Global(full))

    def persistent(self) -> None:
        """A storage: ("storage", its class, key, device, number of elements)."""
        ((kind, storage_class, key, _, count),) = self.pop(1)
        if (
            kind != "storage"
            or not isinstance(storage_class, _Global)
            or not isinstance(key, str)
            or type(count) is not int
            or count < 0
        ):
            raise ValueError("a persistent id that is no storage")
        number = _STORAGES[storage_class.name]
        self.stack.append(Storage(key, None if number is None else np.dtype(number), count))

    def call(self) -> None:
        function, arguments = self.pop(2)
        if (
            not isinstance(function, _Global)
            or function.name not in _CALLS
            or not isinstance(arguments, tuple)
        ):
            raise RefusedError(f"calls what no weights call; {_CURE}")
        self.stack.append(_CALLS[function.name](self.make_tensor, *arguments))

    def put(self, items: list[Any]) -> None:
        """Keys and values in turn, into the mapping below them."""
        mapping, keys = self.stack[-1], items[::2]
        usable = all(
            isinstance(key, str) or (isinstance(key, int) and abs(key) < _LARGEST_INT_KEY)
            for key in keys
        )
        if not isinstance(mapping, dict) or not usable:
            raise ValueError("a mapping with unusable keys")
        mapping.update(zip(keys, items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("something is appended to what is no list")
        self.stack[-1].extend(items)

    def build(self) -> None:
        """Attributes, which only an OrderedDict may have (`_metadata`); they are left out."""
        target, state = self.pop(2)
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise RefusedError(f"sets attributes, which no weights need; {_CURE}")
        self.stack.append(target)

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


_IGNORED = {"PROTO", "FRAME"}
_PUSHED = {"NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_PUSHED |= {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES"}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "MARK": lambda m, _: m.mark(),
    "TUPLE": lambda m, _: m.tuple_from_mark(),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "SETITEM": lambda m, _: m.put(m.pop(2)),
    "SETITEMS": lambda m, _: m.put(m.to_mark()),
    "APPEND": lambda m, _: m.append(m.pop(1)),
    "APPENDS": lambda m, _: m.append(m.to_mark()),
    "GLOBAL": lambda m, text: m.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.pop(2)),
    "BINPERSID": lambda m, _: m.persistent(),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPUT": lambda m, index: m.memoize(index),
    "LONG_BINPUT": lambda m, index: m.memoize(index),
    "MEMOIZE": lambda m, _: m.memoize(len(m.memo)),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
}


def _ordered_dict(make_tensor: MakeTensor) -> dict:
    return {}


def _size(make_tensor: MakeTensor, numbers: Any) -> tuple:
    if not isinstance(numbers, tuple | list):
        raise ValueError("a size that is no list")
    return tuple(numbers)


def _tensor(
    make_tensor: MakeTensor, storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> np.ndarray:
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise ValueError("a tensor without a storage")
    return make_tensor(storage, storage.dtype, offset, size, stride)


def _tensor_v3(
    make_tensor: MakeTensor,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _: Any,
    hooks: Any,
    dtype: Any,
    *rest: Any,
) -> np.ndarray:
    """Of an untyped storage."""
    if not isinstance(storage, Storage) or not isinstance(dtype, _Global):
        raise ValueError("a tensor without a storage or a type")
    return make_tensor(storage, _DTYPES[dtype.name], offset, size, stride)


def _parameter(make_tensor: MakeTensor, tensor: Any, *_: Any) -> Any:
    return tensor


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
}
