"""What holds while a function is traced. It is no part of the key of any cache of traces: what was
jitted, checkpointed or scanned once keeps what held then.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax

_backend: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "mdmspeech_attention_backend", default=None
)


@contextlib.contextmanager
def holding(variable: contextvars.ContextVar[Any], value: Any) -> Iterator[None]:
    """`variable` has `value` inside, and after it what it had before."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def attention_backend(name: str) -> contextlib.AbstractContextManager[None]:
    """Traces with the formulation for `name` ("cpu", "gpu", "tpu") instead of the default
    backend's, for compiling ahead of time for another machine.
    """
    return holding(_backend, name)


def platform() -> str:
    """For which machine is traced: "cpu", "gpu" or "tpu"."""
    return _backend.get() or jax.default_backend()
