"""The update: accumulation, weights, EMA, empty losses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TinyTask, tiny_config

from mdmspeech.planning.program import train_program
from mdmspeech.training.loop import train
from mdmspeech.training.mesh import make_mesh
from mdmspeech.training.metrics import read_metrics
from mdmspeech.training.optim import make_optimizer
from mdmspeech.training.state import create_state
from mdmspeech.training.step import make_train_step, padding

pytestmark = pytest.mark.usefixtures("quick_compilation")


def one_step(task, accum=1, size=24, mask=None, number=0):
    config, rng = tiny_config(), jax.random.key(0)
    config.optim.warmup = 0
    optimizer = make_optimizer(config.optim, 8, jax.eval_shape(task.init, rng), task.optimizer)
    state = create_state(task.init, optimizer, rng, True, make_mesh(data=1))
    state = state.replace(step=state.step + number)
    batch = {k: jnp.asarray(v) for k, v in next(task.batches("train", 0)).items() if k != "id"}
    if mask is not None:
        batch["mask"] = jnp.full((size,), mask, jnp.float32)
    step = jax.jit(make_train_step(task, optimizer, accum, ema_decay=0.9))
    return state, *step(state, task.init_frozen(rng), batch)


@pytest.mark.parametrize("accum", [2, 4, 8])
def test_micro_batches_equal_one_batch_though_their_counts_differ(accum):
    # rows m::accum have unequal mask counts, so a mean of means would differ
    task = TinyTask(size=24, noise=0.0)
    _, whole, whole_metrics = one_step(task)
    _, cut, cut_metrics = one_step(task, accum)
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(cut_metrics[name], value, rtol=2e-5, err_msg=name)
    for a, b in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(cut.opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


class Draws(TinyTask):
    weights = {"draw": 1.0}

    def loss(self, params, frozen, batch, rng, step):
        return {"draw": (jax.random.normal(rng) * params["out"]["bias"].sum(), jnp.float32(1))}


def test_each_update_has_its_own_key():
    first, second = (
        float(one_step(Draws(size=24), number=number)[2]["grad_norm"]) for number in (0, 1)
    )
    assert first != pytest.approx(second)


def test_each_micro_batch_has_its_own_key():
    task = Draws(size=24)
    norms = [float(one_step(task, accum)[2]["grad_norm"]) for accum in (1, 2)]
    # one key: mean of two equal draws = the draw of accum 1
    assert norms[0] != pytest.approx(norms[1])


def test_metrics_are_the_weighted_sum():
    _, _, metrics = one_step(TinyTask(size=24))
    assert float(metrics["loss"]) == pytest.approx(
        float(metrics["mse"] + 0.1 * metrics["size"]), rel=1e-6
    )


def test_nothing_counted_is_zero_not_nan():
    _, state, metrics = one_step(TinyTask(size=24), mask=0.0)
    assert float(metrics["mse"]) == 0.0
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(state.params))


def test_ema_lies_between():
    before, after, _ = one_step(TinyTask(size=24))
    old, new, ema = (
        np.asarray(t["in"]["kernel"]) for t in (before.params, after.params, after.ema)
    )
    rate = 1 - 0.1  # first step: decay (1 + 0) / (10 + 0)
    np.testing.assert_allclose(ema, old + rate * (new - old), rtol=1e-5)
    assert np.abs(new - old).max() > 0


def test_after_a_while_the_average_decays_as_it_is_told_to():
    # by then the ramp (1 + 1000) / (10 + 1000) is above the decay of 0.9
    before, after, _ = one_step(TinyTask(size=24), number=1000)
    old, new, ema = (
        np.asarray(t["in"]["kernel"]) for t in (before.params, after.params, after.ema)
    )
    np.testing.assert_allclose(ema, old + 0.1 * (new - old), rtol=1e-5, atol=1e-9)


def test_a_weight_without_a_loss_is_an_error():
    task = TinyTask(size=24)
    task.weights = {"mse": 1.0, "msee": 1.0}
    with pytest.raises(ValueError, match="msee"):
        one_step(task)


def test_a_batch_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match=r"24 does not divide into train\.accum=5"):
        one_step(TinyTask(size=24), accum=5)


def test_padding_is_told_by_the_arrays_that_mark_it():
    batch = {
        "segment": np.array([[1, 1, 2, 0]]),
        "mel_segment": np.array([[3, 0]]),
        "text_valid": np.ones((1, 3), bool),
        "ids": np.zeros((1, 4)),
    }
    assert {name: float(share) for name, share in padding(batch).items()} == {
        "padding": 0.25,
        "padding_mel": 0.5,
        "padding_text": 0.0,
    }


@pytest.mark.parametrize("accum", [1, 2])
def test_a_run_multiplies_as_its_setting_says_and_a_plan_counts_the_same_program(tmp_path, accum):
    def losses(precision):
        config = tiny_config(steps=2, matmul_precision=precision, accum=accum)
        train(config, TinyTask(noise=0.0), tmp_path / precision)
        rows = read_metrics(tmp_path / precision / "metrics.jsonl")
        return np.array([row["train/loss"] for row in rows if "train/loss" in row])

    full, half = losses("default"), losses("bfloat16")
    np.testing.assert_allclose(half, full, rtol=0.01)
    assert (half != full).all()
    for precision, factors in (("default", "f32"), ("bfloat16", "bf16")):
        config = tiny_config(matmul_precision=precision, accum=accum)
        program = train_program(config, Planned(size=8), make_mesh(data=1))
        text = jax.jit(program.function).lower(*program.arguments).as_text()
        found = re.findall(r"dot_general.*?: \(tensor<\d+x\d+x(\w+)>, tensor<\d+x\d+x(\w+)>", text)
        assert len(found) >= 5
        assert set(found) == {(factors, factors)}


class Planned(TinyTask):
    """With the shapes of a batch, as a plan needs them."""

    def batch_spec(self):
        of = lambda *shape: jax.ShapeDtypeStruct((self.size, *shape), jnp.float32)
        return {"x": of(6), "y": of(1), "mask": of()}
