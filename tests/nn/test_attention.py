"""`attend` against a plain softmax, its masks at their limits, its formulations against each other,
and the cache.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mdmspeech.diffusion import layout
from mdmspeech.errors import UserError
from mdmspeech.nn import masks
from mdmspeech.nn.attention import Attention, KVCache
from mdmspeech.nn.backends import attend, formulation
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.stack import LayerStack, remat_policy
from mdmspeech.nn.tracing import attention_backend
from mdmspeech.nn.transformer import LlamaBlock
from tests.support import dense_masks

B, T, S, H, K, D = 2, 5, 7, 4, 2, 8


def _inputs(length=T):
    keys = jax.random.split(jax.random.key(1), 4)
    q = jax.random.normal(keys[0], (B, length, H, D))
    k, v = (jax.random.normal(key, (B, S, K, D)) for key in keys[1:3])
    return q, k, v, jax.random.bernoulli(keys[3], 0.6, (B, length, S))


def _reference(q, k, v, mask):
    """Float64 softmax, one head at a time; rows without a visible key give zeros."""
    q, k, v, mask = (np.asarray(x, np.float64) for x in (q, k, v, mask))
    out = np.zeros(q.shape)
    for b, t, h in np.ndindex(q.shape[:3]):
        seen = np.flatnonzero(mask[b, t])
        if len(seen):
            scores = k[b, seen, h // (H // K)] @ q[b, t, h] / np.sqrt(D)
            weights = np.exp(scores - scores.max())
            out[b, t, h] = weights / weights.sum() @ v[b, seen, h // (H // K)]
    return out


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("length", [1, T])
def test_equals_plain_softmax(backend, length):
    q, k, v, mask = _inputs(length)
    mask = mask.at[0, 0].set(False)
    with attention_backend(backend):
        np.testing.assert_allclose(
            jax.jit(lambda *given: attend(*given))(q, k, v, mask),
            _reference(q, k, v, mask),
            atol=1e-5,
        )


def test_fully_masked_row_has_zero_output_and_finite_gradient():
    q, k, v, mask = _inputs()
    grads = jax.jit(jax.grad(lambda *qkv: attend(*qkv, mask & False).sum(), (0, 1, 2)))(q, k, v)
    assert all(bool((g == 0).all()) for g in grads)


def test_mask_of_one_row_serves_the_batch():
    q, k, v, mask = _inputs()
    np.testing.assert_allclose(
        attend(q, k, v, mask[:1]), attend(q, k, v, jnp.repeat(mask[:1], B, 0)), atol=1e-6
    )


def test_huge_masked_scores_do_not_leak():
    q, k, v, mask = _inputs()
    mask = mask.at[:, :, 0].set(True).at[:, :, 3].set(False)
    np.testing.assert_allclose(
        attend(q, k.at[:, 3].set(1e6), v.at[:, 3].set(1e6), mask), attend(q, k, v, mask), atol=1e-5
    )


def packed(*lengths):
    """int32 [T]: segments 1, 2, .. of these lengths; the last entry is padding."""
    return np.repeat([*range(1, len(lengths)), 0], lengths)


def _long(length, heads=2, kv_heads=1, batch=2, dim=8):
    keys = jax.random.split(jax.random.key(7), 4)
    shapes = [(batch, length, n, dim) for n in (heads, kv_heads, kv_heads, heads)]
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))


# 600 positions, segments in blocks of 16
SEGMENTS = jnp.asarray(np.stack([packed(160, 320, 112, 8), packed(208, 352, 40)]), jnp.int32)
LONG = {
    "blocks, packed": masks.causal(600, 16, SEGMENTS),
    "full, padded": masks.full(600, SEGMENTS),
    "two streams": masks.from_mask_mod(layout.mask_mod, layout.two_stream(300, 16)),
    "two streams, packed": masks.from_mask_mod(
        layout.mask_mod, layout.two_stream(300, 16), layout.duplicate_streams(SEGMENTS[:, 300:])
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_tiles_equal_the_dense_formulation_forward_and_backward(name):
    """On the CPU a described mask of this length takes the scan over tiles; its dense form takes
    the loop over heads.
    """
    q, k, v, weight = _long(600)
    mask = LONG[name]
    assert formulation("cpu", True, 600, 600, 8, q.dtype, False) == "tiles"

    @jax.jit
    def both(q, k, v, mask):
        out, pull = jax.vjp(lambda *qkv: attend(*qkv, mask), q, k, v)
        return out, *pull(weight)

    padding = (
        np.zeros((2, 600), bool) if mask.segment_BT is None else np.asarray(mask.segment_BT) == 0
    )
    for got, want in zip(
        both(q, k, v, mask), both(q, k, v, jax.jit(masks.AttentionMask.dense)(mask)), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=2e-5)
        assert (np.asarray(got)[padding] == 0).all()  # padding gives zeros and takes no gradient


def test_memory_of_tiles_grows_with_the_length_not_its_square():
    def temporaries(length):
        q, k, v, _ = _long(length, heads=2, kv_heads=2, batch=1)
        loss = lambda *qkv: attend(*qkv, masks.causal(length, 16)).sum()
        return (
            jax.jit(jax.grad(loss, (0, 1, 2)))
            .lower(q, k, v)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    # a tenth of the scores of both heads
    assert temporaries(4096) < min(2 * 4096 * 4096 * 4 / 10, 3 * temporaries(2048))


def test_a_mesh_changes_nothing():
    """Two K/V heads serve four shards of query heads."""
    q, k, v, weight = _long(520, heads=4, kv_heads=2, batch=4)
    segment = jnp.asarray(
        np.stack([packed(512, 8), packed(256, 256, 8), packed(520, 0), packed(16, 64, 440)]),
        jnp.int32,
    )

    def loss(q, k, v, segment):
        return jnp.sum(attend(q, k, v, masks.causal(520, 16, segment)) * weight)

    expected, expected_grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v, segment)
    mesh = jax.make_mesh((1, 2, 4), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        put = [
            jax.device_put(x, NamedSharding(mesh, P(("data", "fsdp")))) for x in (q, k, v, segment)
        ]
        value, grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*put)
        # one row, which no axis divides, stays whole
        lone = jax.jit(lambda *qkv: attend(*qkv, masks.causal(520)))(q[:1], k[:1], v[:1])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for got, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(
        lone, jax.jit(lambda *qkv: attend(*qkv, masks.causal(520)))(q[:1], k[:1], v[:1]), atol=2e-5
    )


def test_what_computes_where():
    bf16, f32 = jnp.bfloat16, jnp.float32
    table = [
        (("tpu", True, 256, 256, 64, bf16, False), "splash"),
        (("tpu", True, 8192, 8192, 128, f32, False), "splash"),
        (("tpu", True, 255, 255, 64, bf16, False), "xla"),
        # a dense mask: a cache, or another memory
        (("tpu", False, 2048, 2048, 64, bf16, False), "xla"),
        (("gpu", True, 2048, 2048, 128, bf16, True), "cudnn"),
        (("gpu", False, 64, 512, 64, jnp.float16, True), "cudnn"),
        (("gpu", True, 2048, 2048, 128, f32, True), "xla"),
        (("gpu", True, 2048, 2048, 256, bf16, True), "xla"),
        (("gpu", True, 2048, 2048, 100, bf16, True), "xla"),
        (("gpu", True, 2047, 2047, 128, bf16, True), "xla"),
        (("gpu", False, 16, 512, 128, bf16, True), "xla"),
        (("gpu", True, 2048, 2048, 128, bf16, False), "xla"),
        (("cpu", True, 512, 512, 64, f32, False), "tiles"),
        (("cpu", True, 511, 511, 64, f32, False), "heads"),
        (("cpu", False, 2048, 2048, 64, f32, False), "heads"),
        (("cpu", False, 1, 2048, 64, f32, False), "grouped"),
    ]
    assert [formulation(*arguments) for arguments, _ in table] == [name for _, name in table]


def test_a_described_mask_does_not_serve_a_cache():
    q, k, v, _ = _inputs()
    with pytest.raises(ValueError, match=f"a mask for {S} positions met {T} queries and {S} keys"):
        attend(q, k, v, masks.causal(S))


# ---- Descriptions -------------------------------------------------------------------------------


def test_descriptions_equal_the_masks_of_the_layout():
    valid = jnp.array([[True] * 10, [True] * 7 + [False] * 3])
    segment = valid.astype(jnp.int32)
    two = masks.from_mask_mod(layout.mask_mod, layout.two_stream(10, 4))
    pairs = [
        (masks.causal(10), dense_masks.causal_mask(10)),
        (masks.causal(10, 4), dense_masks.block_causal_mask(10, 4)),
        (masks.causal(10, 4, segment), dense_masks.block_causal_mask(10, 4, valid)),
        (two, dense_masks.two_stream_mask(10, 4)),
        (
            two.replace(segment_BT=layout.duplicate_streams(segment)),
            dense_masks.two_stream_mask(10, 4, valid),
        ),
        (masks.full(10), jnp.ones((1, 10, 10), bool)),
        (masks.full(10, segment), valid[:, :, None] & valid[:, None, :]),
        (
            masks.from_mask_mod(in_window, [np.arange(10)]),
            np.tril(np.ones((1, 10, 10), bool)) & ~np.tril(np.ones((1, 10, 10), bool), -3),
        ),
    ]
    for described, dense in pairs:
        np.testing.assert_array_equal(described.dense(), dense)
        np.testing.assert_array_equal(
            described.pattern.allowed(slice(0, 10), slice(3, 8)),
            described.pattern.compare(slice(0, 10), slice(3, 8)),
        )


def in_window(query, key):
    return (key <= query) & (key > query - 3)


def test_packed_rows_are_their_segments_apart():
    """Blocks of the row are the blocks of each segment: both layouts."""
    segment = jnp.asarray(packed(8, 4, 12, 4), jnp.int32)[None]
    one = np.asarray(masks.causal(28, 4, segment).dense()[0])
    two = np.asarray(
        masks.from_mask_mod(
            layout.mask_mod, layout.two_stream(28, 4), layout.duplicate_streams(segment)
        ).dense()[0]
    )
    expected_one, expected_two = np.zeros((28, 28), bool), np.zeros((56, 56), bool)
    for start, length in ((0, 8), (8, 4), (12, 12)):
        at = np.arange(start, start + length)
        expected_one[np.ix_(at, at)] = dense_masks.block_causal_mask(length, 4)[0]
        both = np.concatenate([at, at + 28])
        expected_two[np.ix_(both, both)] = dense_masks.two_stream_mask(length, 4)[0]
    np.testing.assert_array_equal(one, expected_one)
    np.testing.assert_array_equal(two, expected_two)


def test_masks_of_equal_content_compile_once():
    traced = []

    @jax.jit
    def run(mask):
        traced.append(mask.pattern)
        return mask.dense()

    def two_stream(length, block):
        return masks.from_mask_mod(layout.mask_mod, layout.two_stream(length, block))

    run(two_stream(12, 4)), run(two_stream(12, 4))
    assert len(traced) == 1
    (
        run(two_stream(12, 3)),
        run(masks.causal(24)),
        run(masks.full(24)),
        run(masks.causal(24, 1)),
        run(masks.from_mask_mod(in_window, [np.arange(24)])),
    )
    assert len(traced) == 5
    segment = jnp.ones((1, 24), jnp.int32)
    run(masks.causal(24, 1, segment)), run(masks.causal(24, 1, 2 * segment))
    assert len(traced) == 6


def test_a_pattern_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match="may not attend to itself"):
        masks.from_mask_mod(lambda query, key: key < query, [np.arange(4)])
    with pytest.raises(ValueError, match="vectors of one length"):
        masks.from_mask_mod(layout.mask_mod, [np.arange(4), np.arange(5)])
    with pytest.raises(UserError, match="block size 0"):
        masks.causal(4, 0)


def test_a_described_mask_goes_through_scanned_and_rematerialised_layers():
    x = jax.random.normal(jax.random.key(0), (2, 24, 16))
    mask = masks.causal(24, 4, jnp.asarray(np.stack([packed(8, 12, 4), packed(24, 0)]), jnp.int32))
    sizes = FrozenDict(num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=16)
    stack = LayerStack(LlamaBlock, sizes, num_layers=2, scan=True)
    params = jax.jit(stack.init)(jax.random.key(1), x, mask)

    def loss(params, mask):
        return jnp.sum(jnp.square(stack.apply(params, x, mask)[0]))

    plain = jax.jit(jax.grad(loss))(params, mask.dense())
    with remat_policy("full"):
        described = jax.jit(jax.grad(loss))(params, mask)
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4),
        described,
        plain,
    )


# ---- Caches -------------------------------------------------------------------------------------


def test_cache_at_ragged_offsets_equals_one_pass():
    """Rows that continue at different columns give what a pass over the whole row gives."""
    layer = Attention(H, K, D, qkv_bias=True, k_bias=False, out_bias=True, qk_norm=True)
    x = jax.random.normal(jax.random.key(2), (B, S, 16))
    frequencies = rope_frequencies(D, 100.0)
    causal = jnp.tril(jnp.ones((1, S, S), bool))
    params = jax.jit(layer.init)(jax.random.key(3), x, causal)
    assert set(params["params"]["q"]) == {"kernel", "bias"} and set(params["params"]["k"]) == {
        "kernel"
    }
    full, none = jax.jit(layer.apply)(
        params, x, causal, rope_table(jnp.arange(S)[None], frequencies)
    )
    assert none is None

    @functools.partial(jax.jit, static_argnums=2)
    def extend(cache, start_B, length):
        positions = start_B[:, None] + jnp.arange(length)[None]
        piece = jnp.take_along_axis(x, positions[..., None], axis=1)
        mask = jnp.arange(S)[None, None] <= positions[..., None]
        return layer.apply(params, piece, mask, rope_table(positions, frequencies), cache, start_B)

    _, cache = extend(KVCache.zeros(B, S, K, D), jnp.zeros(B, jnp.int32), 4)
    start = jnp.array([4, 2])
    y, _ = extend(cache, start, 3)
    for row in range(B):
        np.testing.assert_allclose(
            y[row], full[row, int(start[row]) : int(start[row]) + 3], atol=1e-5
        )


def test_cache_drops_what_does_not_fit():
    cache = KVCache.zeros(1, 3, 1, 2).write(
        jnp.ones((1, 2, 1, 2)), jnp.ones((1, 2, 1, 2)), jnp.array([2])
    )
    np.testing.assert_array_equal(cache.k_BSKD[0, :, 0, 0], [0, 0, 1])
