"""`generation.extend` as a chain of small programs, one for equal groups of layers.

One program of all layers has thousands of kernels on a CPU, and to open it from the disk takes
seconds, more than in proportion. A few layers are one program, called with one group's weights after
the other: the same products, opened in a tenth of the time. What is called once a token stays whole.

B rows, T input vectors, S columns of the cache, D width.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from mdmspeech.models import generation
from mdmspeech.models.generation import Thinker, ThinkerState
from mdmspeech.models.thinker import Thinker as Module
from mdmspeech.programs import KeptProgram

TOGETHER = 6  # layers in one program, at most


def staged_extend(thinker: Thinker) -> Callable[..., tuple[jax.Array, ThinkerState]]:
    """`generation.extend` of one Thinker, compiled: a function (params, state, x_BTD, new_B), the
    state being used up.
    """
    config = thinker.config
    program = partial(KeptProgram, "Thinker", about=config)
    if config.scan_layers:  # it is small already
        return program("extend", partial(generation.extend, thinker), donate=("state",))
    size = max(n for n in range(1, TOGETHER + 1) if config.num_layers % n == 0)
    group = type(thinker)(dataclasses.replace(config, num_layers=size))
    read = program(f"read-{size}-layers", partial(_read, group), donate=("caches",))
    finish = program("finish", partial(_finish, thinker))

    def extend(params: Any, state: ThinkerState, x_BTD: Any, new_B: Any):
        caches: list[Any] = []
        outer = {name: value for name, value in params.items() if name != "layers"}
        start_B, x = state.lengths_B, x_BTD
        for first in range(0, config.num_layers, size):
            layers = {str(i): params["layers"][str(first + i)] for i in range(size)}
            x, new = read(layers, state.cache[first : first + size], x, start_B)
            caches += new
        hidden_BTD, lengths_B, logits_BV = finish(outer, x, start_B, state.logits_BV, new_B)
        return hidden_BTD, ThinkerState(tuple(caches), lengths_B, logits_BV)

    return extend


def _read(group: Thinker, layers: Any, caches: Any, x_BTD: jax.Array, start_B: jax.Array):
    """Input of some layers -> (their output, their caches)."""
    room = caches[0].columns
    positions_BT, mask_BTS = generation.places(start_B, x_BTD.shape[1], room)
    inputs = (x_BTD, positions_BT, mask_BTS, caches, start_B)
    variables = {"params": {"layers": layers}}
    return group.apply(variables, *inputs, normed=False, method=Module.states)


def _finish(thinker: Thinker, params: Any, x_BTD, start_B, logits_BV, new_B):
    """Output of the last layer -> (post-norm states, filled columns, logits of the next token)."""
    hidden_BTD = thinker.apply({"params": params}, x_BTD, method=Module.last_norm)
    logits_BV = generation.next_logits(thinker, params, hidden_BTD, new_B, logits_BV)
    return hidden_BTD, start_B + new_B, logits_BV
