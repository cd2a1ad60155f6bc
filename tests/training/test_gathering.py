"""The frozen parts of a Talker's stages: what is loaded of them, and how often it travels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real import THINKER, packed_talker_batch, stage_two

from mdmspeech.models.thinker import Thinker
from mdmspeech.training import mesh as meshes
from mdmspeech.training.gathering import gather_once
from mdmspeech.training.stages import talker as stage
from mdmspeech.training.state import create_frozen

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)


def untied(**settings):
    task = stage_two(**settings)
    task.thinker = Thinker(dataclasses.replace(THINKER, tie_embeddings=False))
    return task


def test_the_output_layer_of_the_thinker_is_neither_made_nor_asked_for():
    task, asked = untied(), []
    assert set(jax.eval_shape(task.init_frozen, KEY)["thinker"]) == {"embedding", "layers", "norm"}
    task._load_thinker = lambda like: asked.append(set(like)) or task.init_frozen(KEY)["thinker"]
    create_frozen(task, meshes.make_mesh(data=1))
    assert asked == [{"embedding", "layers", "norm"}]


def test_the_teacher_is_put_together_before_it_refines(monkeypatch):
    task, seen = stage_two(mode="isd"), []
    monkeypatch.setattr(
        stage, "gather_once", lambda params: seen.append(jax.tree.structure(params)) or params
    )
    params, frozen = jax.eval_shape(task.init, KEY), jax.eval_shape(task.init_frozen, KEY)
    loss = lambda *args: task.loss(*args, KEY, jnp.int32(0))
    jax.eval_shape(loss, params, frozen, packed_talker_batch())
    assert seen == [jax.tree.structure(frozen["teacher"])]


@pytest.mark.full
def test_with_it_or_without_the_losses_are_the_same(monkeypatch):
    """How often the teacher travels is told by `tests/planning/test_budgets.py`."""
    task, mesh, batch = stage_two(mode="isd"), meshes.make_mesh(1, 4, 2), packed_talker_batch()
    found = []
    for gather in (gather_once, lambda params: params):
        monkeypatch.setattr(stage, "gather_once", gather)
        with jax.set_mesh(mesh):
            places = meshes.param_shardings(mesh, jax.eval_shape(task.init, KEY))
            params = jax.jit(task.init, out_shardings=places)(KEY)
            args = params, create_frozen(task, mesh), meshes.put_batch(mesh, batch)
            found.append(
                jax.device_get(jax.jit(lambda *a: task.loss(*a, KEY, jnp.int32(0)))(*args))
            )
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2), (8, 1, 1), (1, 1, 8)])
def test_it_undoes_fsdp_and_nothing_else(shape):
    mesh, task = meshes.make_mesh(*shape), stage_two()
    shapes = jax.eval_shape(task.init, KEY)
    with jax.set_mesh(mesh):
        places = meshes.param_shardings(mesh, shapes)
        params = jax.jit(task.init, out_shardings=places)(KEY)
        whole = jax.jit(gather_once)(params)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(before, after)
        assert "fsdp" not in str(after.sharding.spec)
        assert ("tensor" in str(before.sharding.spec)) == (
            "tensor" in str(after.sharding.spec)
        ) or (shape[2] == 1)


def test_on_one_device_it_is_the_same_object():
    params = {"a": jnp.ones(3)}
    with jax.set_mesh(meshes.make_mesh(data=1)):
        assert gather_once(params) is params
