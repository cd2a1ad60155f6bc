"""How well the devices are used: model FLOPs utilisation, its numerator (counted) and its
denominator (a table, or measured on a CPU).
"""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mdmspeech.hardware import find_chip
from mdmspeech.nn.matmul_precision import matmul, matmul_precision
from mdmspeech.training.flops import count_flops
from mdmspeech.training.optim import Optimizer
from mdmspeech.training.task import Task

_SIZE, _REPEATS = 1024, 5


def mfu(flops: float, seconds: float, devices: int, peak_flops: float) -> float:
    """Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): `flops / seconds / (devices *
    peak_flops)`.

    Args:
      flops: what the loss and its gradient ask of the matrix units for the updates done, see
        `model_flops`.
      seconds: training time they took, waiting for data and for the host included; compiling,
        evaluating and saving not.
      devices: chips in the mesh.
      peak_flops: of one of them, dense bfloat16 whatever type the run computes in. 0 (unknown)
        gives 0.
    """
    return flops / seconds / (devices * peak_flops) if seconds > 0 and peak_flops > 0 else 0.0


def model_flops(task: Task, optimizer: Optimizer, params: Any, frozen: Any, batch: Any) -> int:
    """FLOPs of matrix products and convolutions in the loss of one whole batch and its gradient
    with respect to the trained parameters.

    It is a property of the model and the batch (padding included), not of how the step is run:
    recomputation under `jax.checkpoint` does not count, nor does it matter how many micro-batches
    or devices there are. Only shapes of the arguments are read.
    """
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, frozen, batch)
    )
    keys = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))

    def loss(params: Any, frozen: Any, batch: Any, rng: Any, step: Any) -> Any:
        losses = task.loss(params, frozen, batch, rng, step)
        return sum(losses[name][0].astype(jnp.float32) for name in task.weights)

    plain = _without_remat(loss, *abstract, *keys)

    def gradient(*args: Any) -> list[Any]:
        value, grads = jax.value_and_grad(plain)(*args)
        trained = jax.tree.leaves(optimizer.trained)
        return [value, *(g for g, t in zip(jax.tree.leaves(grads), trained, strict=True) if t)]

    return count_flops(gradient, *abstract, *keys)


def peak_flops(device: jax.Device, override: float = 0.0, precision: str = "default") -> float:
    """Peak FLOP/s of a device: `override` if it is given, else the table's, else, for a CPU, what a
    float32 matrix product in `precision` (`nn.matmul_precision`) reaches on this machine, divided by
    the fake devices that share it. 0 if it is not known."""
    if override:
        return override
    if device.platform == "cpu":
        return measured_matmul(precision=precision) / jax.local_device_count("cpu")
    chip = find_chip(device.device_kind)
    return chip.bf16_flops if chip else 0.0


def measured_matmul(precision: str = "default") -> float:
    """`matmul_rate` of float32 matrices of one size, measured once."""
    return _measured_matmul(precision)


@functools.cache
def _measured_matmul(precision: str) -> float:
    return matmul_rate("float32", precision)


def matmul_rate(dtype: str, precision: str = "default", sizes: Sequence[int] = (_SIZE,)) -> float:
    """FLOP/s of the fastest of a few products of two square matrices on the first local device."""
    best = 0.0
    with jax.default_device(jax.local_devices()[0]), matmul_precision(precision):
        for size in sizes:
            a = jnp.ones((size, size), dtype)
            product = jax.jit(lambda a, b: matmul(a, b)).lower(a, a).compile()
            product(a, a).block_until_ready()
            for _ in range(_REPEATS):
                began = time.perf_counter()
                product(a, a).block_until_ready()
                best = max(best, 2.0 * size**3 / (time.perf_counter() - began))
    return best


def _without_remat(function: Any, *args: Any) -> Any:
    """`function` with every `jax.checkpoint` inside it made to keep everything, so that its
    gradient recomputes nothing.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    kept = core.jaxpr_as_fun(core.ClosedJaxpr(_keep_all(closed.jaxpr), closed.consts))
    return lambda *args: jax.tree.unflatten(jax.tree.structure(shape), kept(*jax.tree.leaves(args)))


def _keep_all(jaxpr: Any) -> Any:
    def change(value: Any) -> Any:
        if isinstance(value, core.ClosedJaxpr):
            return core.ClosedJaxpr(_keep_all(value.jaxpr), value.consts)
        if isinstance(value, core.Jaxpr):
            return _keep_all(value)
        # named tuples hold no jaxprs
        return tuple(change(v) for v in value) if type(value) is tuple else value

    eqns = []
    for eqn in jaxpr.eqns:
        params = {name: change(value) for name, value in eqn.params.items()}
        if eqn.primitive.name in ("checkpoint", "remat2"):
            params["policy"] = jax.checkpoint_policies.everything_saveable
        eqns.append(eqn.replace(params=params))
    return jaxpr.replace(eqns=eqns)
