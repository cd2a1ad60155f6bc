"""A Talker with the label shift: its training is the next-token Talker's at blocks of one, and what
it is trained on is what it is decoded on.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.diffusion import masking
from mdmspeech.inference.conditioning import PacedInputs, PacedReader
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.models import talker
from mdmspeech.models.talker import CodeTable
from mdmspeech.speech_format import CODES, MASK
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.stages.talker_batches import Rows

pytestmark = pytest.mark.usefixtures("quick_compilation")
SHIFTED = talker.TalkerConfig(
    dim=64,
    num_layers=1,
    num_heads=2,
    ffn_dim=64,
    symbols=20,
    symbol_lookahead=(2,),
    label_shift=True,
)
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def params():
    params = random_params(talker.init, SHIFTED, jax.random.key(0))
    params["outputs"]["table"] = params["outputs"]["table"] * 30
    return params


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "tokens": jnp.asarray(rng.integers(0, CODES, (2, 32))),
        "valid": jnp.ones((2, 32), bool).at[1, 16:].set(False),
        "symbols": jnp.asarray(rng.integers(0, 20, (2, 12))),
        "symbols_valid": jnp.ones((2, 12), bool).at[1, 6:].set(False),
        "durations": jnp.full((2, 12), 2.7),
    }


def value_and_grad(task, params, batch):
    def total(params):
        numerator, denominator = task.loss(params, {}, batch, KEY, jnp.int32(0))["token"]
        return numerator / denominator

    return jax.jit(jax.value_and_grad(total))(params)


@pytest.fixture(scope="module")
def next_token(params, batch):
    """Loss and gradients of next-token prediction."""
    return value_and_grad(TalkerTask(SHIFTED, "ntp", None), params, batch)


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 2])
def test_blocks_of_one_token_that_are_all_hidden_are_the_next_token_loss(
    params, batch, next_token, streams
):
    """The strongest identity there is: same value and same gradients, of every parameter."""
    one = dataclasses.replace(SHIFTED, block=1)
    shifted = TalkerTask(
        one, "mdm", None, masking.Bernoulli(1.0, 1.0), capacity=1.0, streams=streams
    )
    loss, grads = value_and_grad(shifted, params, batch)
    expected, expected_grads = next_token
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), grads, expected_grads)
    assert np.abs(grads["inputs"]["table"][MASK]).max() == 0  # no mask is ever seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "streams"),
    [(16, 1), (16, 2), (32, 1)],
    ids=["block-causal", "two streams", "bidirectional"],
)
def test_what_is_trained_is_what_is_decoded(params, batch, block, streams):
    """The engine, over its cache, says of the last block what the training forward says of it when
    it is all that is hidden.
    """
    config = dataclasses.replace(SHIFTED, block=block)
    engine = TalkerEngine(config, params)
    reader = PacedReader(engine.talker, engine.params)
    features, _ = reader.read(batch["symbols"], batch["symbols_valid"])
    count_B = np.asarray(batch["symbols_valid"]).sum(axis=1, dtype=np.int32)
    rows = [slice(b, b + 1) for b in range(2)]
    heard = [PacedInputs(features[b], batch["durations"][b], count_B[b]) for b in rows]
    spoken = [tokens for _, tokens in engine.decode(heard, steps=1, target_len=32)]
    ids_BL, confidence_BL = (
        np.stack([getattr(one, name) for one in spoken]) for name in ("ids_N", "confidence_N")
    )

    task = TalkerTask(config, "mdm", None, capacity=1.0, streams=streams)
    rows = Rows.of(batch | {"tokens": jnp.asarray(ids_BL), "valid": jnp.ones((2, 32), bool)})
    noisy = rows.tokens.at[:, 32 - block :].set(MASK)

    @jax.jit
    def chances(params):
        cond, _ = task.condition(params, batch)
        return jax.nn.softmax(task.logits(params, task._denoise(params, noisy, cond, rows)))[
            :, 32 - block :, :CODES
        ]

    chance = np.asarray(chances(params))
    np.testing.assert_array_equal(chance.argmax(axis=-1), ids_BL[:, 32 - block :])
    np.testing.assert_allclose(chance.max(axis=-1), confidence_BL[:, 32 - block :], rtol=1e-3)
    assert len(np.unique(ids_BL)) > 16


def test_distillation_reads_teacher_and_student_alike(params, batch):
    """A student that is its teacher, on one refinement: no divergence, with the shift as without."""
    task = TalkerTask(
        SHIFTED,
        "isd",
        None,
        masking.Hierarchical(),
        capacity=1.0,
        distillation={"iterations": 1},
        start=lambda: params,
    )
    losses = jax.jit(lambda p: task.loss(p, {"teacher": p}, batch, KEY, jnp.int32(0)))(params)
    assert losses["kl"][1] > 0 and abs(losses["kl"][0] / losses["kl"][1]) < 1e-5


def test_one_over_t_divides_by_the_tokens_there_are(params, batch):
    """LLaDA's bound: the weighted sum over the valid tokens, not over the sum of the weights, which
    it equals on average only.
    """
    schedule = masking.get("inverse_t", low=0.05)
    losses = jax.jit(
        lambda p: TalkerTask(SHIFTED, "mdm", None, schedule, capacity=1.0).loss(
            p, {}, batch, KEY, jnp.int32(0)
        )
    )(params)
    assert losses["token"][1] == batch["valid"].sum()


def test_from_next_token_weights_only_the_mask_row_is_new(params):
    task = TalkerTask(SHIFTED, "mdm", None, start=lambda: params, new_mask=True)
    fresh = random_params(talker.init, SHIFTED, jax.random.key(3))
    started = task.warm_start(fresh)
    rows = CodeTable(64, True, 1.0).apply({"params": params["inputs"]})
    np.testing.assert_allclose(
        started["inputs"]["table"][MASK], rows[:CODES].mean(axis=0), atol=1e-6
    )
    kept = started["inputs"]["table"].at[MASK].set(params["inputs"]["table"][MASK])
    jax.tree.map(
        np.testing.assert_array_equal,
        {**started, "inputs": {**started["inputs"], "table": kept}},
        params,
    )
