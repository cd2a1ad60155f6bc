"""More hidden tokens than the output layer has places for: none is left out, of the loss or of what
it teaches, and it is told.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.diffusion import distill, masking, objective
from mdmspeech.models import talker
from mdmspeech.nn import losses
from mdmspeech.training.stages.talker import TalkerTask

pytestmark = pytest.mark.usefixtures("quick_compilation")
TALKER = talker.TalkerConfig(
    dim=64, num_layers=1, num_heads=1, ffn_dim=32, symbols=20, symbol_lookahead=(2,)
)
BATCH = {
    "tokens": jnp.asarray(np.random.default_rng(0).integers(0, 6561, (2, 32))),
    "valid": jnp.ones((2, 32), bool).at[1, 24:].set(False),
    "symbols": jnp.ones((2, 8), jnp.int32),
    "symbols_valid": jnp.ones((2, 8), bool),
    "durations": jnp.full((2, 8), 4.0),
}
MANY, FEW = masking.Bernoulli(0.9, 1.0), masking.Bernoulli(0.2, 0.4)


def losses_and_gradients(mode, schedule, capacity):
    task = TalkerTask(
        TALKER,
        mode,
        None,
        schedule,
        capacity=capacity,
        distillation={"iterations": 2} if mode == "isd" else {},
    )
    params, teacher = (random_params(talker.init, TALKER, jax.random.key(seed)) for seed in (0, 1))

    def total(params):
        losses = task.loss(params, {"teacher": teacher}, BATCH, jax.random.key(2), jnp.int32(0))
        return losses["token"][0] / losses["token"][1], losses

    (_, losses), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    return jax.tree.map(float, losses), grads


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "schedule", "over"),
    [("mdm", MANY, 1.0), ("mdm", FEW, 0.0), ("isd", MANY, 1.0)],
    ids=["mdm many", "mdm few", "isd many"],
)
def test_it_is_as_with_a_place_for_each(mode, schedule, over):
    hidden = schedule.sample(jax.random.key(2), BATCH["valid"], TALKER.block).mask_BL.sum()
    assert (hidden > 0.75 * 64) == bool(over)  # else this test shows nothing
    wanted, wanted_grads = losses_and_gradients(mode, schedule, 1.0)
    losses, grads = losses_and_gradients(mode, schedule, 0.75)
    assert losses.pop("over_capacity") == (over, 1.0)
    assert losses["left_out"] == (0.0, float(hidden)) and losses["token"][1] == float(hidden)
    assert losses == {
        name: (pytest.approx(a, rel=1e-5), pytest.approx(b)) for name, (a, b) in wanted.items()
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, wanted_grads)


@pytest.mark.parametrize("rates", [(0.3, 1.0), (0.3, 0.8)])
def test_the_shipped_masks_do_exceed_their_places(rates):
    """So the long way is taken: of 200 batches of 8 rows as experiments/own_voice.py has them, a
    few of the first kind.
    """
    schedule, valid = masking.Bernoulli(*rates), jnp.ones((8, 256), bool)

    def left_out(key):
        mask = schedule.sample(key, valid, 16).mask_BL
        return objective.overflow(mask, objective.gather_masked(mask, int(0.75 * mask.size))[0])

    over = np.asarray(jax.lax.map(left_out, jax.random.split(jax.random.key(0), 200))) > 0
    assert 0.03 < over.mean() < 0.15 if rates == (0.3, 1.0) else over.mean() < 0.03


@pytest.mark.parametrize(
    "settings",
    [{"label_smoothing": 0.3}, {"z_loss": 0.01}, {"label_smoothing": 0.1, "z_loss": 0.1}, {}],
)
@pytest.mark.parametrize("a", [0.0, 0.7, 1.0])
def test_smoothing_and_z_loss_are_those_of_the_cross_entropy_part(settings, a):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 7)).astype(np.float32)
    targets, weight = rng.integers(0, 7, 5), np.float32([1, 1, 0, 1, 1])
    got = distill.isd_loss(student, teacher, targets, weight, a=a, **settings)
    ce = float((losses.cross_entropy(student, targets, **settings) * weight).sum())
    kl = float((distill.kl(student, teacher) * weight).sum())
    assert float(got.ce_sum) == pytest.approx(ce, rel=1e-5) and float(got.kl_sum) == pytest.approx(
        kl, rel=1e-5
    )
    assert float(got.loss_sum) == pytest.approx(a * kl + (1 - a) * ce, rel=1e-5)


def test_they_reach_distillation():
    def ce(**settings):
        task = TalkerTask(
            TALKER, "isd", None, FEW, capacity=1.0, distillation={"iterations": 1}, **settings
        )

        @jax.jit
        def loss(params):
            return task.loss(params, {"teacher": params}, BATCH, jax.random.key(2), jnp.int32(0))

        losses = loss(random_params(talker.init, TALKER, jax.random.key(0)))
        return float(losses["ce"][0] / losses["ce"][1]), float(losses["kl"][0])

    plain, smooth = ce(), ce(z_loss=1.0)
    # log(6566)^2 is 77
    assert smooth[0] > plain[0] + 10 and smooth[1] == pytest.approx(plain[1], abs=1e-4)
