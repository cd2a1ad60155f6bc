"""`jax.jit` for programs that are met again at the next start: kept on disk as they are after
tracing, so that a warm start neither traces nor compiles.

JAX's own cache keeps what XLA made of a program. To look something up there, JAX traces the Python
code and lowers it, which for our decoders takes seconds. So what comes of that is kept, too: StableHLO
in the stable format of `jax.export`, by what it depends on (`_key`). It is read as data, never run as
Python. A file that is damaged, of other code, or of another JAX is made anew.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from jax import export

_PACKAGE = Path(__file__).parent
# What a program may be made of: every room that has functions of arrays.
_ROOMS = ("audio", "codec", "decoding", "diffusion", "inference", "models", "nn")
_ENDS = ".traced"
_LEAF = "leaf"
# Settings of JAX that are traced into a program.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_softmax_custom_jvp",
)
_state: dict[str, Any] = {"folder": None, "told": None}

Told = Callable[[str, float | None], object]


def keep(folder: Path | None) -> None:
    """Programs of this process are looked for, and kept, in that folder from now on; None: no more."""
    _state["folder"] = folder


@contextlib.contextmanager
def telling(told: Told) -> Iterator[None]:
    """Calls `told` with the name of a part before one of its programs is made that was not kept, with
    None, and after it has been compiled, with the seconds that took.
    """
    before, _state["told"] = _state["told"], told
    try:
        yield
    finally:
        _state["told"] = before


class KeptProgram:
    """`jax.jit` of a function whose programs are kept.

    Args:
      part, name: what it belongs to, for people, and what it does; both are in the file's name.
      function: of pytrees of arrays -> a pytree of arrays made of dicts, tuples, lists, NamedTuples
        and dataclasses.
      about: all that the function holds besides its arguments and its code, as something whose repr
        says it completely: sizes, options. Two functions of one part and name that differ must
        differ in it. None: its programs are not kept.
      donate: names of arguments whose memory is reused. static: names of those that are not arrays
        but hashable values, always given by keyword.
    """

    def __init__(
        self,
        part: str,
        name: str,
        function: Callable,
        about: Any,
        donate: Sequence[str] = (),
        static: Sequence[str] = (),
    ):
        self.part, self.name = part, name
        self._function, self._about, self._static = function, about, tuple(static)
        self._names = [n for n in inspect.signature(function).parameters if n not in static]
        self._donate = [self._names.index(n) for n in donate]
        self._jits: dict[Any, Callable] = {}
        self._making = threading.local()

    def __call__(self, *args: Any, **named: Any) -> Any:
        static = tuple((name, named.pop(name)) for name in self._static if name in named)
        if named:
            args += tuple(named[name] for name in self._names[len(args) :] if name in named)
        keeping = self._about is not None and _state["folder"] is not None and _alone()
        if (compiled := self._jits.get((static, keeping))) is None:
            compiled = self._jits[static, keeping] = self._compiled(static, keeping)
        out = compiled(*args)
        if (began := getattr(self._making, "began", None)) is not None:
            self._making.began = None
            _tell(self.part, time.perf_counter() - began)
        return out

    def _compiled(self, static: tuple, keeping: bool) -> Callable:
        def traced(*args: Any) -> Any:
            if keeping:
                return self._traced(args, dict(static))
            self._begin()
            return self._function(*args, **dict(static))

        traced.__name__ = traced.__qualname__ = self.name
        # What a kept program returns is bound to a device, what comes from NumPy is not. That would
        # be two programs, were it not said that it is the same.
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        where: dict[str, Any] = {"in_shardings": here} if keeping else {}
        return jax.jit(traced, donate_argnums=self._donate, **where)

    def _traced(self, args: tuple, static: dict[str, Any]) -> Any:
        """What a trace of the function gives: of the kept program, if there is one."""
        leaves, tree = jax.tree.flatten(args)

        def flat(*leaves: Any) -> Any:
            return self._function(*jax.tree.unflatten(tree, leaves), **static)

        folder = _state["folder"]
        if folder is None or not all(isinstance(x, jax.core.Tracer) for x in leaves):
            return flat(*leaves)
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in leaves]
        part = self.part.replace(" ", "_")
        file = folder / f"{part}-{self.name}-{self._key(tree, shapes, static)}{_ENDS}"
        kept = _read(file)
        if kept is None:
            self._begin()
            kept = _made(flat, shapes, file)
        if kept is None:
            return flat(*leaves)
        program, structure = kept
        return _rebuilt(structure, iter(program.call(*leaves)))

    def _begin(self) -> None:
        self._making.began = time.perf_counter()
        _tell(self.part, None)

    def _key(self, tree: Any, shapes: list, static: Mapping[str, Any]) -> str:
        arguments = [(x.shape, str(x.dtype), x.weak_type) for x in shapes]
        said = (
            repr(self._about),
            sorted((key, repr(value)) for key, value in static.items()),
            str(tree),
            arguments,
            jax.default_backend(),
            [(name, getattr(jax.config, name, None)) for name in _SETTINGS],
            code_digest(),
        )
        return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


@functools.cache
def code_digest() -> str:
    """Of the code that programs are traced from: ours, and the versions of the libraries."""
    digest = hashlib.sha256(f"{jax.__version__} {flax.__version__} {np.__version__}".encode())
    files = [*_PACKAGE.glob("*.py")]
    for room in _ROOMS:
        files += (_PACKAGE / room).rglob("*.py")
    for file in sorted(files):
        digest.update(f"\0{file.relative_to(_PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _tell(part: str, seconds: float | None) -> None:
    if _state["told"] is not None:
        _state["told"](part, seconds)


def _alone() -> bool:
    """Whether this process has one device: for that programs are kept."""
    settings: Any = jax.config  # mypy does not know its fields
    return jax.device_count() == 1 and not settings.jax_debug_nans


def _made(flat: Callable, shapes: list, file: Path) -> tuple[Any, Any] | None:
    """The program of a function, kept from now on if it can be; None if it cannot be exported."""
    found: list[Any] = []

    def listed(*leaves: Any) -> list:
        out = flat(*leaves)
        found[:] = [_structure(out), jax.tree.leaves(out)]
        return found[1]

    try:
        program = export.export(jax.jit(listed))(*shapes)
        data = bytes(program.serialize())
    except Exception:
        # what no export takes (a kernel of its own, say) is traced at every start
        return None
    head = json.dumps({"structure": found[0], "sha256": hashlib.sha256(data).hexdigest()}).encode()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=file.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(len(head).to_bytes(8, "little") + head + data)
            os.replace(part, file)
        except BaseException:
            os.unlink(part)
            raise
    return program, found[0]


def _read(file: Path) -> tuple[Any, Any] | None:
    try:
        whole = file.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        head, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
        if head["sha256"] != hashlib.sha256(data).hexdigest():
            return None
        return export.deserialize(bytearray(data)), head["structure"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _structure(tree: Any) -> Any:
    """A pytree without its leaves, as JSON. TypeError: a type that cannot be told so."""
    if tree is None or isinstance(tree, (jax.Array, np.ndarray, np.generic, int, float)):
        return None if tree is None else _LEAF
    if type(tree) is dict:
        # leaves are in the order of sorted keys
        return {"dict": {key: _structure(tree[key]) for key in sorted(tree)}}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [_structure(x) for x in tree]}
    told = {"class": f"{type(tree).__module__}:{type(tree).__qualname__}"}
    if not _is_ours(type(tree).__module__):
        raise TypeError(f"a program that is kept may not return {type(tree).__name__}")
    if hasattr(tree, "_fields"):
        return told | {"fields": {name: _structure(getattr(tree, name)) for name in tree._fields}}
    fields = {}
    for field in dataclasses.fields(tree):
        value = getattr(tree, field.name)
        static = field.metadata.get("static") or not field.metadata.get("pytree_node", True)
        if static and type(value) not in (int, float, str, bool):
            raise TypeError(f"{field.name} of {type(tree).__name__} cannot be kept")
        fields[field.name] = {"static": value} if static else _structure(value)
    return told | {"fields": fields}


def _rebuilt(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is None:
        return None
    if structure == _LEAF:
        return next(leaves)
    if "static" in structure:
        return structure["static"]
    if "dict" in structure:
        return {key: _rebuilt(value, leaves) for key, value in structure["dict"].items()}
    for kind in (tuple, list):
        if kind.__name__ in structure:
            return kind(_rebuilt(value, leaves) for value in structure[kind.__name__])
    module, _, name = structure["class"].partition(":")
    if not _is_ours(module):
        raise ValueError(f"{module} is none of ours")
    fields = {key: _rebuilt(value, leaves) for key, value in structure["fields"].items()}
    return getattr(importlib.import_module(module), name)(**fields)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE.name
