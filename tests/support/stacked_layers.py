"""Parameters of an unrolled `LayerStack` as those of a scanned one."""

from typing import Any

import jax
import jax.numpy as jnp


def stack_layers(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of an unrolled `LayerStack` ({"0": ..., "1": ...}) -> those of the scanned one
    ({"all": ...}).
    """
    layers = [params[str(index)] for index in range(len(params))]
    return {"all": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
