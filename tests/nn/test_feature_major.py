"""The layer that only runs is the layer that is trained, over any caches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.nn import feature_major
from mdmspeech.nn.attention import KVCache
from mdmspeech.nn.feature_major import ColumnCache, DroppingCache, LayerShape
from mdmspeech.nn.linear import Linear, widened
from mdmspeech.nn.rope import rope_frequencies, rope_table
from mdmspeech.nn.tracing import attention_backend
from mdmspeech.nn.transformer import LlamaBlock

pytestmark = pytest.mark.usefixtures("quick_compilation")
WIDTH, SLOTS, LENGTH = 24, 10, 3


def both(rows, heads=4, kv_heads=2, groups=(1, 1, 1), score_scale=1.0, **kwargs):
    """(x, cache) of the trained layer and of the other, over `rows` rows at different slots."""
    shape = LayerShape(heads, kv_heads, 8, score_scale=score_scale)
    layer = LlamaBlock(heads, kv_heads, 8, 40, score_scale=score_scale, **kwargs)
    keys = jax.random.split(jax.random.key(rows), 6)
    x = jax.random.normal(keys[0], (rows, LENGTH, WIDTH))
    write_at = jnp.arange(rows) + 2
    positions = write_at[:, None] + jnp.arange(LENGTH)[None] * 3
    mask = (
        jnp.arange(SLOTS)[None, None] <= (write_at[:, None] + jnp.arange(LENGTH)[None])[..., None]
    )
    rope = rope_table(positions, rope_frequencies(8, 100.0))
    old = [jax.random.normal(key, (rows, SLOTS, kv_heads, 8)) for key in keys[1:3]]
    params = layer.init(keys[3], x, mask, rope, KVCache(*old), write_at)["params"]
    noise = jax.tree.unflatten(
        jax.tree.structure(params),
        [jax.random.normal(keys[4], leaf.shape) * 0.3 for leaf in jax.tree.leaves(params)],
    )
    params = jax.tree.map(jnp.add, params, noise)
    expected, cache = jax.jit(layer.apply)(
        {"params": params}, x, mask, rope, KVCache(*old), write_at
    )
    columns = [jnp.asarray(leaf).transpose(0, 2, 3, 1) for leaf in old]
    first = np.cumsum([0, *groups])
    caches = [ColumnCache(*(leaf[a:b] for leaf in columns)) for a, b in itertools.pairwise(first)]
    out, new = jax.jit(feature_major.decoder_layer, static_argnums=1)(
        feature_major.prepare(params),
        shape,
        x.reshape(-1, WIDTH).T,
        mask,
        tuple(part.reshape(rows * LENGTH, -1).T for part in rope),
        caches,
        write_at,
    )
    joined = [
        jnp.concatenate([getattr(one, name) for one in new]).transpose(0, 3, 1, 2)
        for name in ("k_BKES", "v_BKES")
    ]
    return (expected, cache), (out.T.reshape(x.shape), KVCache(*joined))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "groups", "kwargs"),
    [
        (1, (1,), {}),
        (3, (1, 1, 1), {"qk_norm": True}),
        (3, (2, 1), {"qkv_bias": True}),
        (3, (3,), {"qk_norm": True, "qkv_bias": True, "score_scale": 0.5}),
        (2, (2,), {"kv_heads": 4}),
        (2, (1, 1), {"kv_heads": 1, "qk_norm": True}),
    ],
)
def test_it_is_the_trained_layer(rows, groups, kwargs):
    (expected, cache), (out, new) = both(rows, groups=groups, **kwargs)
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-4)
    for name in ("k_BSKD", "v_BSKD"):
        theirs, ours = getattr(cache, name), getattr(new, name)
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)
        assert (np.asarray(theirs) != 0).all()


@pytest.mark.parametrize("length", [1, 2, 4, 16])
def test_writing_a_few_columns_copies_no_cache(length):
    """Of 512 slots, as a Thinker's token or drafts behind a long conversation: in place."""
    slots, width, shape = 512, 48, LayerShape(6, 2, 8)
    layer = LlamaBlock(6, 2, 8, 40)
    x = jax.ShapeDtypeStruct((1, length, width), jnp.float32)
    fresh = KVCache.zeros(1, slots, 2, 8)
    inputs = (x, jnp.ones((1, length, slots), bool))
    rope = rope_table(jnp.zeros((1, length), jnp.int32), rope_frequencies(8, 100.0))
    layers = [
        jax.eval_shape(
            lambda x, mask: layer.init(
                jax.random.key(0), x, mask, rope, fresh, jnp.zeros(1, jnp.int32)
            )["params"],
            *inputs,
        )
    ] * 3
    weights = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), layers)
    caches = [DroppingCache.zeros(1, shape, slots) for _ in layers]

    def token(caches, x_DM, at_B):
        mask_BTS = (
            jnp.arange(slots)[None, None] <= at_B[:, None, None] + jnp.arange(length)[None, :, None]
        )
        columns = tuple(part.reshape(length, -1).T for part in rope)
        new = []
        for params, cache in zip(map(feature_major.prepare, weights), caches, strict=True):
            x_DM, (cache,) = feature_major.decoder_layer(
                params, shape, x_DM, mask_BTS, columns, [cache], at_B
            )
            new.append(cache)
        return x_DM, new

    program = jax.jit(token, donate_argnums=0).lower(
        caches, jax.ShapeDtypeStruct((width, length), jnp.float32), jnp.array([7])
    )
    memory = program.compile().memory_analysis()
    assert memory.alias_size_in_bytes >= 6 * 2 * 8 * slots * 4  # the caches, where they were
    # heads x slots of attention weights, a few times; a layer's keys alone have more
    assert memory.temp_size_in_bytes < 6 * 6 * slots * 4 * length + 2 * 8 * slots * 4


def test_weights_that_are_no_layers_stay():
    tree = {"a": {"kernel": jnp.ones((2, 3, 4))}, "b": {"scale": jnp.ones(3)}, "c": jnp.ones(2)}
    kept = feature_major.prepare(tree)
    jax.tree.map(np.testing.assert_array_equal, kept, tree)


def test_a_missing_bias_of_one_is_a_bias_of_zeros():
    """Whisper's keys have none."""
    layers = {
        n: {"kernel": jnp.full((2, 3), i), "bias": jnp.full(3, i)} for i, n in enumerate("qkv")
    }
    del layers["k"]["bias"]
    joined = feature_major.prepare(layers)["qkv"]
    np.testing.assert_array_equal(joined["bias"], [0, 0, 0, 0, 0, 0, 2, 2, 2])
    np.testing.assert_array_equal(joined["weight"][:, 0], [0, 0, 0, 1, 1, 1, 2, 2, 2])


def test_one_column_on_a_tpu_is_a_product_of_eight():
    weights = {"weight": jnp.arange(12.0).reshape(3, 4), "bias": jnp.ones(3)}
    x = jnp.arange(4.0)[:, None]
    plain = jax.make_jaxpr(lambda x: feature_major.linear(weights, x))(x)
    with attention_backend("tpu"):
        wide = feature_major.linear(weights, x)
        padded = jax.make_jaxpr(lambda x: feature_major.linear(weights, x))(x)
        two = jnp.concatenate([x, x], axis=1)
        assert widened(two, 1) is two and widened(x, 0) is x and widened(x.T, 0).shape == (8, 4)
        layer, row = Linear(3), jnp.arange(4.0)[None, None]
        params = {"kernel": weights["weight"].T, "bias": weights["bias"]}
        same = layer.apply({"params": params}, row)
        several = layer.apply({"params": params}, jnp.concatenate([row, row]))
        np.testing.assert_array_equal(same[0, 0], wide[:, 0])
        np.testing.assert_array_equal(several[1, 0], wide[:, 0])
    assert "f32[3,8] = dot_general" in str(padded) and "[3,8]" not in str(plain)
    np.testing.assert_array_equal(wide, feature_major.linear(weights, x))
