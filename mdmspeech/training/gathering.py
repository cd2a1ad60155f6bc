"""Parameters that lie in parts on the devices (fsdp), put together once for all of a step."""

from typing import Any

import jax
from jax.sharding import PartitionSpec

from mdmspeech.nn.partition import RULES, axes_of, on_one_device
from mdmspeech.training.mesh import param_shardings


def gather_once(params: Any) -> Any:
    """`params`, whole on every device along the axes that split them for memory; a split of layers
    over devices (tensor) stays. Numbers are the same.

    For parameters that a loop uses in every iteration: left to itself the compiler gathers them in
    each, because it keeps only what the loop body needs at a time. It takes the memory of the whole
    in exchange.
    """
    if on_one_device():
        return params
    mesh: Any = jax.sharding.get_abstract_mesh()
    split = set(RULES["embed"])

    def one(x: jax.Array, sharding: Any) -> jax.Array:
        axes = [None if set(axes_of(part)) & split else part for part in sharding.spec]
        return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))

    return jax.tree.map(one, params, param_shardings(mesh, params))
