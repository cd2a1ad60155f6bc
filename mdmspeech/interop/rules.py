"""Renaming a foreign checkpoint into our parameter tree, with every disagreement listed in one error.

A `Rule` says which foreign tensor becomes which parameter, and how its axes are permuted. Every rule is invertible, so the
same list exports.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mdmspeech.errors import UserError

LINEAR = (1, 0)  # [out, in] -> [in, out]
CONV1D = (2, 1, 0)  # [out, in, kernel] -> [kernel, in, out]
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Rule:
    """parameter `path` ("layers/0/attn/q/kernel") = foreign tensor `name` with its axes permuted by `axes` (None: as it is)."""

    path: str
    name: str
    axes: tuple[int, ...] | None = None


def import_params(
    tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], shapes: Any, source: str, dtype: Any = np.float32
) -> dict[str, Any]:
    """Foreign tensors -> parameter tree of numpy arrays in `dtype`.

    Args:
      shapes: the abstract parameter tree (from `jax.eval_shape`) that the result must match.
      source: what to call the checkpoint in errors.

    Raises:
      UserError: missing, unknown and misshapen tensors, all of them counted and the first few named, in one line.
    """
    wanted = {"/".join(path): tuple(leaf.shape) for path, leaf in flatten_dict(shapes).items()}
    assert {rule.path for rule in rules} == wanted.keys(), "every parameter needs exactly one rule"
    missing = [rule.name for rule in rules if rule.name not in tensors]
    unknown = sorted(set(tensors) - {rule.name for rule in rules})
    flat, misshapen = {}, []
    for rule in rules:
        if rule.name not in tensors:
            continue
        value = np.asarray(tensors[rule.name])
        expected = wanted[rule.path]
        if rule.axes is not None:
            expected = tuple(expected[rule.axes.index(axis)] for axis in range(len(expected)))
        if value.shape != expected:
            misshapen.append(f"{rule.name} {list(value.shape)} instead of {list(expected)}")
            continue
        flat[rule.path] = np.ascontiguousarray(value if rule.axes is None else value.transpose(rule.axes), dtype)
    problems = [_listed("missing", missing), _listed("unknown", unknown), _listed("misshapen", misshapen)]
    if any(problems):
        raise UserError(
            f"{source} does not fit its config: {'; '.join(filter(None, problems))}. Give the weights that belong to the config"
        )
    return unflatten_dict(flat, sep="/")


def export_params(params: Any, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The inverse of `import_params`: parameter tree -> foreign names and axis orders."""
    flat = flatten_dict(params, sep="/")
    tensors = {}
    for rule in rules:
        value = np.asarray(flat[rule.path])
        tensors[rule.name] = value if rule.axes is None else value.transpose(np.argsort(rule.axes))
    return tensors


def _listed(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"
