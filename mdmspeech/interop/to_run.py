"""A Thinker's parameters as `models.prepared_thinker` takes them, a layer at a time: what is written to
the disk never stands in memory as a whole.
"""

import functools
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mdmspeech.interop.tensors import Unread, read_all
from mdmspeech.models.prepared_thinker import prepared


def laid_out(params: dict[str, Any], scan_layers: bool) -> dict[str, Any]:
    """`prepared`, which uses `params` up. Of `tensors.Unread` comes a tree of these, each of which
    reads its own layer; that is kept until another one's turn.
    """
    if scan_layers or not any(isinstance(leaf, Unread) for leaf in jax.tree.leaves(params)):
        return prepared(read_all(params), scan_layers, use_up=True)

    @functools.lru_cache(maxsize=1)
    def part(*path: str) -> dict[str, Any]:
        """All leaves below a path, by their whole paths."""
        tree = read_all(functools.reduce(lambda tree, name: tree[name], path, params))
        for name in reversed(path):
            tree = {name: tree}
        return flatten_dict(prepared({"layers": {}, **tree}), sep="/")

    def leaf(path: str) -> np.ndarray:
        names = path.split("/")
        return np.asarray(part(*names[: 2 if names[0] == "layers" else 1])[path])

    shapes = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), params)
    flat = flatten_dict(jax.eval_shape(prepared, shapes), sep="/")
    lazily = {p: Unread(s.shape, s.dtype, functools.partial(leaf, p)) for p, s in flat.items()}
    return unflatten_dict(lazily, sep="/")
