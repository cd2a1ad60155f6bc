import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mdmspeech.diffusion import objective

LOGITS = jax.random.normal(jax.random.key(0), (4, 6, 9)) * 2
TARGETS = jax.random.randint(jax.random.key(1), (4, 6), 0, 9)
MASK = jax.random.bernoulli(jax.random.key(2), 0.5, (4, 6))


def _log_softmax(logits):
    x = np.asarray(logits, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_loss_is_the_mean_over_hidden_tokens_only():
    logp = _log_softmax(LOGITS)
    total, weight = objective.masked_cross_entropy(LOGITS, TARGETS, MASK.astype(jnp.float32))
    expected = -np.take_along_axis(logp, np.asarray(TARGETS)[..., None], -1)[..., 0][np.asarray(MASK)]
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)
    assert weight == MASK.sum()


def test_shown_tokens_and_padding_have_no_part():
    weight = MASK.astype(jnp.float32)
    spoilt = jnp.where(MASK[..., None], LOGITS, jnp.nan)
    targets = jnp.where(MASK, TARGETS, -100)
    assert objective.masked_cross_entropy(spoilt, targets, weight)[0] == objective.masked_cross_entropy(LOGITS, TARGETS, weight)[0]
    gradient = jax.grad(lambda x: objective.masked_cross_entropy(x, TARGETS, weight)[0])(LOGITS)
    assert (jnp.any(gradient != 0, axis=-1) == MASK).all()


def test_sums_add_over_micro_batches_where_means_would_not():
    weight = MASK.astype(jnp.float32).at[0].set(0.0).at[0, 0].set(1.0)
    whole = objective.masked_cross_entropy(LOGITS, TARGETS, weight)
    parts = [objective.masked_cross_entropy(LOGITS[i : i + 1], TARGETS[i : i + 1], weight[i : i + 1]) for i in range(4)]
    total, weights = (sum(p[i] for p in parts) for i in range(2))
    np.testing.assert_allclose([total, weights], whole, rtol=1e-6)
    assert abs(np.mean([p[0] / p[1] for p in parts]) - whole[0] / whole[1]) > 1e-3


def test_weights_scale_their_tokens():
    weight = jnp.where(MASK, 1.0, 0.0).at[1].multiply(3.0)
    by_row = [objective.masked_cross_entropy(LOGITS[i], TARGETS[i], MASK[i].astype(jnp.float32))[0] for i in range(4)]
    total, _ = objective.masked_cross_entropy(LOGITS, TARGETS, weight)
    np.testing.assert_allclose(total, by_row[0] + 3 * by_row[1] + by_row[2] + by_row[3], rtol=1e-5)


def test_label_smoothing_and_z_loss_against_their_definitions():
    logp, weight, e = _log_softmax(LOGITS), MASK.astype(jnp.float32), 0.1
    target = (1 - e) * np.eye(9)[np.asarray(TARGETS)] + e / 9
    expected = -(target * logp).sum(-1)[np.asarray(MASK)].sum()
    np.testing.assert_allclose(objective.masked_cross_entropy(LOGITS, TARGETS, weight, label_smoothing=e)[0], expected, rtol=1e-5)
    log_z = np.log(np.exp(np.asarray(LOGITS, np.float64)).sum(-1))[np.asarray(MASK)]
    plain = objective.masked_cross_entropy(LOGITS, TARGETS, weight)[0]
    np.testing.assert_allclose(
        objective.masked_cross_entropy(LOGITS, TARGETS, weight, z_loss=0.01)[0] - plain, 0.01 * (log_z**2).sum(), rtol=1e-3
    )


def test_gathered_positions_give_the_same_loss_and_gradient():
    states = jax.random.normal(jax.random.key(3), (4, 6, 5))
    out = jax.random.normal(jax.random.key(4), (5, 9))
    weight = MASK * jnp.linspace(0.5, 2.0, 24).reshape(4, 6)

    def dense(out):
        return objective.masked_cross_entropy(states @ out, TARGETS, weight)

    def gathered(out):
        index, keep = objective.gather_masked(MASK, 20)
        logits = objective.gather(states, index) @ out
        return objective.masked_cross_entropy(logits, objective.gather(TARGETS, index), objective.gather(weight, index) * keep)

    np.testing.assert_allclose(jax.jit(gathered)(out), dense(out), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda o: gathered(o)[0])(out), jax.grad(lambda o: dense(o)[0])(out), atol=1e-4)


def test_gather_lists_hidden_places_in_order_and_reports_overflow():
    index, keep = objective.gather_masked(MASK, 24)
    hidden = np.flatnonzero(np.asarray(MASK).reshape(-1))
    np.testing.assert_array_equal(np.asarray(index)[np.asarray(keep)], hidden)
    assert keep.sum() == len(hidden) and objective.overflow(MASK, index) == 0
    index, keep = objective.gather_masked(MASK, 3)
    np.testing.assert_array_equal(index[0], hidden[:3])
    assert keep.all() and objective.overflow(MASK, index) == len(hidden) - 3


def test_many_rows_are_gathered_in_groups():
    assert [objective.groups_of(rows) for rows in (1, 16, 24, 32, 40, 48, 17, 512)] == [1, 1, 1, 2, 2, 3, 1, 32]
    mask = jax.random.bernoulli(jax.random.key(5), 0.6, (48, 10))
    values = jnp.arange(480).reshape(48, 10)
    index, keep = objective.gather_masked(mask, 3 * 140)
    assert index.shape == keep.shape == (3, 140) and objective.overflow(mask, index) == 0
    found = objective.gather(values, index)
    np.testing.assert_array_equal(np.sort(found[keep]), np.asarray(values)[np.asarray(mask)])
    np.testing.assert_array_equal(found[1] // 160, jnp.where(keep[1], 1, found[1, -1] // 160), "a group's own rows")
    back = objective.scatter(found, index, keep, mask.shape, -1)
    np.testing.assert_array_equal(back, jnp.where(mask, values, -1))
    few, kept = objective.gather_masked(mask, 3 * 80)
    lost = np.maximum(np.asarray(mask).reshape(3, 160).sum(axis=1) - 80, 0)
    assert objective.overflow(mask, few) == lost.sum() > 0 and kept.sum() == np.asarray(mask).sum() - lost.sum()


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
        total, weight = objective.masked_cross_entropy(logits, objective.gather(guess, index), keep)
        return total / weight

    text = jax.jit(jax.grad(loss)).lower(out, state, mask).compile().as_text()
    assert "all-reduce" in text, "of the gradient"
    assert not [kind for kind in ("all-gather", "all-to-all", "collective-permute") if kind in text]


def test_accuracy_counts_hits_on_hidden_tokens():
    hits, count = objective.accuracy(LOGITS, TARGETS, MASK * 2.5)
    expected = (np.argmax(np.asarray(LOGITS), -1) == np.asarray(TARGETS))[np.asarray(MASK)]
    assert hits == expected.sum() and count == len(expected)


@pytest.mark.parametrize("settings", [{}, dict(label_smoothing=0.1, z_loss=1e-2)])
@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_the_chunked_loss_is_the_whole_one_with_its_gradient(chunk, settings):
    rng = np.random.default_rng(0)
    hidden, table = jnp.asarray(rng.normal(size=(2, 7, 5)), jnp.float32), jnp.asarray(rng.normal(size=(5, 11)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 11, (2, 7))).at[0, 0].set(-1)
    weight = jnp.asarray(rng.random((2, 7)), jnp.float32).at[0, 0].set(0.0).at[1, 5:].set(0.0)

    def whole(hidden, table):
        logits = hidden @ table
        return objective.masked_cross_entropy(logits, targets, weight, **settings), objective.accuracy(logits, targets, weight)

    def chunked(hidden, table):
        parts = objective.projected_cross_entropy(hidden, lambda h: h @ table, targets, weight, chunk, **settings)
        return parts["loss"], parts["accuracy"]

    np.testing.assert_allclose(np.ravel(chunked(hidden, table)), np.ravel(whole(hidden, table)), rtol=1e-5)
    grads = [jax.grad(lambda h, t, f=f: f(h, t)[0][0], argnums=(0, 1))(hidden, table) for f in (whole, chunked)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)


def test_the_chunked_loss_never_holds_all_logits():
    hidden, targets = jnp.zeros((2, 64, 8)), jnp.zeros((2, 64), jnp.int32)

    def loss(table):
        return objective.projected_cross_entropy(hidden, lambda h: h @ table, targets, jnp.ones((2, 64)), 8)["loss"][0]

    text = str(jax.make_jaxpr(jax.grad(loss))(jnp.zeros((8, 1000))))
    assert "2,8,1000" in text and "2,64,1000" not in text
