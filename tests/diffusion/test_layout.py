import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.diffusion import layout
from mdmspeech.errors import UserError
from tests.support import dense_masks


def test_block_causal_mask_against_the_definition():
    mask = np.asarray(dense_masks.block_causal_mask(10, 4))
    assert mask.shape == (1, 10, 10)
    for q in range(10):
        for k in range(10):
            assert mask[0, q, k] == (k // 4 <= q // 4)


def test_causal_mask_is_lower_triangular():
    np.testing.assert_array_equal(
        np.asarray(dense_masks.causal_mask(5)[0]), np.tril(np.ones((5, 5), bool))
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda v: dense_masks.block_causal_mask(6, 4, v),
        lambda v: dense_masks.two_stream_mask(6, 4, v),
    ],
)
def test_padding_neither_attends_nor_is_attended(build):
    valid = jnp.array([[True] * 6, [True] * 3 + [False] * 3])
    mask = np.asarray(build(valid))
    pads = np.tile(~np.asarray(valid[1]), mask.shape[1] // 6)
    assert not mask[1][pads].any() and not mask[1][:, pads].any()
    np.testing.assert_array_equal(mask[1][np.ix_(~pads, ~pads)], mask[0][np.ix_(~pads, ~pads)])


def test_two_stream_mask_against_the_written_rule():
    length, block = 7, 3
    mask = np.asarray(dense_masks.two_stream_mask(length, block))[0]
    for q in range(2 * length):
        for k in range(2 * length):
            noisy_q, noisy_k = q < length, k < length
            block_q, block_k = (q % length) // block, (k % length) // block
            expected = (
                (noisy_q == noisy_k and block_q == block_k)
                or (noisy_q and not noisy_k and block_k < block_q)
                or (not noisy_q and not noisy_k and block_k <= block_q)
            )
            assert mask[q, k] == expected, (q, k)


def test_allow_works_on_numpy_for_kernels():
    assert layout.mask_mod(np.int32(1), np.int32(2), np.int32(0), np.int32(1))
    assert not layout.mask_mod(np.int32(0), np.int32(2), np.int32(1), np.int32(1))


def test_no_leak_from_later_blocks(tiny):
    """The logits of block b depend on the ids and conditions of blocks <= b, all of b included, and
    on nothing later.
    """
    length, block = 12, 4
    ids = jax.random.randint(jax.random.key(0), (1, length), 0, 20)
    cond = jax.random.normal(jax.random.key(1), (1, length, tiny.dim))
    mask = dense_masks.block_causal_mask(length, block)
    positions = jnp.arange(length)[None]

    @jax.jit
    def forward(ids, cond):
        return tiny.forward(ids, cond, positions, mask)[0][0]

    influence_of = jax.jit(jax.grad(lambda cond, at: jnp.sum(jnp.square(forward(ids, cond)[at]))))
    for at in (0, 5, 7):
        influence = np.abs(np.asarray(influence_of(cond, at)[0])).sum(axis=-1)
        end = (at // block + 1) * block
        assert (influence[end:] == 0).all()
        assert (influence[:end] > 0).all()
    changed = ids.at[0, 8].set((ids[0, 8] + 1) % 20)
    before, after = (np.asarray(forward(x, cond)) for x in (ids, changed))
    np.testing.assert_array_equal(before[:8], after[:8])
    assert (np.abs(before[8:] - after[8:]).max(axis=-1) > 0).all()


def test_noisy_half_equals_encoding_the_clean_prefix_then_one_block(tiny):
    """Two streams in one forward see what decoding sees: this is why training on them has no
    exposure gap.
    """
    length, block = 12, 4
    clean = jax.random.randint(jax.random.key(2), (1, length), 0, 20)
    noisy = jnp.where(jax.random.bernoulli(jax.random.key(3), 0.5, clean.shape), 24, clean)
    cond = jax.random.normal(jax.random.key(4), (1, length, tiny.dim))
    both, cond_twice = (
        jnp.concatenate([noisy, clean], axis=1),
        jnp.concatenate([cond, cond], axis=1),
    )
    positions = dense_masks.two_stream_positions(length)[None]
    logits = jax.jit(tiny.forward)(
        both, cond_twice, positions, dense_masks.two_stream_mask(length, block)
    )[0][0, :length]

    @jax.jit
    def single_stream(ids, seen):
        return tiny.forward(
            ids,
            cond,
            jnp.arange(length)[None],
            dense_masks.block_causal_mask(length, block, seen[None]),
        )[0][0]

    for b in range(length // block):
        begin, end = b * block, (b + 1) * block
        prefix_then_block = jnp.concatenate([clean[:, :begin], noisy[:, begin:]], axis=1)
        # what lies after the block does not exist
        expected = single_stream(prefix_then_block, jnp.arange(length) < end)
        np.testing.assert_allclose(logits[begin:end], expected[begin:end], atol=2e-5)
    noisy_context = single_stream(noisy, jnp.ones(length, bool))
    # the single stream conditions on noisy blocks: it is another thing
    assert np.abs(logits - noisy_context).max() > 0.1


def test_cached_mask_against_the_definition():
    block, slots = 2, layout.cache_slots(7, 2)
    assert slots == 10  # four blocks and the scratch block
    last_block = jnp.array([0, 2])
    mask = np.asarray(layout.cached_block_mask(last_block, 2, block, slots))
    for row in range(2):
        for t in range(4):
            query = int(last_block[row]) - 1 + t // block
            for slot in range(slots):
                key = slot // block - 1
                expected = key == -1 if query < 0 else 0 <= key <= query
                assert mask[row, t, slot] == expected, (row, t, slot)


def test_blocks_there_and_back():
    x = jnp.arange(14).reshape(2, 7)
    blocks = layout.to_blocks(x, 3, -1)
    assert blocks.shape == (2, 3, 3) and (blocks[:, 2, 1:] == -1).all()
    np.testing.assert_array_equal(layout.from_blocks(blocks, 7), x)


def test_block_size_must_be_positive():
    with pytest.raises(UserError, match="block size 0"):
        layout.block_index(jnp.arange(3), 0)
