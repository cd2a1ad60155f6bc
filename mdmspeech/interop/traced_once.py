"""Abstract parameter trees are traced once: a call opens, checks and writes the same parts several
times, and each time all layers would be traced anew.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

Config = TypeVar("Config")
_MOST = 64  # configurations that are remembered


def traced_once(shapes: Callable[[Config], Any]) -> Callable[[Config], Any]:
    """`shapes`, a function (configuration, a dataclass) -> abstract tree, which remembers its results.
    Configurations are told apart by all that they say of themselves: 64.0 is another size than 64.
    """
    known: dict[str, Any] = {}

    @functools.wraps(shapes)
    def remembered(config: Config) -> Any:
        if (key := repr(config)) not in known:
            found = shapes(config)
            while len(known) >= _MOST:
                known.pop(next(iter(known)), None)
            known[key] = found
        return jax.tree.map(lambda leaf: leaf, known[key])  # the caller may change it

    return remembered
