"""The coordinate check of muP (Yang et al. 2022, arXiv 2203.03466, appendix D.1): how far do
activations move in a few updates, and does that depend on the width? Under muP it does not; under the
standard parametrisation it grows, and with it the best learning rate falls.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mdmspeech.speech_format import CODES
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.stages.talker import TalkerTask

_ROWS, _LENGTH, _SYMBOLS = 4, 32, 24


def moved(task: TalkerTask, config: ConfigDict, steps: int = 5, seed: int = 0) -> dict[str, float]:
    """RMS of what `steps` updates on one random batch change of each activation: of every layer's
    attention and MLP, of the residual stream, of the logits.

    config: of the experiment, of which the optimiser is read; the rate is constant.
    """
    batch = _batch(config, seed)
    shown = ConfigDict(config.optim.to_dict())
    shown.update(schedule="constant", warmup=0)
    # numbers that cost little to compile: which ones they are says nothing here
    key = lambda number: jax.random.key(number, impl="unsafe_rbg")
    params = jax.jit(task.init)(key(seed))
    optimizer = make_optimizer(shown, steps, params, task.optimizer)

    def total(params):
        losses = task.loss(params, {}, batch, key(seed + 1), jnp.int32(0))
        return sum(w * losses[n][0] / losses[n][1] for n, w in task.weights.items())

    @jax.jit
    def update(params, state):
        changes, state = optimizer.tx.update(jax.grad(total)(params), state, params)
        return jax.tree.map(jnp.add, params, changes), state

    look = jax.jit(lambda params: _activations(task, params, batch))
    before, state = look(params), jax.jit(optimizer.tx.init)(params)
    for _ in range(steps):
        params, state = update(params, state)
    after = look(params)
    return {
        name: float(np.sqrt(np.mean(np.square(np.asarray(after[name]) - np.asarray(before[name])))))
        for name in before
    }


def table(found: Mapping[int, Mapping[str, float]]) -> str:
    """A line for each activation, a column for each width, and how it grows from first to last."""
    widths = list(found)
    lines = ["activation".ljust(26) + "".join(f"{w:>10}" for w in widths) + "     grows"]
    for name in found[widths[0]]:
        values = [found[w][name] for w in widths]
        lines.append(
            name.ljust(26)
            + "".join(f"{v:10.4f}" for v in values)
            + f"{values[-1] / max(values[0], 1e-12):10.2f}"
        )
    return "\n".join(lines)


def _activations(task: TalkerTask, params: Any, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """name -> array of the same size at every step."""
    cond, _ = task.condition(params, batch)
    length = batch["tokens"].shape[1]
    (hidden, _), kept = task.model.apply(
        {"params": params},
        batch["tokens"],
        cond,
        jnp.ones((1, length, length), bool),
        jnp.arange(length)[None],
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    flat = flatten_dict(kept["intermediates"], sep="/")
    found = {"condition": cond}
    for number in range(task.config.num_layers):
        for name in (f"layers_{number}", f"layers_{number}/attn", f"layers_{number}/mlp"):
            value = flat[f"{name}/__call__"][0]
            found[name] = value[0] if isinstance(value, tuple) else value
    return found | {"logits": task.logits(params, hidden)}


def _batch(config: ConfigDict, seed: int) -> dict[str, jax.Array]:
    """Random tokens and symbols in joined rows."""
    rng = np.random.default_rng(seed)
    valid = lambda n: jnp.ones((_ROWS, n), bool)
    return {
        "tokens": jnp.asarray(rng.integers(0, CODES, (_ROWS, _LENGTH)), jnp.int32),
        "valid": valid(_LENGTH),
        "symbols": jnp.asarray(
            rng.integers(0, config.talker.symbols, (_ROWS, _SYMBOLS)), jnp.int32
        ),
        "symbols_valid": valid(_SYMBOLS),
        "durations": jnp.full((_ROWS, _SYMBOLS), _LENGTH / _SYMBOLS),
    }
