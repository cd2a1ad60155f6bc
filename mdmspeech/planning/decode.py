"""The programs of decoding that are planned: a block of speech as `inference.engine` compiles it, by
way of talking, and a token of the Thinker over a mesh.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mdmspeech.errors import UserError
from mdmspeech.evaluation.speed.talkers import MODULES, WAYS, Way
from mdmspeech.inference.conditioning import TEXTS, FixedInputs, PacedInputs, TextInputs
from mdmspeech.inference.engine import BLOCKS, PureEngine, decoding_config, wishes
from mdmspeech.inference.symbols import SYMBOLS
from mdmspeech.models import generation, talker
from mdmspeech.models.prepared_talker import PreparedTalker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.models.thinker import Thinker, ThinkerConfig
from mdmspeech.nn.partition import spec
from mdmspeech.padding import bucket
from mdmspeech.planning.program import Program, plain
from mdmspeech.speech_format import TOKEN_RATE
from mdmspeech.training.flops import count_flops
from mdmspeech.training.mesh import param_shardings
from mdmspeech.training.state import cast

WAY_NAMES = {way.name: way for way in WAYS}
# Tokens a second beside next-token decoding, in the paper (docs/method.md, "Reported numbers"; one
# NVIDIA L20).
PAPER = {"NTP": 1.0, "MTP 3": 1.8, "S=16": 1.8, "S=4": 3.7, "S=1": 10.5}


def find_way(name: str) -> Way:
    """ "NTP", "MTP 3", "S=4". UserError: none of them."""
    if name not in WAY_NAMES:
        raise UserError(f"way {name!r}: choose one of {', '.join(WAY_NAMES)}")
    return WAY_NAMES[name]


def speech_program(
    config: TalkerConfig,
    mesh: Mesh,
    way: Way,
    rows: int = 1,
    seconds: float = 20.0,
    dtype: str = "bfloat16",
) -> Program:
    """One block of every row, as the engine runs it: what a streaming voice waits for. Weights laid
    out for decoding, conditions looked up inside, state donated, K/V cache in float32.

    Args:
      way: of talking; a Talker without modules of multi-token prediction gets `MODULES` where it
        takes them.
      rows: utterances decoded together. seconds: of speech so far at most, which decides how much
        of the cache is looked at.

    Raises:
      UserError: a mesh of several chips.
    """
    if mesh.size != 1:
        raise UserError(
            f"a Talker speaks on one chip, not on {mesh.size}: plan it on v5e:1x1, v5p:1x1x1 or "
            "v6e:1x1; a slice holds so many more of them"
        )
    modules = (config.mtp_modules or MODULES) if way.mode == "mtp" else 0
    config = dataclasses.replace(config, mtp_modules=modules)
    init = lambda key: cast(talker.init(config, key), dtype)
    prepared, params = PreparedTalker.abstract(config, jax.eval_shape(init, jax.random.key(0)))
    emits = {"mtp_emit": way.emit} if way.mode == "mtp" else {}
    engine = PureEngine(prepared, way.mode, decoding_config(config, **emits))
    state = jax.eval_shape(
        engine.begin, jax.eval_shape(engine.empty_cache), wishes(steps=way.steps)
    )
    seen = bucket(math.ceil(seconds * TOKEN_RATE / config.block), BLOCKS)
    arguments = (params, (_text(config),) * rows, (state,) * rows, ShapeDtypeStruct((), jnp.int32))
    # The engine's loop over blocks, once, and in it the decoder's over forwards; masked diffusion
    # has done one before its loop.
    forwards = round(sum(count for _, _, count in way.forwards(config.block)))
    trips = (1, forwards - (way.mode == "mdm"))

    def block(params, texts, states, blocks):
        return engine.advance(params, texts, states, blocks, seen)

    flops = count_flops(block, *arguments, trips=trips)
    whole = NamedSharding(mesh, PartitionSpec())
    arguments = jax.tree.map(lambda s: s.update(sharding=whole), arguments)
    return Program(
        function=block,
        arguments=arguments,
        donated=(2,),
        out_shardings=None,
        parts={"parameters": params, "cache": [state.cache for state in arguments[2]]},
        units=rows * config.block,
        unit="tokens",
        rows=rows,
        model_flops=flops,
        flops=flops,
        unknown_trips=trips,
    )


def thinking_program(
    config: ThinkerConfig,
    mesh: Mesh,
    rows: int = 1,
    room: int = 2048,
    dtype: str = "bfloat16",
) -> Program:
    """One token of every row of a Thinker that writes greedily over its K/V cache, as
    `models.generation` decodes, split over the mesh by the rules of training.

    Args:
      rows: answers written together. room: positions of the cache, all of which are looked at.

    Raises:
      UserError: the rows do not divide among the devices that share them.
    """
    thinker = Thinker(dataclasses.replace(config, lora_rank=0))  # its update has been fused
    begin = lambda: generation.empty_state(thinker, rows, room, jnp.dtype(dtype))
    one_id = ShapeDtypeStruct((1, 1), jnp.int32)
    init = lambda key, ids: cast(thinker.init(key, ids)["params"], dtype)
    params = jax.eval_shape(init, jax.random.key(0), one_id)
    shared = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % shared:
        raise UserError(
            f"{rows} rows do not divide into {shared} devices: give a multiple of {shared} with "
            "--rows, or split layers instead, --mesh data=1,fsdp=1,tensor=8"
        )

    def one_token(params, state, keys_B):
        token_B = generation.draw(state, keys_B)
        _, hidden_BD, state = generation.read_token(thinker, params, state, token_B)
        return token_B, hidden_BD, state

    state = jax.eval_shape(begin)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    flops = count_flops(one_token, *plain((params, state, keys)))
    params = jax.tree.map(
        lambda s, sharding: s.update(sharding=sharding), params, param_shardings(mesh, params)
    )
    state = jax.tree.map(lambda s: s.update(sharding=_lies(mesh, s)), state)
    keys = keys.update(sharding=_lies(mesh, keys))
    return Program(
        function=one_token,
        arguments=(params, state, keys),
        donated=(1,),
        out_shardings=(None, None, jax.tree.map(lambda s: s.sharding, state)),
        parts={"parameters": params, "cache": state.cache},
        units=rows,
        unit="tokens",
        rows=rows,
        model_flops=flops,
        flops=flops,
    )


def _lies(mesh: Mesh, array: Any) -> NamedSharding:
    """Of an array of a Thinker's state: rows by batch; of a cache [.., B, S, K, D] heads, of logits
    the vocabulary.
    """
    named = {1: ("batch",), 2: ("batch", "vocab"), 4: ("batch", "none", "heads", "none")}
    names = named[min(array.ndim, 4)]
    layers = ("none",) * (array.ndim - len(names))
    return NamedSharding(mesh, spec(*layers, *names, shape=array.shape, sizes=mesh.shape))


def _text(config: TalkerConfig) -> TextInputs:
    """What a row hears: shapes of a text with the most room."""
    count, numbers = ShapeDtypeStruct((1,), jnp.int32), jnp.float32
    if config.anchors == "paced":
        size = (1, SYMBOLS[-1])
        features = ShapeDtypeStruct((*size, config.dim), numbers)
        return PacedInputs(features, ShapeDtypeStruct(size, numbers), count)
    return FixedInputs(ShapeDtypeStruct((1, TEXTS[-1], config.dim), numbers), count)
