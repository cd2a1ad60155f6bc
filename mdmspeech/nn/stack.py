"""A stack of equal layers, either unrolled or scanned, and the conversion between the two parameter layouts.

Unrolled ("0", "1", ... as sub-modules) decodes faster on a CPU, where slicing a layer out of stacked weights is a copy;
scanned (one sub-module "all" whose parameters have a leading layer axis) compiles in constant time and suits large models.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict


class LayerStack(nn.Module):
    """Applies `num_layers` layers of `layer_class(**layer_kwargs)`, each called as (x, mask, rope, cache, write_at).

    The cache is a tuple of per-layer caches when unrolled, and one cache with a leading layer axis when scanned; None in, None out.
    """

    layer_class: type[nn.Module]
    layer_kwargs: FrozenDict
    num_layers: int
    scan: bool = False

    @nn.compact
    def __call__(self, x_BTD, mask_BTS, rope=None, cache=None, write_at_B=None):
        if self.scan:
            broadcast = nn.broadcast
            scanned = nn.scan(
                self.layer_class,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(broadcast, broadcast, 0, broadcast),
                length=self.num_layers,
            )
            return scanned(**self.layer_kwargs, name="all")(x_BTD, mask_BTS, rope, cache, write_at_B)
        caches = []
        for index in range(self.num_layers):
            layer = self.layer_class(**self.layer_kwargs, name=str(index))
            x_BTD, layer_cache = layer(x_BTD, mask_BTS, rope, None if cache is None else cache[index], write_at_B)
            caches.append(layer_cache)
        return x_BTD, None if cache is None else tuple(caches)


def stack_layers(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of an unrolled `LayerStack` ({"0": ..., "1": ...}) -> those of the scanned one ({"all": ...})."""
    layers = [params[str(index)] for index in range(len(params))]
    return {"all": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def unstack_layers(params: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `stack_layers`."""
    count = jax.tree.leaves(params["all"])[0].shape[0]
    return {str(index): jax.tree.map(lambda leaf, i=index: leaf[i], params["all"]) for index in range(count)}
