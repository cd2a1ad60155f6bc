import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.diffusion import unmasking
from mdmspeech.errors import UserError

LOGITS = jax.random.normal(jax.random.key(0), (3, 5, 11)) * 3


def _probabilities(logits):
    p = np.exp(np.asarray(logits, np.float64))
    return p / p.sum(-1, keepdims=True)


def test_scores_against_their_definitions():
    p = _probabilities(LOGITS)
    falling = -np.sort(-p, axis=-1)
    np.testing.assert_allclose(
        np.exp(unmasking.max_probability(LOGITS)), falling[..., 0], rtol=1e-5
    )
    np.testing.assert_allclose(
        np.exp(unmasking.margin(LOGITS)), falling[..., 0] - falling[..., 1], rtol=1e-4
    )
    np.testing.assert_allclose(unmasking.entropy(LOGITS), (p * np.log(p)).sum(-1), rtol=1e-4)


@pytest.mark.parametrize("name", list(unmasking.SCORES))
def test_scores_do_not_care_for_an_additive_constant(name):
    rule = unmasking.score_rule(name)
    np.testing.assert_allclose(rule(LOGITS), rule(LOGITS + 5.0), atol=1e-4)


@pytest.mark.parametrize("name", list(unmasking.SCORES))
def test_mass_on_forbidden_ids_counts_as_doubt(name):
    """A position that wants to end (EOS, forbidden here) is not sure of its second choice."""
    rule, allowed = unmasking.score_rule(name), jnp.array([[True, True, True, False]])
    wants_code = jnp.log(jnp.array([[0.90, 0.05, 0.04, 0.01]]))
    wants_end = jnp.log(jnp.array([[0.0090, 0.0005, 0.0004, 0.9901]]))
    assert rule(wants_end, allowed) < rule(wants_code, allowed) - 1.0
    p = _probabilities(wants_end)[0]
    if name == "max_probability":
        np.testing.assert_allclose(np.exp(rule(wants_end, allowed)), p[:1], rtol=1e-4)
    if name == "margin":
        np.testing.assert_allclose(np.exp(rule(wants_end, allowed)), p[0] - p[1], rtol=1e-4)
    if name == "entropy":
        inner = p[:3] / p[:3].sum()
        np.testing.assert_allclose(
            rule(wants_end, allowed)[0],
            (inner * np.log(inner)).sum() + np.log(p[:3].sum()),
            rtol=1e-4,
        )


def test_near_certain_positions_do_not_tie():
    """The float32 probability of all three is 1.0; their order must still be by certainty, not left
    to right.
    """
    logits = jnp.array([[20.0, 0.0], [40.0, 0.0], [30.0, 0.0]])
    assert (np.exp(np.asarray(jax.nn.log_softmax(logits)[:, 0])) == 1.0).sum() >= 2
    for rule in (unmasking.max_probability, unmasking.margin):
        assert list(np.argsort(-np.asarray(rule(logits)))) == [1, 2, 0]


def test_candidate_is_the_best_allowed_id():
    allowed = jnp.ones((1, 1, 11), bool).at[0, 0, 4].set(False)
    ids = unmasking.candidate(LOGITS.at[0, 0, 4].set(99.0), allowed)
    assert ids[0, 0] == np.argmax(np.delete(np.asarray(LOGITS[0, 0]), 4)) + (
        np.argmax(np.delete(np.asarray(LOGITS[0, 0]), 4)) >= 4
    )


def test_quotas_add_up_and_are_even():
    for total, steps in itertools.product(range(17), range(1, 17)):
        left, shares = total, []
        for j in range(steps):
            share = int(unmasking.num_to_unmask(left, steps - j))
            assert share == -(-left // (steps - j))
            shares.append(share)
            left -= share
        assert left == 0 and sum(shares) == total
        assert max(shares) - min(shares) <= 1
    assert (
        int(unmasking.num_to_unmask(jnp.int32(7), jnp.int32(0))) == 7
        and int(unmasking.num_to_unmask(jnp.int32(7), jnp.int32(-3))) == 7
    )


def test_select_takes_exactly_the_best_masked_ones():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 4, size=9).astype(np.float32)  # many ties
        masked = rng.random(9) < 0.6
        count = int(rng.integers(0, 11))
        chosen = np.asarray(
            unmasking.select(jnp.asarray(scores), jnp.asarray(masked), jnp.int32(count))
        )
        order = sorted(np.flatnonzero(masked), key=lambda i: (-scores[i], i))
        assert sorted(order[:count]) == list(np.flatnonzero(chosen))


def test_select_survives_nan_and_minus_infinity():
    scores = jnp.array([jnp.nan, -jnp.inf, 5.0, 1.0])
    masked = jnp.array([True, True, False, True])
    assert list(np.asarray(unmasking.select(scores, masked, jnp.int32(1)))) == [
        False,
        False,
        False,
        True,
    ]
    assert list(np.asarray(unmasking.select(scores, masked, jnp.int32(3)))) == [
        True,
        True,
        False,
        True,
    ]


def test_threshold_counts_the_sure_ones_and_at_least_one():
    scores = jnp.log(jnp.array([[0.95, 0.5, 0.99], [0.2, 0.1, 0.3], [0.99, 0.99, 0.99]]))
    masked = jnp.array([[True, True, True], [True, True, False], [False, False, False]])
    np.testing.assert_array_equal(unmasking.threshold(scores, masked, np.log(0.9)), [2, 1, 0])


def test_entropy_bound_takes_the_longest_prefix_within_the_bound():
    rng = np.random.default_rng(1)
    for _ in range(30):
        entropies, masked = rng.random(8).astype(np.float32), rng.random(8) < 0.7
        bound = float(rng.random() * 2)
        order = [i for i in np.argsort(entropies) if masked[i]]
        best = 1 if order else 0
        for n in range(1, len(order) + 1):
            chosen = entropies[order[:n]]
            if chosen.sum() - chosen.max() <= bound:
                best = n
        got = unmasking.entropy_bound(
            jnp.asarray(entropies), -jnp.asarray(entropies), jnp.asarray(masked), bound
        )
        assert int(got) == best


def test_unknown_score_is_named():
    with pytest.raises(UserError, match=r"'luck'.*max_probability"):
        unmasking.score_rule("luck")
