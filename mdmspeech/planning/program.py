"""A program that is planned, as a function of abstract arguments; the training step as
`training.loop` compiles it. (`planning.decode` has those of decoding.)

Nothing here holds a weight or a record: parameters, optimiser state and batches are shapes with
shardings.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mdmspeech.errors import UserError
from mdmspeech.planning.hlo import ONCE, Trips
from mdmspeech.training.flops import count_flops
from mdmspeech.training.mesh import batch_sharding, data_shards
from mdmspeech.training.mfu import model_flops
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.state import abstract_state, frozen_shapes
from mdmspeech.training.step import make_train_step
from mdmspeech.training.task import Task


@dataclasses.dataclass(frozen=True)
class Program:
    """Attributes:
    function, arguments: what is compiled, and abstract arguments with their shardings.
    donated, out_shardings: as `jax.jit` takes them (None: the compiler's choice).
    parts: part of the arguments ("parameters", "optimizer", ...) -> its arrays.
    units, unit: what one call works through: positions of a batch, or tokens of a block.
    rows: of one call.
    model_flops: of loss and gradient, recomputation left out. flops: of what is really run. Both
      over all devices.
    unknown_trips: of loops whose length depends on data.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...]
    out_shardings: Any
    parts: dict[str, Any]
    units: int
    unit: str
    rows: int
    model_flops: float
    flops: float
    unknown_trips: Trips = ONCE


def train_program(config: ConfigDict, task: Task, mesh: Mesh, rows: int = 0) -> Program:
    """One update of `task`.

    Args:
      rows: of the global batch; 0 takes that of the configuration.

    Raises:
      UserError: the rows do not divide among the devices and micro-batches.
    """
    train = config.train
    state, frozen, optimizer = _train_state(config, task, mesh)
    batch = _batch(task, mesh, rows, train.accum)
    step = make_train_step(
        task,
        optimizer,
        train.accum,
        config.optim.ema,
        train.dtype,
        train.remat,
        reduce_dtype=train.reduce_dtype,
        precision=train.matmul_precision,
    )
    shardings = jax.tree.map(lambda s: s.sharding, state)
    parts = {
        "parameters": state.params,
        "optimizer": state.opt_state,
        "average": state.ema,
        "frozen": frozen,
        "batch": batch,
    }
    positions = next((batch[name] for name in ("tokens", "ids") if name in batch), None)
    rows = next(iter(batch.values())).shape[0]
    return Program(
        function=step,
        arguments=(state, frozen, batch),
        donated=(0,),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        parts={name: part for name, part in parts.items() if jax.tree.leaves(part)},
        units=rows if positions is None else positions.size,
        unit="rows" if positions is None else "tokens",
        rows=rows,
        model_flops=model_flops(task, optimizer, state.params, frozen, batch),
        flops=count_flops(step, *plain((state, frozen, batch))),
    )


def train_state(config: ConfigDict, task: Task, mesh: Mesh) -> Any:
    """What a device holds between steps: abstract arrays with shardings."""
    return _train_state(config, task, mesh)[:2]


def _train_state(config: ConfigDict, task: Task, mesh: Mesh) -> tuple[Any, Any, Any]:
    rng = jax.random.key(config.train.seed)
    optimizer = make_optimizer(
        config.optim, config.train.steps, jax.eval_shape(task.init, rng), task.optimizer
    )
    state = abstract_state(task.init, optimizer, rng, config.optim.ema > 0, mesh)
    return state, frozen_shapes(task, mesh, config.train.dtype), optimizer


def _batch(task: Task, mesh: Mesh, rows: int, accum: int) -> dict[str, jax.ShapeDtypeStruct]:
    spec = task.batch_spec()
    rows = rows or next(iter(spec.values())).shape[0]
    if rows % (data_shards(mesh) * accum):
        raise UserError(
            f"a batch of {rows} rows does not divide into {data_shards(mesh)} data-parallel "
            f"devices x train.accum={accum}; use a multiple of {data_shards(mesh) * accum} "
            "(--rows), fewer data and fsdp, or more tensor"
        )
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((rows, *s.shape[1:]), s.dtype, sharding=sharding)
        for name, s in spec.items()
    }


def plain(tree: Any) -> Any:
    """The same shapes without shardings."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), tree)
