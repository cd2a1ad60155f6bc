"""Rules, schedules and decay of the optimiser."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.errors import UserError
from mdmspeech.training.config import base
from mdmspeech.training.optim import ParamRule, make_optimizer, make_schedule

PARAMS = {
    "embed": {"embedding": jnp.ones((4, 2))},
    "layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))},
    "norm": {"scale": jnp.ones((2,))},
    "head": {"kernel": jnp.ones((2, 2))},
}


def updates(rules, gradient=0.0, **optim):
    config = base().optim
    config.update(dict(lr=0.1, schedule="constant", warmup=0, weight_decay=0.5) | optim)
    optimizer = make_optimizer(config, 10, PARAMS, rules)
    grads = jax.tree.map(lambda p: jnp.full(p.shape, gradient), PARAMS)
    out, _ = optimizer.tx.update(grads, optimizer.tx.init(PARAMS), PARAMS)
    return jax.tree.map(lambda u: float(u.ravel()[0]), out), optimizer, grads


def test_only_matrices_decay_by_default():
    got, _, _ = updates((ParamRule(".*"),))
    assert got["layer"]["kernel"] == pytest.approx(-0.05) == got["head"]["kernel"]
    assert got["layer"]["bias"] == got["norm"]["scale"] == got["embed"]["embedding"] == 0.0


def test_of_the_stages_only_matrices_of_layers_decay(tmp_path):
    """Tables of ids, positions and speech codes stay, products decay: of each kind of stage one."""
    decayed, kept = set(), set()
    for name in ("compact_hearing", "compact_talker", "thinker_06b", "aligner"):
        config = load_config(f"{Path(__file__).parents[2] / 'experiments' / name}.py:runlocal")
        config.optim.update(dict(lr=1.0, schedule="constant", warmup=0, weight_decay=0.5))
        params = jax.eval_shape(make_task(config, tmp_path / "run").init, jax.random.key(0))
        ones = jax.tree.map(lambda leaf: jnp.ones((1,) * len(leaf.shape)), params)
        transform = make_optimizer(config.optim, 10, ones, (ParamRule(".*"),)).tx
        moved, _ = transform.update(jax.tree.map(jnp.zeros_like, ones), transform.init(ones), ones)
        for name, leaf in flatten_dict(moved, sep="/").items():
            kind = (
                "/".join(name.split("/")[-2:])
                if name.endswith(("table", "digits"))
                else name.rsplit("/", 1)[-1]
            )
            (decayed if float(leaf.ravel()[0]) else kept).add(kind)
    tables = {
        "inputs/table",
        "inputs/digits",
        "outputs/table",
        "outputs/digits",
        "embedding",
        "positions",
    }
    assert decayed == {"kernel", "lora_a", "lora_b"}
    assert tables < kept and not {
        name for name in kept - tables if not name.endswith(("bias", "scale", "null", "start"))
    }, kept


def test_rules_change_rate_and_decay_and_the_first_match_wins():
    got, _, _ = updates(
        (
            ParamRule("head/.*", lr=0.1, weight_decay=1.0),
            ParamRule("embed/.*", weight_decay=0.2),
            ParamRule(".*"),
        )
    )
    assert got["head"]["kernel"] == pytest.approx(-0.01)
    assert got["embed"]["embedding"] == pytest.approx(-0.02)
    assert got["layer"]["kernel"] == pytest.approx(-0.05)


def test_each_parameter_has_the_numbers_of_its_own_rule():
    rules = (
        ParamRule("embed/.*", weight_decay=0.2, lr=2.0),
        ParamRule("head/.*", frozen=True),
        ParamRule("layer/bias", weight_decay=1.0),
        ParamRule("layer/kernel", lr=0.5),
        ParamRule("norm/.*", lr=0.0),
    )
    got, _, _ = updates(rules)
    wanted = {
        "embed": {"embedding": -0.04},
        "head": {"kernel": 0.0},
        "layer": {"bias": -0.1, "kernel": -0.025},
        "norm": {"scale": 0.0},
    }
    for path, value in jax.tree_util.tree_leaves_with_path(wanted):
        assert got[path[0].key][path[1].key] == pytest.approx(value), path


def test_frozen_parameters_stay_and_cost_nothing():
    got, optimizer, grads = updates(
        (ParamRule("head/.*", frozen=True), ParamRule(".*")), gradient=1.0
    )
    assert got["head"]["kernel"] == 0.0 and got["layer"]["kernel"] < 0.0
    assert float(optimizer.grad_norm(grads)) == pytest.approx(np.sqrt(8 + 4 + 2 + 2))
    sizes = [x.size for x in jax.tree.leaves(optimizer.tx.init(PARAMS))]
    assert sizes.count(4) == 2  # m and v of layer/kernel only


def test_the_clip_bounds_what_adam_sees():
    _, optimizer, _ = updates((ParamRule(".*"),), clip=1.0)
    _, state = optimizer.tx.update(
        jax.tree.map(lambda p: p * 1e3, PARAMS), optimizer.tx.init(PARAMS), PARAMS
    )
    seen = [x for x in jax.tree.leaves(state) if x.ndim]  # m = 0.1 g, v = 0.02 g^2
    assert max(float(x.max()) for x in seen) < 0.1


def test_an_unclaimed_parameter_is_named():
    with pytest.raises(UserError, match="'head/kernel'"):
        updates((ParamRule("(embed|layer|norm)/.*"),))
    with pytest.raises(UserError, match="'embed/embedding'"):
        # the whole path must match
        updates((ParamRule("embed"), ParamRule("(layer|norm|head)/.*")))


@pytest.mark.parametrize(
    ("name", "middle", "last"),
    [("constant", 1.0, 1.0), ("linear", 0.55, 0.1), ("cosine", 0.55, 0.1)],
)
def test_schedules(name, middle, last):
    config = base().optim
    config.update(dict(lr=1.0, schedule=name, warmup=10, final=0.1))
    schedule = make_schedule(config, 110)
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(9)) == pytest.approx(1.0) == float(schedule(10))
    assert float(schedule(60)) == pytest.approx(middle)
    assert float(schedule(110)) == pytest.approx(last)


def test_an_unknown_schedule_is_named():
    config = base().optim
    config.schedule = "cosin"
    with pytest.raises(UserError, match="cosin"):
        make_schedule(config, 10)
