import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.training import multi_token_loss

EOS = 7
TOKENS = jnp.array([[3, 1, 4, 1], [5, 2, 0, 0]])
LENS = jnp.array([4, 2])
LOGITS = [jax.random.normal(jax.random.key(k), (2, 5, 8)) for k in range(4)]


def test_targets_end_with_eos():
    targets, weight = multi_token_loss.next_tokens(TOKENS, LENS, EOS)
    assert targets[0].tolist() == [3, 1, 4, 1, EOS] and targets[1, :3].tolist() == [5, 2, EOS]
    assert weight.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert multi_token_loss.ahead(targets, 2)[0].tolist() == [4, 1, EOS, 0, 0]
    assert multi_token_loss.ahead(weight, 2).tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert multi_token_loss.ahead(weight, 9).tolist() == [[0] * 5] * 2


def test_each_head_is_a_mean_of_its_own_weighed_by_its_distance():
    parts = multi_token_loss.cross_entropies(
        LOGITS, *multi_token_loss.next_tokens(TOKENS, LENS, EOS)
    )
    sequences = [[3, 1, 4, 1, EOS], [5, 2, EOS]]
    expected = 0.0
    for k, logits in enumerate(LOGITS):
        logp = np.asarray(jax.nn.log_softmax(logits))
        nats = [
            -logp[row, p, sequence[p + k]]
            for row, sequence in enumerate(sequences)
            for p in range(len(sequence) - k)
        ]
        np.testing.assert_allclose(parts[k], (sum(nats), len(nats)), rtol=1e-5)
        expected += 0.8**k * np.mean(nats)
    np.testing.assert_allclose(multi_token_loss.total(parts), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("segment", "k", "counted"),
    [
        ([1, 1, 1, 2, 2, 2, 0, 0], 0, [1, 1, 1, 1, 1, 1, 0, 0]),
        ([1, 1, 1, 2, 2, 2, 0, 0], 1, [1, 1, 0, 1, 1, 0, 0, 0]),
        ([1, 1, 1, 2, 2, 2, 0, 0], 2, [1, 0, 0, 1, 0, 0, 0, 0]),
        ([1, 1, 1, 2, 2, 2, 0, 0], 3, [0, 0, 0, 0, 0, 0, 0, 0]),
        ([1, 2, 1, 2, 3, 3, 3, 3], 2, [1, 1, 0, 0, 1, 1, 0, 0]),
        ([1, 1, 1, 1, 1, 1, 1, 1], 5, [1, 1, 1, 0, 0, 0, 0, 0]),
        ([1, 1, 1, 1, 1, 1, 1, 1], 9, [0, 0, 0, 0, 0, 0, 0, 0]),
        (None, 2, [1, 1, 1, 1, 0, 0, 0, 0]),
    ],
)
def test_no_head_predicts_over_the_end_of_an_utterance(segment, k, counted):
    at, valid = jnp.arange(8)[None], jnp.array([[1.0] * 6 + [0.0, 0.0]])
    valid = jnp.ones((1, 8)) if segment and 0 not in segment else valid
    segment = None if segment is None else jnp.array([segment])
    targets, weight = multi_token_loss.head_targets(at, valid, k, segment)
    assert weight.tolist() == [counted]
    assert all(t == p + k for p, (t, w) in enumerate(zip(targets[0], weight[0], strict=True)) if w)


def test_padding_and_heads_without_a_target_have_no_part():
    targets, weight = multi_token_loss.next_tokens(TOKENS, LENS, EOS)
    spoilt = [
        jnp.where(multi_token_loss.ahead(weight, k)[..., None] > 0, one, jnp.nan)
        for k, one in enumerate(LOGITS)
    ]
    far = [
        *spoilt,
        *[jnp.full_like(LOGITS[0], jnp.nan)] * 2,
    ]  # head 5 has nothing to predict in five positions; head 4 only the longest row's eos
    far[4] = LOGITS[0]
    loss = lambda logits: multi_token_loss.total(
        multi_token_loss.cross_entropies(logits, targets, weight)
    )
    np.testing.assert_allclose(
        loss(far) - loss(LOGITS), 0.8**4 * -jax.nn.log_softmax(LOGITS[0])[0, 0, EOS], rtol=1e-4
    )
    gradient = jax.grad(loss)(LOGITS)
    assert all(
        (jnp.any(g != 0, axis=-1) == (multi_token_loss.ahead(weight, k) > 0)).all()
        for k, g in enumerate(gradient)
    )
