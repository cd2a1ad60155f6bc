"""Splash attention: the kernel's program, interpreted here, equals the dense formulation; and it
compiles for a TPU in little memory.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mdmspeech.diffusion import layout
from mdmspeech.nn import masks
from mdmspeech.nn.backends import attend, over_mesh
from mdmspeech.nn.splash import splash_attention, tile_size
from mdmspeech.nn.tracing import attention_backend
from mdmspeech.planning.topology import parse

interpreted = functools.partial(splash_attention, interpret=True)


def segments(*rows):
    """int32 [B, T]: in each row segments 1, 2, .. of these lengths; the last entry is padding."""
    return jnp.asarray(
        np.stack([np.repeat([*range(1, len(row)), 0], row) for row in rows]), jnp.int32
    )


def inputs(mask, heads, kv_heads, batch=2, dim=16):
    keys = jax.random.split(jax.random.key(3), 4)
    shapes = [(batch, mask.length, n, dim) for n in (heads, kv_heads, kv_heads, heads)]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def out_and_grads(attention, mask, q, k, v, weight):
    @jax.jit
    def both(q, k, v, mask):
        out, pull = jax.vjp(lambda *qkv: attention(*qkv, mask), q, k, v)
        return out, *pull(weight)

    return both(q, k, v, mask)


def assert_same(got, want, mask):
    padding = (
        np.zeros((2, mask.length), bool)
        if mask.segment_BT is None
        else np.asarray(mask.segment_BT) == 0
    )
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
        assert (np.asarray(x)[padding] == 0).all()  # padding gives zeros and takes no gradient


CASES = {  # the second's last row is nothing but padding
    "causal, not a whole tile": (masks.causal(200), 2, 2),
    "blocks, packed, grouped heads": (
        masks.causal(256, 16, segments((96, 128, 32), (0, 256))),
        4,
        2,
    ),
    "two streams, packed, not a whole tile": (
        masks.from_mask_mod(
            layout.mask_mod,
            layout.two_stream(136, 8),
            layout.duplicate_streams(segments((64, 56, 16), (8, 128, 0))),
        ),
        2,
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_equals_the_dense_formulation_forward_and_backward(name):
    mask, heads, kv_heads = CASES[name]
    given = inputs(mask, heads, kv_heads)
    assert_same(
        out_and_grads(interpreted, mask, *given), out_and_grads(attend, mask.dense(), *given), mask
    )


def test_under_a_mesh_each_device_has_its_rows_and_heads():
    mask = masks.causal(128, 8, segments((64, 64, 0), (120, 8)))
    given = inputs(mask, 4, 1)  # one K/V head for two shards of query heads
    want = out_and_grads(attend, mask.dense(), *given)
    mesh = jax.make_mesh(
        (1, 2, 2),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[:4],
    )
    with jax.set_mesh(mesh):
        assert_same(
            out_and_grads(functools.partial(over_mesh, interpreted), mask, *given), want, mask
        )


def test_tiles_are_as_large_as_the_padding_allows():
    assert [tile_size(n) for n in (128, 512, 600, 1000, 1152, 2048, 2100, 16384)] == [
        (128, 128),
        (512, 512),
        (128, 640),
        (512, 1024),
        (384, 1152),
        (512, 2048),
        (128, 2176),
        (512, 16384),
    ]


# ---- Ahead of time for a TPU --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tpu_mesh():
    return Mesh(
        np.array(parse("v5e:2x2").devices()).reshape(1, 2, 2),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
    )


def temporaries(mesh, described, length=1024, dim=64):
    """Bytes a chip for the gradient of attention over [noisy ; clean] of `length` packed positions:
    4 rows, 8 heads, 4 K/V heads, bfloat16.
    """
    pattern = masks.from_mask_mod(layout.mask_mod, layout.two_stream(length, 16)).pattern

    def loss(q, k, v, segment_BT):
        mask = masks.AttentionMask(pattern, segment_BT)
        return attend(q, k, v, mask if described else mask.dense()).astype(jnp.float32).sum()

    def array(dtype, *shape):
        split = P(("data", "fsdp"), None, "tensor") if len(shape) == 4 else P(("data", "fsdp"))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, split))

    qkv = [array(jnp.bfloat16, 4, 2 * length, heads, dim) for heads in (8, 4, 4)]
    with jax.set_mesh(mesh), attention_backend("tpu"):
        compiled = (
            jax.jit(jax.grad(loss, (0, 1, 2)))
            .lower(*qkv, array(jnp.int32, 4, 2 * length))
            .compile()
        )
    assert ("tpu_custom_call" in compiled.as_text()) == described
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_compiled_for_a_tpu_it_needs_no_square(tpu_mesh):
    """The scores of a chip's 2 rows x 4 heads at 2 x 1024 positions are 67 MB in half precision,
    and the dense formulation keeps them.
    """
    assert temporaries(tpu_mesh, described=False) > 67e6
    assert temporaries(tpu_mesh, described=True) < 5e6
