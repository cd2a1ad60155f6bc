"""Every experiment can be built without data or weights; its losses fit its weights; its size is
what its docstring's model has.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.large import LAYOUTS
from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.errors import UserError
from mdmspeech.planning.topology import parse
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.optim import make_optimizer, match_rules
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.ranges import check_ranges
from mdmspeech.training.state import create_frozen, create_state
from mdmspeech.training.step import make_train_step

ROOT = Path(__file__).parents[2] / "experiments"
EXPERIMENTS = sorted(
    path.stem
    for path in ROOT.glob("*.py")
    if "def get_config" in path.read_text() and path.stem != "plan_list"
)
SHORT = (
    "compact_talker_isd",
    "compact_hearing",
    "thinker_1b",
    "talker_8b",
    "talker_isd_06b",
)  # of each stage one; all with `make test-full`
LARGE = [name for name in EXPERIMENTS if name.rsplit("_", 1)[-1] in ("06b", "1b", "8b")]


def load(name, argument="", tmp_path=Path()):
    config = load_config(f"{ROOT / name}.py{':' * bool(argument)}{argument}")
    return config, make_task(config, tmp_path / "run")


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def test_three_stages_at_three_sizes():
    assert len(LARGE) == 9


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_is_whole_without_data_or_weights(name):
    _, task = load(name)
    key = jax.random.key(0)
    params, frozen = jax.eval_shape(task.init, key), jax.eval_shape(task.init_frozen, key)
    match_rules(params, task.optimizer)
    losses = jax.eval_shape(
        task.loss, params, frozen, task.batch_spec(), key, jax.ShapeDtypeStruct((), jnp.int32)
    )
    assert set(task.weights) <= set(losses)
    assert all(part.shape == () for pair in losses.values() for part in pair)


@pytest.mark.parametrize(
    ("name", "frozen", "trained"),
    [
        ("thinker_8b", 8.83e9, 43.3e6),
        ("talker_8b", 7.57e9, 1.229e9),
        ("talker_06b", 0.596e9, 86.8e6),
    ],
)
def test_sizes(name, frozen, trained):
    """8.83 B: Qwen3-8B's 8.19 B and the encoder of Whisper-large-v3; 7.57 B: without its output
    layer, which a Thinker that only reads has no use for. A Talker of four layers of width 4,096 has
    more than a billion.
    """
    _, task = load(name)
    assert size(jax.eval_shape(task.init_frozen, jax.random.key(0))) == pytest.approx(
        frozen, rel=0.01
    )
    assert size(jax.eval_shape(task.init, jax.random.key(0))) == pytest.approx(trained, rel=0.005)


@pytest.mark.parametrize(
    ("name", "slice_name", "mesh", "batch", "accum"),
    [
        ("talker_8b", "", (-1, 8, 1), 512, 1),
        ("talker_8b", "v5e-16", (-1, 8, 1), 512, 4),
        ("talker_8b", "v5e-256", (-1, 8, 1), 512, 1),
        ("talker_8b", "v5p-64", (-1, 1, 1), 512, 2),
        ("talker_8b", "v6e-64", (-1, 4, 1), 512, 1),
        ("talker_8b", "v5p-2048", (-1, 1, 1), 1024, 1),
        ("talker_8b", "2xv5e-64", (-1, 8, 1), 512, 1),
        ("talker_isd_8b", "", (-1, 8, 1), 256, 1),
        ("thinker_8b", "", (-1, 4, 1), 128, 1),
        ("thinker_8b", "v6e-16", (-1, 2, 1), 128, 4),
        ("talker_1b", "", (-1, 1, 1), 512, 4),
        ("talker_isd_06b", "", (-1, 1, 1), 256, 4),
        ("thinker_06b", "v5e:1x1", (-1, 1, 1), 128, 64),
    ],
)
def test_one_recipe_cut_for_each_slice(name, slice_name, mesh, batch, accum):
    """The same rows an update, passes over the data and rates on every slice, in parts that fit."""
    config, usual = load(name, slice_name)[0], load(name)[0]
    assert tuple(config.mesh[axis] for axis in ("data", "fsdp", "tensor")) == mesh
    assert (config.data.batch, config.train.accum) == (batch, accum)
    chips = parse(slice_name or _slice_of(name)).chips
    stage = name.rpartition("_")[0]
    rows = LAYOUTS.get(name, LAYOUTS[stage])[parse(slice_name or "v5e-64").tpu.name].rows
    assert batch / chips / accum <= rows and batch % (chips * accum) == 0
    for section in ("optim", "masking", "talker"):
        if section in config:
            assert config[section] == usual[section]
    epochs = {"thinker": 1.0, "talker": 8.0, "talker_isd": 4.0}[stage]
    assert (config.train.steps, config.train.epochs, config.optim.warmup_share) == (0, epochs, 0.03)
    check_ranges(config)
    small = load(name, "runlocal")[0]
    assert (small.train.steps, small.train.epochs, small.train.accum) == (20, 0.0, 1)
    assert dict(small.mesh) == dict(data=-1, fsdp=1, tensor=1, slices=0)


def _slice_of(name):
    """The slice that an experiment's docstring names."""
    return re.search(r"laid out for a (\S+);", (ROOT / f"{name}.py").read_text())[1]


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("v5e-4", "8 chips of v5e hold this stage together"),
        ("2xv5e-4", "8 chips of v5e hold this stage together, a slice of 4 is too small"),
        ("v4-32", "how this stage lies on v4 was not planned"),
        ("v5e-7", "there is no slice"),
        ("large", "unknown topology"),
    ],
)
def test_slices_that_it_cannot_be_cut_for(argument, told):
    with pytest.raises(UserError, match=told):
        load("talker_8b", argument)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name in SHORT else pytest.param(name, marks=pytest.mark.full) for name in EXPERIMENTS],
)
def test_one_step_of_each_runs_locally(name, tmp_path):
    config, task = load(name, "runlocal", tmp_path)
    mesh, rng = make_mesh(data=1), jax.random.key(0)
    optimizer = make_optimizer(config.optim, 20, jax.eval_shape(task.init, rng), task.optimizer)
    state, frozen = create_state(task.init, optimizer, rng, False, mesh), create_frozen(task, mesh)
    batch = numbers_of(dict(next(iter(task.batches("train", 0)))))
    widest = task.batch_spec()
    assert {name: value.dtype for name, value in batch.items()} == {
        name: spec.dtype for name, spec in widest.items()
    }
    assert all(
        value.ndim == len(widest[name].shape) and len(value) == config.data.batch
        for name, value in batch.items()
    )
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = jax.jit(
        make_train_step(task, optimizer, dtype=config.train.dtype, remat=config.train.remat)
    )(state, frozen, batch)
    assert np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0
    assert not all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True)
    )
