"""AdamW with a schedule, clipping, and rules of which one must match every parameter (an idea of
big_vision's).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mdmspeech.errors import UserError

# Vectors (biases, norm scales) and lookup tables are not decayed unless a rule says so. `table` and
# `digits` are those of speech codes (models.talker.CodeTable, a table and what is added to it),
# which are rows of a vocabulary too.
_UNDECAYED_NAME = re.compile(r"(^|[/_])(bias|scale|embed\w*|\w*norm\w*|pos\w*|table|digits)$")


@dataclasses.dataclass(frozen=True)
class ParamRule:
    """What happens to the parameters whose whole path matches `pattern`.

    Attributes:
      pattern: regular expression, must match the whole "a/b/kernel" path.
      lr: factor on the learning rate.
      weight_decay: overrides the config's decay and the no-decay default; None keeps them.
      frozen: never updated, and no optimiser state is kept.
    """

    pattern: str
    lr: float = 1.0
    weight_decay: float | None = None
    frozen: bool = False


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax transformation with what the step reports about it."""

    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]  # step -> learning rate
    trained: Any  # pytree of bool like the parameters

    def grad_norm(self, grads: Any) -> jax.Array:
        """Global L2 norm of the gradients of the trained parameters, before clipping."""
        kept = [
            g
            for g, t in zip(jax.tree.leaves(grads), jax.tree.leaves(self.trained), strict=True)
            if t
        ]
        return optax.tree.norm(kept)


def param_path(path: Sequence[Any]) -> str:
    """ "a/b/kernel" of a `jax.tree_util` key path."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def match_rules(params: Any, rules: Sequence[ParamRule]) -> Any:
    """Pytree of the first `ParamRule` that matches each parameter. UserError names a parameter that
    none matches.
    """

    def first_match(path: Sequence[Any], _: Any) -> ParamRule:
        name = param_path(path)
        for rule in rules:
            if re.fullmatch(rule.pattern, name):
                return rule
        raise UserError(
            f"no optimizer rule matches parameter {name!r}: add a ParamRule for it "
            "(frozen=True to leave it as it is)"
        )

    return jax.tree_util.tree_map_with_path(first_match, params)


def make_schedule(optim: Any, steps: int) -> Callable[[Any], Any]:
    """Learning rate over steps: linear warm-up from 0, then constant, linear or cosine down to
    `optim.final` x lr at `steps`; or warm-up, stable, decay (`stable_then_decay`).

    Args:
      optim: config with lr, schedule ("cosine" | "linear" | "constant" | "wsd"), decay_share (wsd: of
        all steps), warmup (steps) or warmup_share (of all steps, if above 0), final (fraction of lr).
      steps: length of the run in updates.
    """
    share = getattr(optim, "warmup_share", 0.0)
    warmup = round(share * steps) if share else optim.warmup
    rest = max(steps - warmup, 1)
    shapes = {
        "constant": lambda: optax.constant_schedule(optim.lr),
        "linear": lambda: optax.linear_schedule(optim.lr, optim.lr * optim.final, rest),
        "cosine": lambda: optax.cosine_decay_schedule(optim.lr, rest, alpha=optim.final),
        "wsd": lambda: stable_then_decay(
            optim.lr, rest, decay_steps(optim.decay_share, steps), optim.final
        ),
    }
    if optim.schedule not in shapes:
        raise UserError(f"optim.schedule is {optim.schedule!r}: use one of {', '.join(shapes)}")
    if not warmup:
        return shapes[optim.schedule]()
    # The first update already moves (1/warmup), so that a warm-up of one step is no wasted step.
    warm = optax.linear_schedule(optim.lr / warmup, optim.lr, max(warmup - 1, 1))
    return optax.join_schedules([warm, shapes[optim.schedule]()], [warmup])


def decay_steps(share: float, steps: int) -> int:
    """Updates of a run of `steps` in which the "wsd" schedule lowers the rate."""
    return round(share * steps)


def stable_then_decay(lr: float, steps: int, decay: int, final: float) -> Callable[[Any], Any]:
    """Constant, and over the last `decay` of `steps` updates down to final x lr by 1 - sqrt(share of
    the decay), which ended lower than a straight line (Haegele et al. 2024, arXiv 2405.18392).

    What comes before the decay does not depend on `steps`: runs of all lengths share it, and one run
    gives them all by a branch with a decay from each of its checkpoints.
    """
    decay = min(decay, steps)
    start = steps - decay

    def rate(step: Any) -> Any:
        share = jnp.clip((step - start) / max(decay, 1), 0.0, 1.0) if decay else 0.0
        return lr * (final + (1.0 - final) * (1.0 - jnp.sqrt(share)))

    return rate


def make_optimizer(optim: Any, steps: int, params: Any, rules: Sequence[ParamRule]) -> Optimizer:
    """AdamW over the parameters the rules do not freeze.

    Args:
      optim: config with lr, schedule, warmup, warmup_share, final, b1, b2, eps, weight_decay, clip (global norm;
        0 = off).
      params: arrays or `ShapeDtypeStruct`s; only paths and shapes are read.
    """
    rules_of = match_rules(params, rules)
    schedule = make_schedule(optim, steps)

    def decay_of(path: Sequence[Any], leaf: Any, rule: ParamRule) -> float:
        if rule.weight_decay is not None:
            return rule.weight_decay
        return (
            0.0 if leaf.ndim < 2 or _UNDECAYED_NAME.search(param_path(path)) else optim.weight_decay
        )

    is_rule = lambda x: isinstance(x, ParamRule)
    trained = jax.tree.map(lambda rule: not rule.frozen, rules_of, is_leaf=is_rule)
    # Like what `optax.partition` hands to the transformation of the trained ones:
    # nothing where a parameter is frozen.
    masked = lambda values: jax.tree.map(
        lambda value, t: value if t else optax.MaskedNode(), values, trained
    )
    decays = masked(jax.tree_util.tree_map_with_path(decay_of, params, rules_of))
    factors = masked(jax.tree.map(lambda rule: rule.lr, rules_of, is_leaf=is_rule))
    adamw = optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        optax.scale_by_adam(b1=optim.b1, b2=optim.b2, eps=optim.eps),
        # Not masks of `add_decayed_weights` and `scale`: one for each number that a rule gives
        # would change the state's tree on disk.
        optax.stateless(
            lambda updates, params: jax.tree.map(
                lambda u, p, d: u + d * p if d else u, updates, params, decays
            )
        ),
        optax.stateless(
            lambda updates, _: jax.tree.map(lambda u, factor: u * factor, updates, factors)
        ),
        optax.scale_by_learning_rate(schedule),
    )
    labels = jax.tree.map(lambda t: "trained" if t else "frozen", trained)
    return Optimizer(
        optax.partition({"trained": adamw, "frozen": optax.set_to_zero()}, labels),
        schedule,
        trained,
    )


def ema_update(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Moving average of parameters; the decay ramps up as (1 + step) / (10 + step), so that a short
    run is averaged too.

    Not `optax.incremental_update`: its r * p + (1 - r) * e moves an average that equals its
    parameter.
    """
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: e + (1.0 - rate).astype(e.dtype) * (p - e), ema, params)
