"""FLOPs of a function, counted in its jaxpr: exact for matrix products and convolutions, before any
compiler has touched them.
"""

import math
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(fn: Any, *abstract_args: Any, trips: tuple[int, ...] = (1,)) -> int:
    """Multiplications and additions of all matrix products and convolutions in
    `fn(*abstract_args)`, over all devices.

    A product of [M, K] and [K, N] counts 2 M N K. Bodies of scans count as often as they run, a
    `while` as `trips` says, a `cond` as its dearest branch, a Pallas kernel once per grid point. Results that
    nobody uses cost nothing, as in the compiled program. Everything else (norms, softmax, the
    optimiser) is small beside it and not counted.

    Args:
      abstract_args: `jax.ShapeDtypeStruct`s or arrays; nothing is computed.
      trips: iterations of `while`s: of the outermost, of those in it, and so on; the last holds for
        all further ones.
    """
    closed = jax.make_jaxpr(fn)(*abstract_args)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _count(jaxpr, trips)


def _count(jaxpr: Any, trips: tuple[int, ...]) -> int:
    return sum(_count_eqn(eqn, trips) for eqn in jaxpr.eqns)


def _count_eqn(eqn: Any, trips: tuple[int, ...]) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        out_features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(eqn.outvars[0].aval.shape) * (math.prod(kernel) // out_features)
    loop = name == "while"
    inside = (trips[1:] or trips) if loop else trips
    inner = [_count(getattr(j, "jaxpr", j), inside) for j in core.jaxprs_in_params(params)]
    if not inner:
        return 0
    if name == "cond":
        return max(inner)
    if loop:
        return trips[0] * sum(inner)
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid) * sum(inner)
    if name == "shard_map":  # its body sees one device's part
        mesh, manual = params["mesh"], params["newly_manual_axes"]
        return math.prod(mesh.shape[a] for a in manual) * sum(inner)
    return sum(inner)
