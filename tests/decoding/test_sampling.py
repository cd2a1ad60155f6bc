"""Drawing a token: filters at their limits, on distributions small enough to count; static and
per-row temperatures draw alike; keys.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import sampling
from mdmspeech.decoding.sampling import SamplingConfig
from mdmspeech.errors import UserError

P = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
LOGITS = jnp.broadcast_to(jnp.log(jnp.asarray(P, jnp.float32)), (2, 3000, 5))
ALL = jnp.ones((2, 3000, 5), bool)
KEYS = jax.random.split(jax.random.key(0), 2)
draw = jax.jit(sampling.sample, static_argnames=("top_k", "top_p"))


@pytest.fixture(scope="module")
def shares():
    """shares(temperature, allowed, top_k, top_p) -> share of each id in row 1 of 2; row 0 is greedy."""

    def run(temperature=1.0, allowed=ALL, top_k=0, top_p=1.0):
        ids = draw(LOGITS, KEYS, jnp.array([0.0, temperature]), top_k, top_p, allowed)
        assert (ids[0] == jnp.argmax(jnp.where(allowed[0], LOGITS[0], -jnp.inf), axis=-1)).all()
        return np.bincount(np.asarray(ids[1]), minlength=5) / 3000

    return run


def test_samples_follow_the_tempered_distribution(shares):
    np.testing.assert_allclose(shares(), P, atol=0.03)
    np.testing.assert_allclose(shares(0.5), P**2 / (P**2).sum(), atol=0.03)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (dict(top_k=2), [0, 1]),
        (dict(top_k=1), [0]),
        (dict(top_k=5), [0, 1, 2, 3, 4]),
        (dict(top_k=99), [0, 1, 2, 3, 4]),
        (dict(top_p=0.75), [0, 1, 2]),  # 0.7 is not yet 0.75
        (dict(top_p=0.69), [0, 1]),
        (dict(top_p=0.01), [0]),
        (dict(top_k=3, top_p=0.6), [0, 1]),
        (dict(top_k=2, top_p=0.56), [0]),  # of the two best, the first has 4/7
    ],
)
def test_kept_tokens_keep_their_proportions(shares, filters, kept):
    expected = np.zeros(5)
    expected[kept] = P[kept] / P[kept].sum()
    found = shares(**filters)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert found[expected == 0].sum() == 0


def test_the_nucleus_may_be_of_all_ids():
    """Of all, 0.75 takes three; of the two best (4/7, 3/7), 0.56 takes one, but of all two."""
    of = lambda **how: set(
        np.asarray(sampling.sample(LOGITS, KEYS, jnp.ones(2), **how)).ravel().tolist()
    )
    assert of(top_k=2, top_p=0.56) == {0} and of(top_k=2, top_p=0.56, nucleus_first=True) == {0, 1}
    assert of(top_k=2, top_p=0.75, nucleus_first=True) == {0, 1}
    assert of(top_k=4, top_p=0.75, nucleus_first=True) == {0, 1, 2}


@pytest.mark.parametrize(("times", "again"), [(0, False), (1, False), (2, True), (4, True)])
def test_what_was_drawn_too_often_is_drawn_anew_from_all(times, again):
    """Of the two best, id 0 stood in so many of the last four places; half of them are too many."""
    n = 3000
    logits = jnp.broadcast_to(LOGITS[:1, :1], (n, 1, 5))
    recent = jnp.broadcast_to(jnp.array([0] * times + [9] * (4 - times)), (n, 4))
    keys, warm = jax.random.split(jax.random.key(1), n), jnp.ones(n)
    of = functools.partial(sampling.repetition_aware_sample, logits, keys)
    ids = of(warm, recent, share=0.5, top_k=2)
    np.testing.assert_array_equal(
        of(0.0 * warm, recent, share=0.5, top_k=2), np.zeros((n, 1))
    )  # greedy rows
    once = sampling.sample(logits, keys, warm, top_k=2)
    np.testing.assert_array_equal(ids[once == 1], 1)
    found = np.bincount(np.asarray(ids)[:, 0], minlength=5) / n
    filtered = np.array([4 / 7, 3 / 7, 0, 0, 0])
    expected = [0, 3 / 7, 0, 0, 0] + 4 / 7 * P if again else filtered
    np.testing.assert_allclose(found, expected, atol=0.03)
    banned = jnp.ones((n, 1, 5), bool).at[:, :, 4].set(False)
    assert not (of(warm, recent, share=0.5, top_k=2, allowed_B1V=banned) == 4).any()


def test_ids_that_are_not_allowed_are_never_drawn(shares):
    np.testing.assert_allclose(
        shares(allowed=ALL.at[:, :, 0].set(False)), [0, *(P[1:] / 0.6)], atol=0.03
    )


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(),
        SamplingConfig(1.0),
        SamplingConfig(0.7, top_k=3),
        SamplingConfig(1.3, top_p=0.8),
    ],
)
def test_one_temperature_for_all_rows_draws_as_one_for_each_and_a_row_as_it_does_alone(config):
    """[B, V] of a text, [B, T, V] of a block; a constant temperature and an array of it; two rows
    and one.
    """
    logits = jax.random.normal(jax.random.key(1), (2, 4, 300))
    filters = dict(top_k=config.top_k, top_p=config.top_p)
    fixed = jax.jit(
        lambda logits, keys: sampling.sample(logits, keys, *dataclasses.astuple(config))
    )
    together = fixed(logits, KEYS)
    np.testing.assert_array_equal(
        draw(logits, KEYS, jnp.full(2, config.temperature), **filters), together
    )
    np.testing.assert_array_equal(
        draw(logits[1:], KEYS[1:], jnp.full(1, config.temperature), **filters)[0], together[1]
    )
    one = logits[:, :1]
    np.testing.assert_array_equal(fixed(one[:, 0], KEYS), fixed(one, KEYS)[:, 0])
    if config.temperature == 0:
        # and needs no key
        np.testing.assert_array_equal(sampling.sample(logits), jnp.argmax(logits, axis=-1))


def test_the_lowest_id_wins_a_tie():
    assert sampling.sample(jnp.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [1, 0]


def test_allowed_ids_are_the_codes_and_eos_where_it_may_stand():
    allowed = sampling.allowed_ids(9, 5, 6, jnp.array([[False, True]]))
    np.testing.assert_array_equal(allowed[0, 0], [1, 1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(allowed[0, 1], [1, 1, 1, 1, 1, 0, 1, 0, 0])


def test_keys_depend_on_the_request_and_its_counters_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))
    data = lambda *key_and_counters: np.asarray(
        jax.random.key_data(sampling.step_keys(*key_and_counters))
    )
    together = data(keys, jnp.array([0, 5, 2]), jnp.int32(1))
    np.testing.assert_array_equal(together[1], data(keys[1:2], jnp.array([5]), jnp.int32(1))[0])
    by_hand = jax.random.fold_in(jax.random.fold_in(keys[1], 5), 1)
    np.testing.assert_array_equal(together[1], jax.random.key_data(by_hand))
    np.testing.assert_array_equal(
        data(keys, jnp.array([4, 9, 4]))[1], jax.random.key_data(jax.random.fold_in(keys[1], 9))
    )
    grid = [
        tuple(data(keys[:1], jnp.array([b]), jnp.int32(s))[0]) for b in range(3) for s in range(3)
    ]
    assert len(set(grid)) == 9


def test_bad_values_are_named():
    for bad in (dict(temperature=-1.0), dict(top_k=-1), dict(top_p=0.0), dict(top_p=1.1)):
        with pytest.raises(UserError, match=f"{next(iter(bad))}=.*out of range"):
            SamplingConfig(**bad)
