"""The maximal update parametrisation of the Talker: which rates its kinds of parameters have, and that
it is the standard one at the base width.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.nn.attention import Attention
from mdmspeech.training import mup
from mdmspeech.training.config import base
from mdmspeech.training.optim import make_optimizer, match_rules, param_path

KINDS = {
    "paced": dict(anchors="paced", symbols=20, symbol_lookahead=(2, 2)),
    "fixed": dict(anchors="fixed", text_dim=48),
    "prefix": dict(anchors="prefix", text_vocab_size=70),
    "no codes": dict(anchors="paced", structured_codes=False, qkv_bias=True, output_bias=True),
    "few kv heads": dict(anchors="fixed", text_dim=96, num_kv_heads=2, qk_norm=False),
    "multi-token": dict(anchors="paced", symbols=20, symbol_lookahead=(2, 2), mtp_modules=2),
    "deep": dict(anchors="prefix", text_vocab_size=9, num_layers=3),
}


def config_of(dim, **more):
    sizes = dict(num_layers=2, num_heads=dim // 32, ffn_dim=4 * dim, base_dim=64) | more
    return talker.TalkerConfig(dim=dim, **sizes)


def shapes_of(config):
    return jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))


@pytest.mark.parametrize("kind", KINDS)
def test_rates_fall_where_both_sides_grow_and_nowhere_else(kind):
    """Found by the shapes at two widths, not by names. The output table is stored by its rows: it has
    the model's factor instead.
    """
    narrow, wide = config_of(128, **KINDS[kind]), config_of(256, **KINDS[kind])
    before, after = shapes_of(narrow), shapes_of(wide)
    matched = match_rules(after, mup.rules(wide, 0.05))
    rules = jax.tree.leaves(matched, is_leaf=lambda x: hasattr(x, "pattern"))
    seen = 0
    for (path, a), b, rule in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), rules, strict=True
    ):
        # keys and values of few heads: their number is given, but grows with the width in a family
        grown = len(a.shape) == 2 and sum(x != y for x, y in zip(a.shape, b.shape, strict=True))
        few = kind == "few kv heads" and re.search("attn/[kv]/kernel", param_path(path))
        assert rule.lr == (0.25 if grown == 2 or few else 1.0), param_path(path)
        seen += rule.lr == 0.25
    assert seen >= 14


@pytest.mark.parametrize("width", [32, 64, 128, 512, 4096])
def test_what_decay_takes_off_does_not_depend_on_the_width(width):
    hidden, *others = mup.rules(config_of(width), 0.05)
    assert hidden.lr * hidden.weight_decay == pytest.approx(0.05)
    assert hidden.lr == pytest.approx(64 / width)
    assert all(rule.lr == 1.0 and rule.weight_decay is None for rule in others)


def test_the_rules_reach_the_optimiser():
    config = config_of(128, symbols=20, symbol_lookahead=(2,))
    params = jax.tree.map(lambda s: jnp.ones((1,) * len(s.shape)), shapes_of(config))
    optim = base().optim
    optim.update(lr=1.0, schedule="constant", warmup=0, weight_decay=0.0, eps=1e-12)
    tx = make_optimizer(optim, 9, params, mup.rules(config, 0.0)).tx
    moved, _ = tx.update(params, tx.init(params), params)
    assert float(moved["layers_0"]["mlp"]["down"]["kernel"].ravel()[0]) == pytest.approx(-0.5)
    assert float(moved["layers_0"]["mlp_norm"]["scale"].ravel()[0]) == pytest.approx(-1.0)
    assert float(moved["inputs"]["digits"].ravel()[0]) == pytest.approx(-1.0)


def test_a_kind_that_nobody_placed_is_named():
    config = config_of(64)
    with pytest.raises(UserError, match="new_thing"):
        match_rules({"new_thing": {"kernel": jnp.ones((2, 2))}}, mup.rules(config, 0.0))
    with pytest.raises(UserError, match="base_dim"):
        mup.rules(dataclasses.replace(config, base_dim=0), 0.0)


@pytest.mark.parametrize("kind", ["paced", "prefix"])
def test_at_the_base_width_it_is_the_same_program(kind):
    plain = config_of(64, num_layers=1, **KINDS[kind])
    plain = dataclasses.replace(plain, base_dim=0)
    program = lambda config: str(
        jax.make_jaxpr(
            lambda params: talker.Talker(config).apply({"params": params}, method="initialise")
        )(shapes_of(config))
    )
    forms = [re.sub("0x[0-9a-f]+", "", program(c)) for c in (
        plain,
        dataclasses.replace(plain, base_dim=64, base_head_dim=plain.head_dim),
        dataclasses.replace(plain, base_dim=32),
        dataclasses.replace(plain, base_dim=64, base_head_dim=2 * plain.head_dim),
    )]  # fmt: skip
    assert forms[0] == forms[1] and forms[2] != forms[0] != forms[3]


def test_scores_go_by_the_head_size_and_logits_by_the_width():
    config = config_of(128, num_heads=8, base_head_dim=64)
    # sqrt(64) / D, which is 1 / sqrt(D) where D is 64
    assert config.score_scale / np.sqrt(16) == pytest.approx(np.sqrt(64) / 16)
    assert config.output_scale == 0.5
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 16)), jnp.float32)
    mask = jnp.ones((1, 5, 5), bool)
    scaled, plain = (Attention(2, 2, 8, score_scale=s) for s in (2.0, 1.0))
    params = plain.init(jax.random.key(0), x, mask)["params"]
    twice = {**params, "q": {"kernel": 2.0 * params["q"]["kernel"]}}
    np.testing.assert_allclose(
        scaled.apply({"params": params}, x, mask)[0],
        plain.apply({"params": twice}, x, mask)[0],
        rtol=1e-5,
    )
