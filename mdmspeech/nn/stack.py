"""A stack of equal layers, either unrolled or scanned, the conversion between the two parameter
layouts, and what is kept of a layer for its gradient.

Unrolled ("0", "1", ... as sub-modules) decodes faster on a CPU, where slicing a layer out of
stacked weights is a copy; scanned (one sub-module "all" whose parameters have a leading layer axis)
compiles in constant time and suits large models.
"""

import contextlib
import contextvars

import jax
from flax import linen as nn
from flax.core import FrozenDict

from mdmspeech.errors import UserError
from mdmspeech.nn.tracing import holding

# What the forward pass of a layer keeps for the backward pass; the rest is computed again.
_POLICIES = {
    "none": None,  # everything is kept
    # Outputs of products with weights, and of splash attention (which names them); the rest, other
    # attention included, is computed again.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names("attention"),
    ),
    # only the input of each layer: one more forward pass, least memory
    "full": jax.checkpoint_policies.nothing_saveable,
}
_remat: contextvars.ContextVar[str] = contextvars.ContextVar("mdmspeech_remat", default="none")


def remat_policy(name: str) -> contextlib.AbstractContextManager[None]:
    """Traces layers with rematerialisation "none", "dots" or "full". It changes memory and time, no
    result, so it is no part of a model's config.
    """
    if name not in _POLICIES:
        raise UserError(f"remat policy {name!r} is unknown; use one of {', '.join(_POLICIES)}")
    return holding(_remat, name)


def rematted(layer_class: type[nn.Module], scanned: bool = False) -> type[nn.Module]:
    """`layer_class` under the policy in force; parameters keep their names."""
    name = _remat.get()
    if name == "none":
        return layer_class
    return nn.remat(layer_class, policy=_POLICIES[name], prevent_cse=not scanned)


class LayerStack(nn.Module):
    """Applies `num_layers` layers of `layer_class(**layer_kwargs)`, each called as (x, mask, rope,
    cache, write_at).

    The cache is a tuple of per-layer caches when unrolled, and one cache with a leading layer axis
    when scanned; None in, None out.
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
                rematted(self.layer_class, scanned=True),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(broadcast, broadcast, 0, broadcast),
                length=self.num_layers,
            )
            return scanned(**self.layer_kwargs, name="all")(
                x_BTD, mask_BTS, rope, cache, write_at_B
            )
        caches = []
        for index in range(self.num_layers):
            layer = rematted(self.layer_class)(**self.layer_kwargs, name=str(index))
            x_BTD, layer_cache = layer(
                x_BTD, mask_BTS, rope, None if cache is None else cache[index], write_at_B
            )
            caches.append(layer_cache)
        return x_BTD, None if cache is None else tuple(caches)
