"""In which precision matrix products are computed.

A TPU rounds the factors of a float32 product to bfloat16 and adds in float32, unless told
otherwise. "bfloat16" does the same on every machine: sums, norms, softmax and parameters stay
float32. Where a CPU has matrix units (AMX, Intel since 2023), products are so four to six times as
fast; XLA's compiler uses them for bfloat16 factors with a float32 result, and for nothing else (not
for `jax.default_matmul_precision`, nor for bfloat16 results).
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError

PRECISIONS = ("default", "bfloat16")
_precision: contextvars.ContextVar[str] = contextvars.ContextVar(
    "mdmspeech_matmul_precision", default="default"
)


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Traces products with "default" precision (the machine's) or "bfloat16". It acts while a
    function is traced and is no part of jit's cache key.

    Raises:
      UserError: another name.
    """
    if name not in PRECISIONS:
        raise UserError(f"matmul precision {name!r} is unknown; use one of {', '.join(PRECISIONS)}")
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def matmul(x: jax.Array, y: jax.Array, preferred: jnp.dtype | None = None) -> jax.Array:
    """x @ y in the precision in force, [..., T, D] @ [..., D, N] or [..., T, D] @ [D, N].

    Args:
      preferred: dtype of the result; None: that of the factors.
    """
    if _precision.get() == "default":
        return jnp.matmul(x, y, preferred_element_type=preferred)
    dtype = preferred or jnp.promote_types(x.dtype, y.dtype)
    return _rounded(x, y).astype(dtype)


@jax.custom_vjp
def _rounded(x: jax.Array, y: jax.Array) -> jax.Array:
    """float32 x @ y of factors that are rounded to bfloat16. So are those of its gradient: JAX would
    multiply a float32 gradient by a bfloat16 factor, and so in float32.
    """
    return _added(x, y, "...td,dn->...tn" if y.ndim == 2 else "...td,...dn->...tn")


def _added(x: jax.Array, y: jax.Array, of: str) -> jax.Array:
    half = jnp.bfloat16
    return jnp.einsum(of, x.astype(half), y.astype(half), preferred_element_type=jnp.float32)


def _forward(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _rounded(x, y), (x, y)


def _backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, y = kept
    if y.ndim > 2:  # a matrix for each
        dx, dy = _added(g, y, "...tn,...dn->...td"), _added(x, g, "...td,...tn->...dn")
    else:
        dx = _added(g, y, "...tn,dn->...td")
        x, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        dy = _added(_turned(x), g, "dt,tn->dn")
    return dx.astype(x.dtype), dy.astype(y.dtype)


def _turned(x: jax.Array) -> jax.Array:
    """[T, D] -> [D, T], laid out so. A plain transpose XLA would make part of the product, which on a
    CPU it then computes in float32.
    """
    rows, width = x.shape
    pairs = 2 if rows % 2 == 0 else 1
    return x.reshape(rows // pairs, pairs, width).transpose(2, 0, 1).reshape(width, rows)


_rounded.defvjp(_forward, _backward)
