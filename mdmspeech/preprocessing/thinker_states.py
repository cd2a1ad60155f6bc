"""What a frozen Thinker computes once for training: its states of the answers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mdmspeech.data.pipelines.chats_packed import PROMPT
from mdmspeech.models.thinker import Thinker, ThinkerConfig, behind_prompt


def states_of(
    config: ThinkerConfig, params: Any
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Any]:
    """A function of (ids, segment, position), each int32 [B, N], -> states [B, N, D] after the final
    norm, each of the place that has consumed its id.

    segment: PROMPT for what every conversation of a row begins with, which they all attend to; higher
    numbers for one each, which attends to itself besides; 0 for padding. position: in its own
    conversation, the prompt included.
    """
    model = Thinker(config)

    @jax.jit
    def compute(
        params: Any, ids_BN: jax.Array, segment_BN: jax.Array, position_BN: jax.Array
    ) -> jax.Array:
        apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
        mask_BNN = behind_prompt(segment_BN, PROMPT)
        states_BND, _ = apply("states", apply("embed", ids_BN), position_BN, mask_BNN)
        return states_BND

    return lambda ids_BN, segment_BN, position_BN: compute(params, ids_BN, segment_BN, position_BN)
