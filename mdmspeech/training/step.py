"""One optimiser update as a pure function: micro-batches, weighted loss parts, clipping, EMA."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mdmspeech.errors import UserError
from mdmspeech.nn.matmul_precision import matmul_precision
from mdmspeech.nn.stack import remat_policy
from mdmspeech.training.accumulate import can_be_apart, gradients
from mdmspeech.training.optim import Optimizer, ema_update
from mdmspeech.training.state import TrainState, cast
from mdmspeech.training.task import Losses, Task, Weight

Metrics = dict[str, jax.Array]


def loss_function(
    task: Task,
    dtype: str = "float32",
    remat: str = "none",
    held_out: bool = False,
    precision: str = "default",
) -> Callable[..., Losses]:
    """`task.loss`, or `task.held_out_loss`, computed in `dtype` ("float32" or "bfloat16") from
    float32 parameters, with a rematerialisation policy of `nn.stack` and a precision of
    `nn.matmul_precision`.

    Softmax, norms' statistics and losses are float32 in any case; gradients come back in float32,
    through the cast.
    """

    of = task.held_out_loss if held_out else task.loss

    def loss(
        params: Any, frozen: Any, batch: dict[str, jax.Array], rng: jax.Array, step: jax.Array
    ) -> Losses:
        with remat_policy(remat), matmul_precision(precision):
            return of(cast(params, dtype), cast(frozen, dtype), batch, rng, step)

    return loss


def make_train_step(
    task: Task,
    optimizer: Optimizer,
    accum: int = 1,
    ema_decay: float = 0.0,
    dtype: str = "float32",
    remat: str = "none",
    skip_nan: bool = False,
    reduce_dtype: str = "compute",
    precision: str = "default",
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns `step(state, frozen, batch) -> (state, metrics)`, not yet compiled.

    Metrics are float32 scalars: "loss" (the weighted sum), each loss part (numerator / denominator
    over the whole batch), "grad_norm" (before clipping), "lr", and what share of the batch is
    padding (see `padding`).

    With `accum` > 1 the batch is cut into micro-batches. The gradient is that of sum_k w_k (sum_m
    num_km) / (sum_m den_km), as if the batch had been one: denominators are summed first, in a pass
    from which the compiler removes the model.

    Over several devices along the data axis, the gradients of micro-batches of a task whose rows count
    by themselves (`Task.rows_apart`) are added over the devices once, at the end of all, in `dtype`,
    or in float32 with `reduce_dtype` "float32"; see `training.accumulate`. (With `accum` 1 and
    "compute" the compiler does it.)

    With `skip_nan` an update whose loss or gradient is no number changes nothing but the step: see
    `training.nonfinite`.
    """

    loss = loss_function(task, dtype, remat, precision=precision)
    once = (accum > 1 or reduce_dtype != "compute") and task.rows_apart
    added_in = "float32" if reduce_dtype == "float32" else dtype

    def step(
        state: TrainState, frozen: Any, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        micro_batches = jax.tree.map(lambda x: _to_micro_batches(x, accum), batch)
        order = jnp.arange(accum)

        def micro_batch(index: Any) -> dict[str, jax.Array]:
            return jax.tree.map(lambda x: x[index], micro_batches)

        def given(index: Any) -> tuple[Any, ...]:
            """What the loss of a micro-batch reads besides parameters and rows."""
            return frozen, jax.random.fold_in(rng, index), state.step

        def losses_of(params: Any, part: Any, given: tuple[Any, ...]) -> Losses:
            frozen, key, number = given
            return loss(params, frozen, part, key, number)

        def objective(params: Any, part: Any, rest: Any) -> tuple[jax.Array, Losses]:
            given, totals = rest
            losses = losses_of(params, part, given)
            totals = totals or {name: den for name, (_, den) in losses.items()}
            return _weighted_sum(losses, totals, task.weights, given[-1]), losses

        def denominators() -> Mapping[str, jax.Array]:
            def of_one(index: Any) -> Mapping[str, jax.Array]:
                losses = losses_of(state.params, micro_batch(index), given(index))
                return {name: den for name, (_, den) in losses.items()}

            return jax.tree.map(lambda x: x.sum(), jax.lax.map(of_one, order))

        gradient = jax.grad(objective, has_aux=True)
        if once and can_be_apart():
            # Random numbers are those of whole micro-batches, as everywhere.
            micro_batches |= jax.lax.map(
                lambda i: _drawn(task, micro_batch(i), jax.random.fold_in(rng, i)), order
            )
            rest = (given(0), denominators())
            grads, losses = gradients(gradient, state.params, micro_batches, rest, added_in)
        elif accum == 1:
            grads, losses = gradient(state.params, micro_batch(0), (given(0), None))
        else:
            totals = denominators()
            of_one = lambda i: gradient(state.params, micro_batch(i), (given(i), totals))
            zeros = jax.tree.map(
                lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of_one, jnp.int32(0))
            )
            (grads, losses), _ = jax.lax.scan(
                lambda carry, i: (jax.tree.map(jnp.add, carry, of_one(i)), None), zeros, order
            )

        updates, opt_state = optimizer.tx.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), state.params, updates)
        ema = None if state.ema is None else ema_update(state.ema, params, state.step, ema_decay)
        totals = {name: den for name, (_, den) in losses.items()}
        metrics = {"loss": _weighted_sum(losses, totals, task.weights, state.step)}
        metrics |= {name: _ratio(num, den) for name, (num, den) in losses.items() if name != "loss"}
        metrics |= {
            "grad_norm": optimizer.grad_norm(grads),
            "lr": jnp.asarray(optimizer.schedule(state.step)),
        }
        metrics |= padding(batch)
        after = state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema=ema)
        return _unless_nan(after, state, metrics) if skip_nan else after, metrics

    return step


def _drawn(task: Task, batch: dict[str, jax.Array], rng: jax.Array) -> dict[str, jax.Array]:
    """What `Task.draw` adds to a batch."""
    return {name: x for name, x in task.draw(batch, rng).items() if name not in batch}


def _unless_nan(after: TrainState, before: TrainState, metrics: Metrics) -> TrainState:
    """`after`; `before` with the new step if the update is not finite."""
    good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    params, opt_state, ema = jax.tree.map(
        lambda new, old: jnp.where(good, new, old),
        (after.params, after.opt_state, after.ema),
        (before.params, before.opt_state, before.ema),
    )
    return after.replace(params=params, opt_state=opt_state, ema=ema)


def padding(batch: Mapping[str, jax.Array]) -> Metrics:
    """Shares of the global batch's positions that nothing fills, by the arrays that say so: "padding"
    from `segment` or `valid`, "padding_mel" from `mel_segment`, "padding_text" from `text_valid`,
    ...; 0 means padding in all of them."""
    shares = {}
    for name, array in batch.items():
        field, _, kind = name.rpartition("_")
        if kind in ("segment", "valid"):
            shares[f"padding_{field}" if field else "padding"] = 1 - jnp.mean(
                array != 0, dtype=jnp.float32
            )
    return shares


def _to_micro_batches(x: jax.Array, accum: int) -> jax.Array:
    """[B, ...] -> [accum, B / accum, ...]; micro-batch m has the rows m::accum, so that no row
    changes its device.
    """
    if x.shape[0] % accum:
        raise UserError(
            f"a batch of {x.shape[0]} does not divide into train.accum={accum} "
            "micro-batches; make it a multiple of that"
        )
    return x.reshape(x.shape[0] // accum, accum, *x.shape[1:]).swapaxes(0, 1)


def _ratio(num: jax.Array, den: jax.Array) -> jax.Array:
    """num / den, and 0 where nothing was counted."""
    den = jax.lax.stop_gradient(jnp.asarray(den, jnp.float32))
    return jnp.where(den > 0, num / jnp.where(den > 0, den, 1.0), 0.0)


def _weighted_sum(
    losses: Losses, totals: Mapping[str, jax.Array], weights: Mapping[str, Weight], step: jax.Array
) -> jax.Array:
    missing = set(weights) - set(losses)
    if missing:
        raise ValueError(
            f"the task gives a weight to {sorted(missing)} but its loss returns "
            f"only {sorted(losses)}"
        )
    value = lambda w: w(step) if callable(w) else w
    return sum(
        (value(w) * _ratio(losses[name][0], totals[name]) for name, w in weights.items()),
        jnp.zeros(()),
    )
