"""Losses over a vocabulary against their definitions; sums that add over micro-batches; the chunked
form is the whole one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.nn import losses

LOGITS = jax.random.normal(jax.random.key(0), (4, 6, 9)) * 2
TARGETS = jax.random.randint(jax.random.key(1), (4, 6), 0, 9)
MASK = jax.random.bernoulli(jax.random.key(2), 0.5, (4, 6))


def _log_softmax(logits):
    x = np.asarray(logits, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_sums_add_over_micro_batches_where_means_would_not():
    weight = MASK.astype(jnp.float32).at[0].set(0.0).at[0, 0].set(1.0)
    whole = losses.weighted_cross_entropy(LOGITS, TARGETS, weight)
    parts = [
        losses.weighted_cross_entropy(LOGITS[i : i + 1], TARGETS[i : i + 1], weight[i : i + 1])
        for i in range(4)
    ]
    total, weights = (sum(p[i] for p in parts) for i in range(2))
    np.testing.assert_allclose([total, weights], whole, rtol=1e-6)
    assert abs(np.mean([p[0] / p[1] for p in parts]) - whole[0] / whole[1]) > 1e-3


def test_weights_scale_their_tokens():
    weight = jnp.where(MASK, 1.0, 0.0).at[1].multiply(3.0)
    by_row = [
        losses.weighted_cross_entropy(LOGITS[i], TARGETS[i], MASK[i].astype(jnp.float32))[0]
        for i in range(4)
    ]
    total, _ = losses.weighted_cross_entropy(LOGITS, TARGETS, weight)
    np.testing.assert_allclose(total, by_row[0] + 3 * by_row[1] + by_row[2] + by_row[3], rtol=1e-5)


def test_label_smoothing_and_z_loss_against_their_definitions():
    logp, weight, e = _log_softmax(LOGITS), MASK.astype(jnp.float32), 0.1
    target = (1 - e) * np.eye(9)[np.asarray(TARGETS)] + e / 9
    expected = -(target * logp).sum(-1)[np.asarray(MASK)].sum()
    np.testing.assert_allclose(
        losses.weighted_cross_entropy(LOGITS, TARGETS, weight, label_smoothing=e)[0],
        expected,
        rtol=1e-5,
    )
    log_z = np.log(np.exp(np.asarray(LOGITS, np.float64)).sum(-1))[np.asarray(MASK)]
    plain = losses.weighted_cross_entropy(LOGITS, TARGETS, weight)[0]
    np.testing.assert_allclose(
        losses.weighted_cross_entropy(LOGITS, TARGETS, weight, z_loss=0.01)[0] - plain,
        0.01 * (log_z**2).sum(),
        rtol=1e-3,
    )


def test_accuracy_counts_hits_where_there_is_weight():
    hits, count = losses.accuracy(LOGITS, TARGETS, MASK * 2.5)
    expected = (np.argmax(np.asarray(LOGITS), -1) == np.asarray(TARGETS))[np.asarray(MASK)]
    assert hits == expected.sum() and count == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, dict(label_smoothing=0.1, z_loss=1e-2)])
@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_the_chunked_loss_is_the_whole_one_with_its_gradient(chunk, settings):
    rng = np.random.default_rng(0)
    hidden, table = (
        jnp.asarray(rng.normal(size=(2, 7, 5)), jnp.float32),
        jnp.asarray(rng.normal(size=(5, 11)), jnp.float32),
    )
    targets = jnp.asarray(rng.integers(0, 11, (2, 7))).at[0, 0].set(-1)
    weight = jnp.asarray(rng.random((2, 7)), jnp.float32).at[0, 0].set(0.0).at[1, 5:].set(0.0)

    def whole(hidden, table):
        logits = hidden @ table
        return losses.weighted_cross_entropy(logits, targets, weight, **settings), losses.accuracy(
            logits, targets, weight
        )

    def chunked(hidden, table):
        parts = losses.projected_cross_entropy(
            hidden, lambda h: h @ table, targets, weight, chunk, **settings
        )
        return parts["loss"], parts["accuracy"]

    np.testing.assert_allclose(
        np.ravel(chunked(hidden, table)), np.ravel(whole(hidden, table)), rtol=1e-5
    )
    grads = [
        jax.grad(lambda h, t, f=f: f(h, t)[0][0], argnums=(0, 1))(hidden, table)
        for f in (whole, chunked)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)


def test_the_chunked_loss_never_holds_all_logits():
    hidden, targets = jnp.zeros((2, 64, 8)), jnp.zeros((2, 64), jnp.int32)

    def loss(table):
        return losses.projected_cross_entropy(
            hidden, lambda h: h @ table, targets, jnp.ones((2, 64)), 8
        )["loss"][0]

    text = str(jax.make_jaxpr(jax.grad(loss))(jnp.zeros((8, 1000))))
    assert "2,8,1000" in text and "2,64,1000" not in text
