"""One device and eight, on every mesh (data, fsdp, tensor): the same losses; parameters lie where
the table says.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from real import packed_talker_batch, stage_one, stage_one_batch, stage_two

from mdmspeech.models.thinker import QWEN3_06B
from mdmspeech.training import mesh as meshes
from mdmspeech.training.config import base
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.state import abstract_state, create_frozen, create_state, frozen_shapes
from mdmspeech.training.step import make_train_step

RNG = jax.random.key(0)
SHORT = ((2, 2, 2),)  # splits along every axis
SHAPES = [shape for shape in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(shape) == 8]


@functools.cache
def start(make_task):
    """A task, its optimizer, and first values of its state and its frozen parameters, on the host."""
    config, task, mesh = base(), make_task(), meshes.make_mesh(data=1)
    config.optim.warmup, config.optim.lr = 5, 3e-4
    optimizer = make_optimizer(config.optim, 20, jax.eval_shape(task.init, RNG), task.optimizer)
    state = create_state(task.init, optimizer, RNG, False, mesh)
    return task, optimizer, state, jax.tree.map(np.asarray, create_frozen(task, mesh))


def losses_on(mesh, make_task, batch, steps, **settings):
    """The loss and gradient norm of each of `steps` updates on `mesh`."""
    task, optimizer, state, frozen = start(make_task)
    with jax.set_mesh(mesh):
        shardings = jax.tree.map(
            lambda x: x.sharding, abstract_state(task.init, optimizer, RNG, False, mesh)
        )
        frozen_places = jax.tree.map(lambda x: x.sharding, frozen_shapes(task, mesh))
        state, frozen = jax.device_put(state, shardings), jax.device_put(frozen, frozen_places)
        arrays = meshes.put_batch(mesh, batch)
        step = jax.jit(
            make_train_step(task, optimizer, **settings), out_shardings=(shardings, None)
        )
        seen = []
        for _ in range(steps):
            state, metrics = step(state, frozen, arrays)
            seen.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(seen)


def test_ten_meshes_of_eight_devices():
    assert len(SHAPES) == 10


@pytest.fixture(scope="module")
def on_one_device():
    return losses_on(meshes.make_mesh(data=1), stage_two, packed_talker_batch(), 20)


@pytest.mark.parametrize(
    "shape",
    [shape if shape in SHORT else pytest.param(shape, marks=pytest.mark.full) for shape in SHAPES],
)
def test_the_talker_learns_the_same_on_every_mesh(shape, on_one_device):
    seen = losses_on(meshes.make_mesh(*shape), stage_two, packed_talker_batch(), 20)
    np.testing.assert_allclose(seen[:, 0], on_one_device[:, 0], rtol=1e-5)
    assert on_one_device[-1, 0] < on_one_device[0, 0] - 0.05, "it did not learn"


@pytest.mark.slow
def test_two_slices_learn_the_same_as_one_mesh(on_one_device):
    mesh = meshes.make_mesh(4, 2, 1, slices=2, devices=jax.devices()[::-1])
    assert {device.id for device in mesh.devices[:2].flat} == {4, 5, 6, 7}
    seen = losses_on(mesh, stage_two, packed_talker_batch(), 20)
    np.testing.assert_allclose(seen[:, 0], on_one_device[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_the_thinker_learns_the_same_with_micro_batches_on_a_mesh_of_all_axes():
    one = losses_on(meshes.make_mesh(data=1), stage_one, stage_one_batch(), 8)
    eight = losses_on(meshes.make_mesh(2, 2, 2), stage_one, stage_one_batch(), 8, accum=2)
    np.testing.assert_allclose(eight[:, 1], one[:, 1], rtol=1e-4)
    np.testing.assert_allclose(eight[:, 0], one[:, 0], rtol=1e-5)


def test_parameters_lie_where_the_table_says():
    from mdmspeech.models.thinker import Thinker

    mesh = meshes.make_mesh(2, 2, 2)
    shapes = jax.eval_shape(
        lambda: Thinker(QWEN3_06B).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    )["params"]
    got = jax.tree.map(lambda s: s.spec, meshes.param_shardings(mesh, shapes))
    layer = got["layers"]["all"]
    assert layer["attn"]["q"]["kernel"] == P(None, ("fsdp",), ("tensor",))
    assert (
        layer["attn"]["o"]["kernel"]
        == layer["mlp"]["down"]["kernel"]
        == P(None, ("tensor",), ("fsdp",))
    )
    assert layer["mlp"]["gate"]["kernel"] == P(None, ("fsdp",), ("tensor",))
    assert got["embedding"]["embedding"] == P(("tensor",), ("fsdp",))
    assert layer["attn_norm"]["scale"] == P(None, None)
    whole = sum(np.prod(s.shape) for s in jax.tree.leaves(shapes))
    held = sum(
        np.prod(sh.shard_shape(s.shape))
        for s, sh in zip(
            jax.tree.leaves(shapes),
            jax.tree.leaves(meshes.param_shardings(mesh, shapes)),
            strict=True,
        )
    )
    assert held < 0.26 * whole, "a quarter of the parameters on each device, apart from the norms"


def test_the_optimiser_state_lies_like_its_parameters_and_frozen_parts_have_none():
    task, mesh = stage_one(), meshes.make_mesh(2, 2, 2)
    optimizer = make_optimizer(
        base().optim, 8, jax.eval_shape(task.init, jax.random.key(0)), task.optimizer
    )
    state = abstract_state(task.init, optimizer, jax.random.key(0), False, mesh)
    by_shape = {}
    for leaf in jax.tree.leaves(state.opt_state):
        by_shape.setdefault(leaf.shape, set()).add(str(leaf.sharding.spec))
    for leaf in jax.tree.leaves(state.params):
        assert str(leaf.sharding.spec) in by_shape[leaf.shape]
    trained = sum(x.size for x in jax.tree.leaves(state.params))
    assert sum(x.size for x in jax.tree.leaves(state.opt_state)) < 2.1 * trained
    assert sum(x.size for x in jax.tree.leaves(frozen_shapes(task, mesh))) > 5 * trained


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_nothing(remat):
    mesh = meshes.make_mesh(data=1)
    plain, again = (
        losses_on(mesh, stage_two, packed_talker_batch(), 3, remat=name) for name in ("none", remat)
    )
    np.testing.assert_allclose(again, plain, rtol=2e-5)


@pytest.mark.slow
def test_bfloat16_computes_nearly_the_same_from_float32_parameters():
    mesh = meshes.make_mesh(data=1)
    full, half = (
        losses_on(mesh, stage_one, stage_one_batch(), 4, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(half[:, 0], full[:, 0], rtol=0.01)
    assert (half[:, 0] != full[:, 0]).all(), "it was not computed in bfloat16"
