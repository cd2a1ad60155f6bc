"""Gradients of micro-batches, added over the devices once: the same numbers, fewer transfers."""

import re

import jax
import numpy as np
import pytest
from real import packed_talker_batch, stage_one, stage_one_batch, stage_two
from tiny import TinyTask

from mdmspeech.planning import hlo
from mdmspeech.training import mesh as meshes
from mdmspeech.training.config import base
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.state import abstract_state, create_frozen, create_state, frozen_shapes
from mdmspeech.training.step import make_train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")
RNG, FULL = jax.random.key(0), pytest.mark.full


def compiled(task, batch, mesh, **settings):
    """(step, its arguments, its program as text)."""
    config = base()
    optimizer = make_optimizer(config.optim, 20, jax.eval_shape(task.init, RNG), task.optimizer)
    with jax.set_mesh(mesh):
        state = create_state(task.init, optimizer, RNG, False, mesh)
        frozen = create_frozen(task, mesh)
        arrays = meshes.put_batch(mesh, batch)
        places = jax.tree.map(
            lambda x: x.sharding, abstract_state(task.init, optimizer, RNG, False, mesh)
        )
        step = jax.jit(make_train_step(task, optimizer, **settings), out_shardings=(places, None))
        program = step.lower(state, frozen, arrays).compile()
        after, metrics = program(state, frozen, arrays)
    return jax.tree.map(np.asarray, after.opt_state), metrics, program.as_text()


def reductions_in_loops(text):
    """Sizes in bytes of what is added over devices inside loops."""
    module, found = hlo.parse(text), []
    for name, times in module.executed():
        if times > 1:
            found += [
                sum(a.bytes for a in i.arrays)
                for i in module.computations[name]
                if re.match(r"all-reduce|reduce-scatter", i.opcode)
            ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_of", "batch_of", "shape"),
    [
        pytest.param(stage_two, lambda: packed_talker_batch(batch=16), (4, 2, 1), marks=FULL),
        pytest.param(
            lambda: stage_two(mode="isd"),
            lambda: packed_talker_batch(batch=16),
            (2, 2, 2),
            marks=FULL,
        ),
        (stage_one, lambda: stage_one_batch(batch=16), (8, 1, 1)),
    ],
)
def test_the_same_update_as_on_one_device_with_one_reduction(task_of, batch_of, shape):
    batch = batch_of()
    one, wanted, _ = compiled(task_of(), batch, meshes.make_mesh(data=1), accum=2)
    many, found, text = compiled(task_of(), batch, meshes.make_mesh(*shape), accum=2)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6)
    if shape[1] == shape[2] == 1:
        largest = max(reductions_in_loops(text), default=0)
        assert largest < 1000, "no gradient travels inside the loop"


class Both(TinyTask):
    """Its rows do not count by themselves: noise is drawn in the loss."""


def test_a_task_that_draws_in_its_loss_is_left_to_the_compiler():
    batch = {k: v for k, v in next(TinyTask(16).batches("train", 0)).items() if k != "id"}
    _, one, _ = compiled(Both(16), batch, meshes.make_mesh(data=1), accum=2)
    _, many, _ = compiled(Both(16), batch, meshes.make_mesh(4), accum=2)
    np.testing.assert_allclose(many["loss"], one["loss"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "accum", "added_in"),
    [("float32", 1, {"f32"}), ("float32", 2, {"f32"}), ("compute", 2, {"bf16"})],
)
def test_in_which_type_gradients_are_added(kind, accum, added_in):
    """Of a step in bfloat16, as the program says before a compiler changes it."""
    task, mesh, config = stage_two(), meshes.make_mesh(8), base()
    optimizer = make_optimizer(config.optim, 20, jax.eval_shape(task.init, RNG), task.optimizer)
    with jax.set_mesh(mesh):
        state = abstract_state(task.init, optimizer, RNG, False, mesh)
        step = make_train_step(task, optimizer, accum, dtype="bfloat16", reduce_dtype=kind)
        arrays = meshes.put_batch(mesh, packed_talker_batch(batch=16))
        text = jax.jit(step).lower(state, frozen_shapes(task, mesh, "bfloat16"), arrays).as_text()
    reduced = re.findall(r"stablehlo.all_reduce.*?\) : \(tensor<([\dx]*)(\w+)>\)", text, re.DOTALL)
    matrices = {kind for shape, kind in reduced if shape.count("x") >= 2}
    assert matrices == added_in
