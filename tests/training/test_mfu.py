"""MFU: its definition, the FLOPs of a real Talker step beside XLA's, and the peak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.diffusion import masking
from mdmspeech.hardware import CHIPS, find_chip
from mdmspeech.models import talker
from mdmspeech.training.config import base
from mdmspeech.training.flops import count_flops
from mdmspeech.training.mfu import measured_matmul, mfu, model_flops, peak_flops
from mdmspeech.training.optim import ParamRule, make_optimizer
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.state import TrainState
from mdmspeech.training.step import make_train_step
from mdmspeech.training.task import Task


def test_the_definition():
    assert mfu(flops=6e12, seconds=3.0, devices=4, peak_flops=1e12) == 0.5
    assert mfu(6e12, 3.0, 4, 0.0) == 0.0 == mfu(6e12, 0.0, 4, 1e12)


def talker_step(remat="none", accum=1, length=64):
    """(task, optimizer, abstract state, abstract batch, step) of a small Talker in stage 2."""
    config = talker.TalkerConfig(
        dim=128, num_layers=2, num_heads=4, ffn_dim=256, symbols=20, symbol_lookahead=(2,)
    )
    sizes = dict(layout="packed", batch=4, length=length, symbols=32)
    task = TalkerTask(config, "mdm", None, masking.Bernoulli(), sizes=sizes, capacity=1.0)
    params = jax.eval_shape(task.init, jax.random.key(0))
    optimizer = make_optimizer(base().optim, 10, params, task.optimizer)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32),
        params,
        jax.eval_shape(optimizer.tx.init, params),
        None,
        rng,
    )
    return (
        task,
        optimizer,
        state,
        task.batch_spec(),
        make_train_step(task, optimizer, accum=accum, remat=remat),
    )


@pytest.mark.slow
def test_a_talker_step_agrees_with_the_compiler():
    task, optimizer, state, batch, step = talker_step()
    counted = count_flops(step, state, {}, batch)
    said = jax.jit(step).lower(state, {}, batch).compile().cost_analysis()["flops"]
    # XLA also counts the elementwise work (softmax over 6.6k tokens, norms, Adam) that no matrix
    # unit does: hence the ceiling, not equality.
    assert 0.85 * said < counted <= 1.01 * said
    assert model_flops(task, optimizer, state.params, {}, batch) == counted


def test_running_the_step_otherwise_changes_no_model_flops():
    task, optimizer, state, batch, _ = talker_step()
    plain = model_flops(task, optimizer, state.params, {}, batch)
    *_, again = talker_step(remat="full")
    assert count_flops(again, state, {}, batch) > 1.03 * plain, "recomputation is work"
    *_, cut = talker_step(accum=2)
    # The table of token embeddings is computed for each micro-batch; the pass that only counts
    # denominators must not count.
    assert plain < count_flops(cut, state, {}, batch) < 1.2 * plain


class Remade(Task):
    """One product under `jax.checkpoint`, and a table that nobody trains."""

    optimizer = (ParamRule("w"), ParamRule("table", frozen=True))

    def loss(self, params, frozen, batch, rng, step):
        inner = jax.checkpoint(lambda w, x: jnp.square(jnp.tanh(x @ w) @ w))
        value = inner(params["w"], batch["x"] @ params["table"]).sum()
        return {
            "loss": (value, jnp.float32(1)),
            "seen": ((batch["x"] @ batch["x"]).sum(), jnp.float32(1)),
        }


def test_neither_recomputed_nor_frozen_nor_unweighted_parts_count():
    square = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    task, params = Remade(), {"w": square, "table": square}
    optimizer = make_optimizer(base().optim, 10, params, task.optimizer)
    # Forward: three products; backward:
    # two for the second use of w, one for the first; none for the table.
    assert model_flops(task, optimizer, params, {}, {"x": square}) == (3 + 3) * 2 * 8**3


def test_peaks():
    cpu = jax.devices()[0]
    assert peak_flops(cpu, override=5e12) == 5e12
    assert peak_flops(cpu) == measured_matmul() / 8 > 1e7
    half = peak_flops(cpu, precision="bfloat16")
    assert half == measured_matmul(precision="bfloat16") / 8 != peak_flops(cpu)
    for kind, name in {
        "TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5p": "v5p", "TPU v6 lite": "v6e",
        "NVIDIA H200": "H200",
        "NVIDIA H100 80GB HBM3": "H100", "NVIDIA A100-SXM4-80GB": "A100", "NVIDIA L4": "L4",
    }.items():  # fmt: skip
        assert find_chip(kind) is CHIPS[name], kind
    for kind in ("cpu", "NVIDIA L40S", "NVIDIA H100 PCIe", "TPU v9", "NVIDIA GeForce RTX 4090"):
        assert find_chip(kind) is None, kind
    assert np.isfinite(measured_matmul())
