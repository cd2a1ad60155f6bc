"""Memory of one chip, by kind: the arguments split by what they are, from shardings; the rest from
the compiler.
"""

import math
from typing import Any

import jax
import numpy as np


def part_bytes(tree: Any) -> int:
    """Bytes on one device of abstract arrays with shardings."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any) -> int:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), leaf.dtype))
        # keys are small and whole everywhere
        return math.prod(leaf.shape) * words.size * words.dtype.itemsize
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
    return math.prod(shape) * np.dtype(leaf.dtype).itemsize


def split(compiled: Any, parts: dict[str, Any]) -> dict[str, int]:
    """Bytes on one chip: each part of the arguments, "padding" (what TPU tiles add to them, or
    unused ones take away), "outputs" (those that do not take the place of a donated argument),
    "temporaries", "code". Their sum is what the program needs.
    """
    stats = compiled.memory_analysis()
    sizes = {name: part_bytes(part) for name, part in parts.items()}
    return sizes | {
        "padding": int(stats.argument_size_in_bytes) - sum(sizes.values()),
        "outputs": int(stats.output_size_in_bytes - stats.alias_size_in_bytes),
        "temporaries": int(stats.temp_size_in_bytes),
        "code": int(stats.generated_code_size_in_bytes),
    }
