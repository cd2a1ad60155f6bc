"""What a frozen Thinker computes once for training: its states of the answers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdmspeech.models.thinker import Thinker, ThinkerConfig


def states_of(config: ThinkerConfig, params: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    """A function of (ids int32 [B, N], lengths int32 [B]) -> states [B, N, D] after the final norm,
    each of the position that has consumed its id. Positions behind a length have no meaning.
    """
    model = Thinker(config)

    @jax.jit
    def compute(params: Any, ids_BN: jax.Array, lengths_B: jax.Array) -> jax.Array:
        apply = lambda method, *args: model.apply({"params": params}, *args, method=method)
        place_N = jnp.arange(ids_BN.shape[1])
        causal_NN = place_N[:, None] >= place_N[None, :]
        mask_BNN = causal_NN[None] & (place_N[None] < lengths_B[:, None])[:, None, :]
        states_BND, _ = apply("states", apply("embed", ids_BN), place_N[None], mask_BNN)
        return states_BND

    return lambda ids_BN, lengths_B: compute(params, ids_BN, lengths_B)
