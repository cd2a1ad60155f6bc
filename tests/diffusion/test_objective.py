import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mdmspeech.diffusion import objective
from mdmspeech.nn.losses import weighted_cross_entropy

LOGITS = jax.random.normal(jax.random.key(0), (4, 6, 9)) * 2
TARGETS = jax.random.randint(jax.random.key(1), (4, 6), 0, 9)
MASK = jax.random.bernoulli(jax.random.key(2), 0.5, (4, 6))


def _log_softmax(logits):
    x = np.asarray(logits, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_loss_is_the_mean_over_hidden_tokens_only():
    logp = _log_softmax(LOGITS)
    total, weight = weighted_cross_entropy(LOGITS, TARGETS, MASK.astype(jnp.float32))
    losses = -np.take_along_axis(logp, np.asarray(TARGETS)[..., None], -1)[..., 0]
    expected = losses[np.asarray(MASK)]
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)
    assert weight == MASK.sum()


def test_shown_tokens_and_padding_have_no_part():
    weight = MASK.astype(jnp.float32)
    spoilt = jnp.where(MASK[..., None], LOGITS, jnp.nan)
    targets = jnp.where(MASK, TARGETS, -100)
    assert (
        weighted_cross_entropy(spoilt, targets, weight)[0]
        == weighted_cross_entropy(LOGITS, TARGETS, weight)[0]
    )
    gradient = jax.grad(lambda x: weighted_cross_entropy(x, TARGETS, weight)[0])(LOGITS)
    assert (jnp.any(gradient != 0, axis=-1) == MASK).all()


def test_gathered_positions_give_the_same_loss_and_gradient():
    states = jax.random.normal(jax.random.key(3), (4, 6, 5))
    out = jax.random.normal(jax.random.key(4), (5, 9))
    weight = MASK * jnp.linspace(0.5, 2.0, 24).reshape(4, 6)

    def dense(out):
        return weighted_cross_entropy(states @ out, TARGETS, weight)

    def gathered(out):
        index, keep = objective.gather_masked(MASK, 20)
        logits = objective.gather(states, index) @ out
        return weighted_cross_entropy(
            logits, objective.gather(TARGETS, index), objective.gather(weight, index) * keep
        )

    np.testing.assert_allclose(jax.jit(gathered)(out), dense(out), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda o: gathered(o)[0])(out), jax.grad(lambda o: dense(o)[0])(out), atol=1e-4
    )


def test_gather_lists_hidden_places_in_order_and_reports_overflow():
    index, keep = objective.gather_masked(MASK, 24)
    hidden = np.flatnonzero(np.asarray(MASK).reshape(-1))
    np.testing.assert_array_equal(np.asarray(index)[np.asarray(keep)], hidden)
    assert keep.sum() == len(hidden) and objective.overflow(MASK, index) == 0
    index, keep = objective.gather_masked(MASK, 3)
    np.testing.assert_array_equal(index[0], hidden[:3])
    assert keep.all() and objective.overflow(MASK, index) == len(hidden) - 3


def test_many_rows_are_gathered_in_groups():
    assert [objective.groups_of(rows) for rows in (1, 16, 24, 32, 40, 48, 17, 512)] == [
        1,
        1,
        1,
        2,
        2,
        3,
        1,
        32,
    ]
    mask = jax.random.bernoulli(jax.random.key(5), 0.6, (48, 10))
    values = jnp.arange(480).reshape(48, 10)
    index, keep = objective.gather_masked(mask, 3 * 140)
    assert index.shape == keep.shape == (3, 140) and objective.overflow(mask, index) == 0
    found = objective.gather(values, index)
    np.testing.assert_array_equal(np.sort(found[keep]), np.asarray(values)[np.asarray(mask)])
    np.testing.assert_array_equal(
        found[1] // 160, jnp.where(keep[1], 1, found[1, -1] // 160), "a group's own rows"
    )
    back = objective.scatter(found, index, keep, mask.shape, -1)
    np.testing.assert_array_equal(back, jnp.where(mask, values, -1))
    few, kept = objective.gather_masked(mask, 3 * 80)
    lost = np.maximum(np.asarray(mask).reshape(3, 160).sum(axis=1) - 80, 0)
    assert (
        objective.overflow(mask, few) == lost.sum() > 0
        and kept.sum() == np.asarray(mask).sum() - lost.sum()
    )


def test_on_many_devices_no_position_leaves_its_own():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    state = jax.ShapeDtypeStruct((128, 32, 64), jnp.float32, sharding=rows)
    mask = jax.ShapeDtypeStruct((128, 32), bool, sharding=rows)
    out = jax.ShapeDtypeStruct((64, 96), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))

    def loss(out, state, mask):
        index, keep = objective.gather_masked(mask, 128 * 24)
        logits = objective.gather(state, index) @ out
        guess = objective.scatter(jnp.argmax(logits, axis=-1), index, keep, mask.shape, 0)
        total, weight = weighted_cross_entropy(logits, objective.gather(guess, index), keep)
        return total / weight

    text = jax.jit(jax.grad(loss)).lower(out, state, mask).compile().as_text()
    assert "all-reduce" in text, "of the gradient"
    assert not [kind for kind in ("all-gather", "all-to-all", "collective-permute") if kind in text]
