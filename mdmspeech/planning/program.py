"""The programs that are planned, as functions of abstract arguments: the training step as
`training.loop` compiles it, and one block of decoding.

Nothing here holds a weight or a record: parameters, optimiser state and batches are shapes with
shardings.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mdmspeech.decoding import autoregressive, block_diffusion, multi_token
from mdmspeech.decoding.state import DecodingConfig, SamplingParams, initial_state
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.models.multi_token import TalkerHeads
from mdmspeech.speech_format import BOS, CODES, EOS, MASK, PAD, TOKEN_RATE
from mdmspeech.training.flops import count_flops
from mdmspeech.training.mesh import batch_sharding, data_shards, param_shardings
from mdmspeech.training.mfu import model_flops
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.state import abstract_state, cast, frozen_shapes
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
    unknown_trips: iterations of loops whose length depends on data.
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
    unknown_trips: int = 1


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
        flops=count_flops(step, *_plain((state, frozen, batch))),
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


def decode_program(
    config: talker.TalkerConfig,
    mesh: Mesh,
    rows: int = 1,
    steps: int = 4,
    seconds: float = 30.0,
    dtype: str = "bfloat16",
    mode: str = "mdm",
) -> Program:
    """One block of decoding of a Talker whose conditions are given: what a streaming voice waits
    for.

    As `inference.engine` runs it: code tables folded, state donated, K/V cache in float32. On a
    mesh of one chip it is one replica; with a tensor axis the heads and hidden units of one replica
    are split.

    Args:
      rows: utterances decoded together. steps: forwards a block, of masked diffusion.
      seconds: of speech that the cache has room for, at 25 tokens a second.
      mode: as it was trained, see `training.stages.talker`: "ntp" writes the next token, "mtp" three
        a forward, all others are of masked diffusion.
    """
    config = dataclasses.replace(config, structured_codes=False)
    model = talker.Talker(config)
    length = math.ceil(seconds * TOKEN_RATE / config.block) * config.block
    ids: dict[str, Any] = dict(codes=CODES, bos=BOS, eos=EOS, pad=PAD, mask=MASK)
    options = DecodingConfig(block=config.block, label_shift=config.label_shift, **ids)

    def forward(params, cache, ids_BT, cond_BTD, positions_BT, mask_BTS, write_at_B, num_logits):
        apply = functools.partial(model.apply, {"params": params})
        hidden, cache = apply(ids_BT, cond_BTD, mask_BTS, positions_BT, cache, write_at_B)
        return apply(hidden[:, hidden.shape[1] - num_logits :], method="logits"), cache

    def block(params, cond_BKD, state):
        if mode == "mtp":
            return multi_token.decode_block(TalkerHeads(model, params), state, cond_BKD, options)
        decoder = autoregressive if mode == "ntp" else block_diffusion
        return decoder.decode_block(functools.partial(forward, params), state, cond_BKD, options)

    def begin():
        request = SamplingParams.create(rows, steps=steps, target_len=length)
        return initial_state(
            talker.empty_caches(config, rows, cache_slots(length, config.block)),
            request,
            options,
            length,
            config.dim,
        )

    params = decode_state(config, mesh, dtype)
    heads = PartitionSpec(
        None, None, "tensor" if config.cache_heads % mesh.shape["tensor"] == 0 else None
    )
    place = lambda s: s.update(
        sharding=NamedSharding(mesh, heads if s.ndim == 4 else PartitionSpec())
    )
    state = jax.tree.map(place, jax.eval_shape(begin))
    cond = jax.ShapeDtypeStruct(
        (rows, config.block, config.dim), dtype, sharding=NamedSharding(mesh, PartitionSpec())
    )
    shardings = (jax.tree.map(lambda s: s.sharding, state), NamedSharding(mesh, PartitionSpec()))
    plain = _plain((params, cond, state))
    # A loop counts once. The first forward of masked diffusion, before it, commits the last block
    # beside unmasking this one: twice the tokens of each of the others.
    loops = {"ntp": config.block, "mtp": -(-config.block // options.mtp_emit)}
    trips = loops.get(mode, max(steps - 1, 1))
    flops = count_flops(block, *plain) * (trips if mode in loops else (2 + steps - 1) / 3)
    return Program(
        function=block,
        arguments=(params, cond, state),
        donated=(2,),
        out_shardings=shardings,
        parts={"parameters": params, "cache": state.cache},
        units=rows * config.block,
        unit="tokens",
        rows=rows,
        model_flops=flops,
        flops=flops,
        unknown_trips=trips,
    )


def decode_state(config: talker.TalkerConfig, mesh: Mesh, dtype: str = "bfloat16") -> Any:
    """Parameters of a Talker with folded code tables: abstract arrays with shardings."""
    folded = dataclasses.replace(config, structured_codes=False)
    params = jax.eval_shape(lambda key: cast(talker.init(folded, key), dtype), jax.random.key(0))
    return jax.tree.map(lambda s, sh: s.update(sharding=sh), params, param_shardings(mesh, params))


def _plain(tree: Any) -> Any:
    """The same shapes without shardings."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), tree)
