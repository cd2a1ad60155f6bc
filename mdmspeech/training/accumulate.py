"""Gradients of many micro-batches on many devices, added over the devices once.

Left to itself the partitioner adds each micro-batch's gradient over all devices, in the type it was
computed in. Here the devices along the data axis each work through their own rows of all
micro-batches, add up in float32, and meet once at the end. (Along fsdp a gradient is scattered to
where its parameters lie, which each micro-batch needs: whole gradients would fill the memory that
fsdp saves.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mdmspeech.nn.partition import on_one_device

AXIS = "data"


def can_be_apart() -> bool:
    """Whether the mesh in context has devices with rows of their own and parameters alike."""
    mesh = jax.sharding.get_abstract_mesh()
    return not on_one_device() and mesh.shape.get(AXIS, 1) > 1


def gradients(
    gradient: Callable[..., Any], params: Any, micro_batches: Any, rest: Any, dtype: Any
) -> Any:
    """The sum over micro-batches and devices of `gradient(params, micro_batch, rest)` -> (gradients,
    sums).

    Every row must count by itself: the result of a batch is the sum of those of its rows.

    Args:
      gradient: its first result is added over the devices in `dtype`, the second in its own type.
      micro_batches: arrays [micro-batches, rows, ...]. rest: whatever else, the same everywhere.
    """

    def of_own_rows(params: Any, micro_batches: Any, rest: Any) -> Any:
        first = jax.tree.map(lambda x: x[0], micro_batches)
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(gradient, params, first, rest)
        )

        def add(carry: Any, micro_batch: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, gradient(params, micro_batch, rest)), None

        (grads, sums), _ = jax.lax.scan(add, zeros, micro_batches)
        over_devices = lambda g: jax.lax.psum(g.astype(dtype), AXIS).astype(g.dtype)
        return jax.tree.map(over_devices, grads), jax.lax.psum(sums, AXIS)

    return jax.shard_map(
        of_own_rows,
        in_specs=(PartitionSpec(), PartitionSpec(None, AXIS), PartitionSpec()),
        out_specs=PartitionSpec(),
        axis_names={AXIS},
        check_vma=False,  # layers inside have kernels, which do not say how their results vary
    )(params, micro_batches, rest)
