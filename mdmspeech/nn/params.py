"""How the layers here get their parameters."""

from collections.abc import Callable

import jax
from flax import linen as nn


def param(module: nn.Module, name: str, init: Callable, shape: tuple[int, ...]) -> jax.Array:
    """`module.param(name, init, shape)`. Linen learns the shape that a stored parameter should have
    by tracing its initialiser, which is a third of the time that tracing a Transformer takes; here it
    is compared with `shape`, and Linen does the rest: makes what is not there, refuses what does not fit.
    """
    if module.has_variable("params", name):
        value = module.get_variable("params", name)
        if getattr(value, "shape", None) == shape:
            return value
    return module.param(name, init, shape)
