"""Renaming a foreign checkpoint into our parameter tree, with every disagreement listed in one
error, and back.

A `TensorRule` says which foreign tensor becomes which parameter, and how its axes are permuted.
Every rule is invertible, so the same list exports. Tensors are read a piece at a time straight into
the parameter they belong to, or into each device's share of it: nothing larger than one parameter
(with stacked layers: one of all layers) is ever held besides the result.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mdmspeech.errors import UserError
from mdmspeech.interop.tensors import Stored, Unread, pieces

LINEAR = (1, 0)  # [out, in] -> [in, out]
CONV1D = (2, 1, 0)  # [out, in, kernel] -> [kernel, in, out]
_SHOWN = 6
_TILE = 256

Region = tuple[tuple[int, int], ...]  # (start, stop) along each axis
Progress = Callable[[int], object] | None


@dataclasses.dataclass(frozen=True)
class TensorRule:
    """parameter `path` ("layers/0/attn/q/kernel") = foreign tensor `name` with its axes permuted by
    `axes` (None: as it is).

    With `layer`, it is the part at that index of a parameter that stacks the layers
    ("layers/all/attn/q/kernel").
    """

    path: str
    name: str
    axes: tuple[int, ...] | None = None
    layer: int | None = None

    def theirs(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the foreign tensor, given the parameter's."""
        ours = shape if self.layer is None else shape[1:]
        return (
            tuple(ours)
            if self.axes is None
            else tuple(ours[self.axes.index(axis)] for axis in range(len(ours)))
        )


def import_params(
    tensors: Mapping[str, Stored],
    rules: Sequence[TensorRule],
    shapes: Any,
    source: str,
    dtype: Any = np.float32,
    shardings: Any = None,
    progress: Progress = None,
    only: Collection[str] | None = None,
    unread: bool = False,
) -> dict[str, Any]:
    """Foreign tensors -> parameter tree in `dtype`.

    Args:
      tensors: by name; those still on disk (`tensors.open_tensors`) are read once, a piece at a
        time, and not before all names and shapes are checked.
      shapes: the abstract parameter tree (from `jax.eval_shape`) that the result must match.
      source: what to call the checkpoint in errors.
      shardings: a tree of `jax.sharding.NamedSharding` like `shapes`: the result is jax arrays born
        with them, of which this process reads its own share. None: numpy arrays.
      progress: told of every number of bytes read.
      only: the parts of `shapes` that are wanted (names of its top level); tensors of others are not
        read. None: all.
      unread: numpy arrays are not made yet, see `tensors.Unread`: for who takes one at a time.

    Raises:
      UserError: missing, unknown and misshapen tensors, and those that are no floats, all of them
        counted and the first few named, in one line.
    """
    if only is not None:
        others = {rule.name for rule in rules if rule.path.partition("/")[0] not in only}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in others}
        rules = [rule for rule in rules if rule.name not in others]
        shapes = {part: value for part, value in shapes.items() if part in only}
    wanted = {path: tuple(leaf.shape) for path, leaf in flatten_dict(shapes, sep="/").items()}
    check_tensors(tensors, rules, wanted, source)
    places = {} if shardings is None else flatten_dict(shardings, sep="/")
    groups: dict[str, list[TensorRule]] = {path: [] for path in wanted}
    for rule in rules:
        groups[rule.path].append(rule)

    def parameter(path: str) -> Any:
        how = (np.dtype(dtype), places.get(path), progress)
        return _assemble(tensors, groups[path], wanted[path], *how)

    flat = {
        path: Unread(shape, dtype, partial(parameter, path)) if unread else parameter(path)
        for path, shape in wanted.items()
    }
    return unflatten_dict(flat, sep="/")


def check_tensors(
    tensors: Mapping[str, Stored],
    rules: Sequence[TensorRule],
    wanted: Mapping[str, tuple[int, ...]],
    source: str,
) -> None:
    """Compares names and shapes, reads nothing. `wanted`: path of a parameter -> its shape.
    UserError as `import_params`.
    """
    assert {rule.path for rule in rules} == wanted.keys(), "every parameter needs a rule"
    missing = [rule.name for rule in rules if rule.name not in tensors]
    unknown = sorted(set(tensors) - {rule.name for rule in rules})
    misshapen, unscaled = [], []
    for rule in rules:
        expected = rule.theirs(wanted[rule.path])
        if rule.name in tensors and tuple(tensors[rule.name].shape) != expected:
            misshapen.append(
                f"{rule.name} {list(tensors[rule.name].shape)} instead of {list(expected)}"
            )
        if rule.name in tensors and not _is_weight(tensors[rule.name].dtype):
            unscaled.append(f"{rule.name}: {np.dtype(tensors[rule.name].dtype).name}")
    problems = [
        _listed("missing", missing),
        _listed("unknown", unknown),
        _listed("misshapen", misshapen),
    ]
    problems.append(_listed("no floating-point weights", unscaled))
    if any(problems):
        raise UserError(
            f"{source} does not fit its config: {'; '.join(filter(None, problems))}. Give the "
            "weights that belong to the config"
        )


def export_params(params: Any, rules: Sequence[TensorRule]) -> dict[str, Stored]:
    """The inverse of `import_params`: parameter tree -> foreign names and axis orders. Parameters
    on devices are fetched when they are read.
    """
    flat = flatten_dict(params, sep="/")
    return {rule.name: _Exported(flat[rule.path], rule) for rule in rules}


class _Exported:
    """A foreign tensor made of (a layer of) a parameter when it is read."""

    def __init__(self, value: Any, rule: TensorRule) -> None:
        self._value, self._rule = value, rule
        self.shape, self.dtype = rule.theirs(value.shape), np.dtype(value.dtype)

    def __getitem__(self, rows: slice) -> np.ndarray:
        ours: list[slice | int] = [slice(None)] * len(self.shape)
        ours[0 if self._rule.axes is None else self._rule.axes.index(0)] = rows
        index = tuple(ours if self._rule.layer is None else [self._rule.layer, *ours])
        value = np.asarray(self._value)[index]
        return value if self._rule.axes is None else value.transpose(np.argsort(self._rule.axes))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self[slice(None)]
        return value if dtype is None else value.astype(dtype, copy=False)


def _assemble(
    tensors: Mapping[str, Stored],
    rules: Sequence[TensorRule],
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: Any,
    progress: Progress,
) -> Any:
    """One parameter, of one tensor or of one a layer."""
    if sharding is None:
        whole = np.empty(shape, dtype)
        _fill({tuple((0, n) for n in shape): whole}, tensors, rules, progress)
        return whole
    devices: dict[Region, list[Any]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        region = tuple(part.indices(n)[:2] for part, n in zip(index, shape, strict=True))
        devices.setdefault(region, []).append(device)
    shares = {
        region: np.empty([stop - start for start, stop in region], dtype) for region in devices
    }
    _fill(shares, tensors, rules, progress)
    arrays = []
    while shares:  # each is let go as soon as its devices have it
        region, share = shares.popitem()
        arrays += jax.block_until_ready(
            [jax.device_put(share, device) for device in devices[region]]
        )
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _fill(
    shares: Mapping[Region, np.ndarray],
    tensors: Mapping[str, Stored],
    rules: Sequence[TensorRule],
    progress: Progress,
) -> None:
    """Reads each tensor of a parameter once, and of it only the rows that some share has, into the
    shares: region of the parameter -> array.
    """
    for rule in rules:
        tensor = tensors[rule.name]
        targets = []  # region and array of each share, in the tensor's order of axes
        for region, array in shares.items():
            if rule.layer is not None:
                first, last = region[0]
                if not first <= rule.layer < last:
                    continue
                region, array = region[1:], array[rule.layer - first]
            back = range(len(region)) if rule.axes is None else np.argsort(rule.axes)
            targets.append((tuple(region[axis] for axis in back), array.transpose(back)))
        if not targets:
            continue
        if not tensor.shape:
            targets[0][1][...] = np.asarray(tensor)
            continue
        begin, end = (
            min(region[0][0] for region, _ in targets),
            max(region[0][1] for region, _ in targets),
        )
        for at, rows in pieces(tensor, begin, end):
            for region, array in targets:
                (first, last), rest = region[0], tuple(slice(*pair) for pair in region[1:])
                low, high = max(first, at), min(last, at + len(rows))
                if low < high:
                    _copy(
                        array[low - first : high - first], rows[(slice(low - at, high - at), *rest)]
                    )
            if progress:
                progress(rows.nbytes)


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, in tiles where one of them is transposed: five times faster than row by
    row, which misses the cache at every element.
    """
    if target.ndim != 2 or target.flags.c_contiguous:
        target[...] = source
        return
    source = source.astype(target.dtype, copy=False)
    for i in range(0, target.shape[0], _TILE):
        for j in range(0, target.shape[1], _TILE):
            target[i : i + _TILE, j : j + _TILE] = source[i : i + _TILE, j : j + _TILE]


def _is_weight(dtype: Any) -> bool:
    """Floats of 16 bits or more: smaller ones and whole numbers mean nothing without scales."""
    return bool(jnp.issubdtype(np.dtype(dtype), jnp.floating)) and np.dtype(dtype).itemsize > 1


def _listed(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"
