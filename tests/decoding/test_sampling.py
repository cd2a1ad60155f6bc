import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import sampling

P = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
LOGITS = jnp.broadcast_to(jnp.log(jnp.asarray(P, jnp.float32)), (2, 3000, 5))
ALL = jnp.ones((2, 3000, 5), bool)


@pytest.fixture(scope="module")
def shares():
    """shares(temperature, allowed, top_k, top_p) -> share of each id in row 1 of 2; row 0 is greedy."""
    draw = jax.jit(sampling.sample, static_argnums=(4, 5))

    def run(temperature=1.0, allowed=ALL, top_k=0, top_p=1.0):
        ids = draw(jax.random.split(jax.random.key(0), 2), LOGITS, jnp.array([0.0, temperature]), allowed, top_k, top_p)
        assert (ids[0] == jnp.argmax(jnp.where(allowed[0], LOGITS[0], -jnp.inf), axis=-1)).all()
        return np.bincount(np.asarray(ids[1]), minlength=5) / 3000

    return run


def test_samples_follow_the_tempered_distribution(shares):
    np.testing.assert_allclose(shares(), P, atol=0.03)
    np.testing.assert_allclose(shares(0.5), P**2 / (P**2).sum(), atol=0.03)


def test_top_k_and_top_p_keep_the_head(shares):
    np.testing.assert_allclose(shares(top_k=2), [4 / 7, 3 / 7, 0, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.75), P * [1, 1, 1, 0, 0] / 0.85, atol=0.03)  # 0.7 is not yet 0.75
    np.testing.assert_allclose(shares(top_p=0.01), [1, 0, 0, 0, 0])


def test_ids_that_are_not_allowed_are_never_drawn(shares):
    np.testing.assert_allclose(shares(allowed=ALL.at[:, :, 0].set(False)), [0, *(P[1:] / 0.6)], atol=0.03)


def test_allowed_ids_are_the_codes_and_eos_where_it_may_stand():
    allowed = sampling.allowed_ids(9, 5, 6, (2,), jnp.array([[False, True]]))
    np.testing.assert_array_equal(allowed[0, 0], [1, 1, 0, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(allowed[0, 1], [1, 1, 0, 1, 1, 0, 1, 0, 0])


def test_keys_depend_on_request_block_and_step_alone():
    keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))
    together = jax.random.key_data(sampling.step_keys(keys, jnp.array([0, 5, 2]), jnp.int32(1)))
    alone = jax.random.key_data(sampling.step_keys(keys[1:2], jnp.array([5]), jnp.int32(1)))
    np.testing.assert_array_equal(together[1], alone[0])
    grid = [
        tuple(np.asarray(jax.random.key_data(sampling.step_keys(keys[:1], jnp.array([b]), jnp.int32(s)))[0]))
        for b in range(3)
        for s in range(3)
    ]
    assert len(set(grid)) == 9
