"""FLOPs counted in the jaxpr: by hand, through loops, and beside what XLA says of the compiled
program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.training.flops import count_flops

A = jax.ShapeDtypeStruct((3, 5), jnp.float32)
B = jax.ShapeDtypeStruct((5, 7), jnp.float32)
S = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def test_a_matrix_product():
    assert count_flops(jnp.matmul, A, B) == 2 * 3 * 5 * 7


def test_a_batched_product():
    q, k = (
        jax.ShapeDtypeStruct((2, 9, 4, 16), jnp.float32),
        jax.ShapeDtypeStruct((2, 11, 4, 16), jnp.float32),
    )
    assert (
        count_flops(lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), q, k)
        == 2 * 2 * 4 * 9 * 11 * 16
    )


def test_a_convolution_and_its_groups():
    x, w = (
        jax.ShapeDtypeStruct((2, 10, 8), jnp.float32),
        jax.ShapeDtypeStruct((3, 8, 6), jnp.float32),
    )
    conv = lambda x, w, groups=1: jax.lax.conv_general_dilated(
        x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=groups
    )
    assert count_flops(conv, x, w) == 2 * 2 * 10 * 6 * 3 * 8
    depthwise = jax.ShapeDtypeStruct((3, 1, 8), jnp.float32)
    assert count_flops(lambda x, w: conv(x, w, 8), x, depthwise) == 2 * 2 * 10 * 8 * 3


def test_scans_multiply_and_conds_take_the_dearest():
    one = 2 * 8**3
    scanned = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=5)[0]
    assert count_flops(scanned, S) == 5 * one
    assert count_flops(lambda x: jax.lax.map(lambda _: scanned(x), jnp.arange(3)), S) == 15 * one
    assert (
        count_flops(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x), S)
        == 2 * one
    )


def test_unused_results_are_free():
    def body(carry, _):
        return carry, (carry @ carry, carry.sum())

    assert count_flops(lambda x: jax.lax.scan(body, x, length=4)[1][1], S) == 0
    assert count_flops(lambda x: jax.lax.scan(body, x, length=4)[1][0], S) == 4 * 2 * 8**3


def test_the_devices_of_a_shard_map_are_added_up():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    split = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(spec, jax.sharding.PartitionSpec()), out_specs=spec
    )
    assert count_flops(split, S, S) == 2 * 8**3


def test_gradients_and_recomputation():
    product = 2 * 8**3
    loss = lambda w, x: jnp.square(jnp.tanh(x @ w) @ w).sum()
    assert count_flops(loss, S, S) == 2 * product
    assert count_flops(jax.value_and_grad(loss), S, S) == (2 + 3) * product, "x needs no gradient"
    assert count_flops(jax.value_and_grad(jax.checkpoint(loss)), S, S) == (2 + 3 + 2) * product


@pytest.mark.parametrize("layers", [1, 3])
def test_it_agrees_with_the_compiler(layers):
    def loss(ws, x):
        for w in ws:
            x = jnp.tanh(x @ w)
        return x.sum()

    ws, x = [np.ones((64, 64), np.float32)] * layers, np.ones((256, 64), np.float32)
    step = jax.jit(jax.grad(loss))
    said = step.lower(ws, x).compile().cost_analysis()["flops"]
    assert count_flops(jax.grad(loss), ws, x) == pytest.approx(said, rel=0.05)


def test_a_while_counts_as_often_as_it_is_said_to_run():
    def loop(body):
        return lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, body, x)

    once, twice = loop(lambda x: x @ x), loop(lambda x: loop(lambda x: x @ x)(x) @ x)
    one = 2 * 8**3
    assert count_flops(once, S) == one
    for trips, runs in (((1,), 2), ((3,), 3 + 9), ((2, 5), 2 + 10), ((1, 0), 1)):
        assert count_flops(twice, S, trips=trips) == runs * one
