"""In which precision matrix products are computed.

A TPU rounds the factors of a float32 product to bfloat16 and adds in float32, unless told
otherwise. "bfloat16" does the same on every machine: sums, norms, softmax and parameters stay
float32. Where a CPU has matrix units (AMX, Intel since 2023), products are so about five times as
fast (`experiments/bench_step.py`); XLA's compiler uses them for bfloat16 factors with a float32 result,
and for nothing else (not for `jax.default_matmul_precision`, nor for bfloat16 results).

What obeys: linear layers (`nn.linear`), the output layers of Thinker, Talker and adaptor, and the
attention of short rows on a CPU. Convolutions, the thin products of LoRA and fused attention do not.
"""

import contextlib
import contextvars

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError
from mdmspeech.nn.partition import on_one_device
from mdmspeech.nn.tracing import holding, platform

PRECISIONS = ("default", "bfloat16")
_precision: contextvars.ContextVar[str] = contextvars.ContextVar(
    "mdmspeech_matmul_precision", default="default"
)


def matmul_precision(name: str) -> contextlib.AbstractContextManager[None]:
    """Traces products with "default" precision (the machine's) or "bfloat16", see `nn.tracing`.

    Raises:
      UserError: another name.
    """
    if name not in PRECISIONS:
        raise UserError(f"matmul precision {name!r} is unknown; use one of {', '.join(PRECISIONS)}")
    return holding(_precision, name)


def matmul(x: jax.Array, y: jax.Array, preferred: jnp.dtype | None = None) -> jax.Array:
    """x @ y in the precision in force: [D] or [..., T, D] by [D, N], or [..., T, D] by [..., D, N]
    with the same leading axes.

    Args:
      preferred: dtype of the result; None: that of the factors.
    """
    if _precision.get() == "default":
        return jnp.matmul(x, y, preferred_element_type=preferred)
    if x.ndim == 1:
        return matmul(x[None], y, preferred)[0]
    if y.ndim != 2 and x.shape[:-2] != y.shape[:-2]:
        raise ValueError(
            f"a product of {x.shape} and {y.shape}: leading axes are not broadcast here"
        )
    return _rounded(x, y).astype(preferred or jnp.promote_types(x.dtype, y.dtype))


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return _added(x, y, "...td,dn->...tn" if y.ndim == 2 else "...td,...dn->...tn")


# Its gradient rounds factors, too: JAX would multiply a float32 gradient by a bfloat16 factor, and
# so in float32.
_rounded = jax.custom_vjp(_product)


def _added(x: jax.Array, y: jax.Array, of: str) -> jax.Array:
    half = jnp.bfloat16
    out = jnp.einsum(of, x.astype(half), y.astype(half), preferred_element_type=jnp.float32)
    # XLA's CPU compiler makes one product of this and of a transpose behind it, of a kind that its
    # runtime has not for these types (jaxlib 0.10.2): a barrier keeps the two apart.
    return jax.lax.optimization_barrier(out) if platform() == "cpu" else out


def _forward(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, y), (x, y)  # the bare product, which a remat policy can see


def _backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, y = kept
    if y.ndim > 2:  # a matrix for each
        dx, dy = _added(g, y, "...tn,...dn->...td"), _added(x, g, "...td,...tn->...dn")
    else:
        dx = _added(g, y, "...tn,dn->...td")
        dy = _sum_of_rows(x, g)
    return dx.astype(x.dtype), dy.astype(y.dtype)


def _sum_of_rows(x: jax.Array, g: jax.Array) -> jax.Array:
    """Sum over all rows of x' g, [D, N]. On a CPU after a copy that turns x: a plain transpose XLA
    would make part of the product, and then compute it in float32.
    """
    if platform() != "cpu" or not on_one_device():
        return _added(x, g, "...td,...tn->dn")
    x, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    rows, width = x.shape
    pairs = 2 if rows % 2 == 0 else 1
    turned = x.reshape(rows // pairs, pairs, width).transpose(2, 0, 1).reshape(width, rows)
    return _added(turned, g, "dt,tn->dn")


_rounded.defvjp(_forward, _backward)
