"""Look-ups in tables that are split over devices, and axes that do not divide: the same numbers, and
what travels.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mdmspeech.nn.partition import constrain, lookup, lookup_large
from mdmspeech.training.mesh import make_mesh

pytestmark = pytest.mark.usefixtures("quick_compilation")
VOCAB, DIM, ROWS, LENGTH = 1024, 64, 8, 5
TABLE = np.random.default_rng(0).normal(size=(VOCAB, DIM)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, VOCAB, (ROWS, LENGTH)).astype(np.int32)
MESHES = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (4, 2, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)]


def placed(mesh, vocab=VOCAB):
    table = NamedSharding(mesh, P("tensor" if vocab % mesh.shape["tensor"] == 0 else None, "fsdp"))
    return jax.device_put(TABLE[:vocab], table), jax.device_put(
        IDS % vocab, NamedSharding(mesh, P(("data", "fsdp")))
    )


def gathered(text):
    """Elements of every array that is put together of parts."""
    return [
        int(np.prod([int(n) for n in dims.split(",") if n]))
        for dims in re.findall(r"\w+\[([\d,]*)\]\S* all-gather", text)
    ]


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("of", [lookup, lookup_large])
def test_rows_and_their_gradient(of, shape):
    mesh = make_mesh(*shape)

    def loss(table, ids):
        return jnp.sum(of(table, ids) ** 2 * jnp.arange(DIM)[None, None])

    with jax.set_mesh(mesh):
        table, ids = placed(mesh)
        rows = jax.jit(of)(table, ids)
        gradient = jax.jit(jax.grad(loss))(table, ids)
        assert rows.sharding.is_equivalent_to(NamedSharding(mesh, P(("data", "fsdp"))), 3)
    np.testing.assert_array_equal(rows, TABLE[IDS])
    np.testing.assert_allclose(gradient, jax.grad(loss)(jnp.asarray(TABLE), IDS), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 4, 1), (1, 8, 1), (2, 2, 2)])
def test_a_large_table_stays_where_it_is(shape):
    mesh = make_mesh(*shape)
    with jax.set_mesh(mesh):
        small, large = (
            gathered(jax.jit(of).lower(*placed(mesh)).compile().as_text())
            for of in (lookup, lookup_large)
        )
    assert max(small) >= VOCAB * DIM // shape[2], "this one puts it together"
    assert max(large, default=0) < VOCAB * DIM // 8


@pytest.mark.parametrize(("shape", "size"), [((1, 1, 8), 6566), ((2, 1, 4), 6566), ((1, 2, 4), 50)])
def test_an_axis_that_does_not_divide_is_split_with_padding(shape, size):
    """The speech vocabulary, 2 x 7 x 7 x 67: each device computes its part of the logits."""
    mesh = make_mesh(*shape)
    table = np.random.default_rng(2).normal(size=(size, DIM)).astype(np.float32)
    hidden = np.random.default_rng(3).normal(size=(ROWS, LENGTH, DIM)).astype(np.float32)

    def loss(table, padded):
        logits = hidden @ constrain(table, "vocab", "none", padded=padded).T
        picked = jnp.take_along_axis(logits, (IDS % size)[..., None], axis=-1)[..., 0]
        return jnp.sum(jax.nn.logsumexp(logits, axis=-1) - picked)

    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
        value, gradient = step(table, True)
        widths = [
            {
                int(n)
                for n in re.findall(r"f32\[\d+,5,(\d+)\]", step.lower(table, p).compile().as_text())
            }
            for p in (True, False)
        ]
    alone, expected = jax.value_and_grad(loss)(jnp.asarray(table), False)
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    assert -(-size // shape[2]) in widths[0] and size in widths[1] and size not in widths[0]


def test_without_a_mesh_nothing_is_done():
    np.testing.assert_array_equal(lookup_large(jnp.asarray(TABLE), IDS), TABLE[IDS])
    assert constrain(x := jnp.ones((3, 5)), "vocab", "none", padded=True) is x
