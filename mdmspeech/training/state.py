"""All that a training run carries from step to step, as one pytree."""

import functools
from collections.abc import Callable
from typing import Any
from typing import cast as cast_to

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mdmspeech.training.mesh import param_shardings, put_whole
from mdmspeech.training.optim import Optimizer


class TrainState(flax.struct.PyTreeNode):
    """Attributes: step int32 scalar, updates done; params; opt_state; ema like params, or None; rng
    typed key, constant: the key of a step is `fold_in(rng, step)`, so that a resumed run draws the
    same numbers."""

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any
    rng: jax.Array

    @property
    def eval_params(self) -> Any:
        """The averaged parameters if EMA is on, else the current ones."""
        return self.params if self.ema is None else self.ema


def abstract_state(
    init: Any, optimizer: Optimizer, rng: jax.Array, with_ema: bool, mesh: Mesh
) -> TrainState:
    """Shapes, types and shardings of the state; nothing is computed or allocated."""
    shapes = jax.eval_shape(lambda key: _create(init, optimizer, key, with_ema), rng)
    return jax.tree.map(lambda s, sh: s.update(sharding=sh), shapes, param_shardings(mesh, shapes))


def create_state(
    init: Any, optimizer: Optimizer, rng: jax.Array, with_ema: bool, mesh: Mesh
) -> TrainState:
    """A fresh state, every array born with its final sharding."""
    shardings = jax.tree.map(
        lambda s: s.sharding, abstract_state(init, optimizer, rng, with_ema, mesh)
    )
    return jax.jit(lambda key: _create(init, optimizer, key, with_ema), out_shardings=shardings)(
        rng
    )


def with_params(state: TrainState, params: Any) -> TrainState:
    """The state with other parameters (and EMA), placed as the old ones were. ValueError if names
    or shapes differ.
    """

    def put(was: jax.Array, now: Any) -> jax.Array:
        if was.shape != now.shape:
            raise ValueError(f"parameter of shape {now.shape} where {was.shape} was expected")
        return (
            now
            if now is was
            else put_whole(now.astype(was.dtype), cast_to(NamedSharding, was.sharding))
        )

    params = jax.tree.map(put, state.params, params)
    # A real copy: params and ema must not share buffers,
    # since the whole state is donated at each step.
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, ema=ema)


def frozen_shapes(task: Any, mesh: Mesh, dtype: Any = jnp.float32) -> Any:
    """Shapes, types (floating ones in `dtype`) and shardings of the task's frozen parameters;
    nothing is computed or allocated.
    """
    shapes = jax.eval_shape(lambda key: cast(task.init_frozen(key), dtype), jax.random.key(0))
    return jax.tree.map(lambda s, sh: s.update(sharding=sh), shapes, param_shardings(mesh, shapes))


def create_frozen(task: Any, mesh: Mesh, dtype: Any = jnp.float32) -> Any:
    """The task's frozen parameters, sharded like trained ones: those it loads, else random ones."""
    abstract = frozen_shapes(task, mesh, dtype)
    loaded = task.load_frozen(abstract)
    if loaded is None:
        shardings = jax.tree.map(lambda s: s.sharding, abstract)
        return jax.jit(lambda key: cast(task.init_frozen(key), dtype), out_shardings=shardings)(
            jax.random.key(0)
        )
    # In place already where the loader streamed them there.
    return jax.tree.map(
        lambda s, value: put_whole(
            value if value.dtype == s.dtype else value.astype(s.dtype), s.sharding
        ),
        abstract,
        loaded,
    )


def all_finite(tree: Any) -> bool:
    """Whether every number of a tree of arrays is finite; computed where they lie."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return not leaves or bool(
        _finite(NamedSharding(leaves[0].sharding.mesh, PartitionSpec()))(leaves)
    )


@functools.cache
def _finite(sharding: NamedSharding) -> Callable[[list[jax.Array]], jax.Array]:
    return jax.jit(
        lambda leaves: jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all(),
        out_shardings=sharding,
    )


def cast(tree: Any, dtype: Any) -> Any:
    """Floating-point arrays of `tree` in `dtype`; others as they are."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def _create(init: Any, optimizer: Optimizer, rng: jax.Array, with_ema: bool) -> TrainState:
    init_rng, step_rng = jax.random.split(rng)
    params = init(init_rng)
    ema = jax.tree.map(jnp.copy, params) if with_ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.tx.init(params), ema, step_rng)
