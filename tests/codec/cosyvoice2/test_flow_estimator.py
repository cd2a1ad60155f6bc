"""The flow's estimator against the reference's arrays, in ragged batches, and block by block."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close

from mdmspeech.codec.cosyvoice2.flow_estimator import (
    EstimatorCache,
    FlowEstimator,
    FlowEstimatorConfig,
    time_sinusoid,
)
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks, chunk_mask
from mdmspeech.interop.cosyvoice2_flow import estimator_rules
from mdmspeech.interop.rules import import_params
from mdmspeech.interop.tensors import read_tensors

GOLDEN = Path(__file__).parents[2] / "fixtures" / "cosyvoice2"
SIZES = json.loads((GOLDEN / "flow_estimator.json").read_text())["config"]
CONFIG = FlowEstimatorConfig(
    num_mels=SIZES["out_channels"],
    channels=SIZES["channels"],
    num_heads=SIZES["heads"],
    head_dim=SIZES["head_dim"],
    stage_num_layers=SIZES["n_blocks"],
    mid_stages=SIZES["num_mid_blocks"],
)
ESTIMATOR = FlowEstimator(CONFIG)
apply = jax.jit(ESTIMATOR.apply, static_argnames="capture_intermediates")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "flow_estimator.npz")


@pytest.fixture(scope="module")
def inputs(golden):
    """State, means, speaker, prompt, time, valid frames."""
    frame_first = lambda name: jnp.asarray(golden[name].swapaxes(1, 2))
    x, mu, cond = frame_first("in.x"), frame_first("in.mu"), frame_first("in.cond")
    return x, mu, golden["in.spks"], cond, golden["in.t"], golden["in.mask"][:, 0] > 0


@pytest.fixture(scope="module")
def params(inputs):
    shapes = jax.eval_shape(ESTIMATOR.init, jax.random.key(0), *inputs, chunk_mask(inputs[-1]))[
        "params"
    ]
    return import_params(
        read_tensors(GOLDEN / "flow_estimator.safetensors"),
        estimator_rules(CONFIG),
        shapes,
        "the estimator",
    )


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(
    ("case", "chunks"), [("full", None), ("streaming", Chunks(SIZES["static_chunk_size"]))]
)
def test_golden(golden, inputs, params, case, chunks):
    (velocity, cache), inner = apply(
        {"params": params}, *inputs, chunk_mask(inputs[-1], chunks), capture_intermediates=True
    )
    assert cache is None
    close(
        f"flow_estimator {case}.out.y", velocity.swapaxes(1, 2), golden[f"{case}.out.y"], atol=1e-4
    )
    if case == "streaming":
        return
    inner = inner["intermediates"]
    found = {
        "time_sinusoid": time_sinusoid(inputs[4], 4 * CONFIG.num_mels),
        "time_mlp": inner["time2"]["__call__"][0],
        "down0_resnet": inner["down"]["convs"]["__call__"][0][0].swapaxes(1, 2),
        "down0_transformer0": inner["down"]["block_0"]["__call__"][0][0],
    }
    for key, value in found.items():
        close(f"flow_estimator full.out.{key}", value, golden[f"full.out.{key}"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parity
def test_ragged_rows_equal_single_rows(inputs, params):
    """What stands behind the end of a row is anything but zero."""
    valid = np.arange(37)[None] < np.array([37, 22])[:, None]
    x = inputs[0] + 1.0
    together, _ = apply({"params": params}, x, *inputs[1:-1], valid, chunk_mask(valid))
    assert not np.asarray(together)[1, 22:].any()
    row = [a[1:, :22] if a.ndim == 3 else a[1:] for a in (x, *inputs[1:-1])]
    alone, _ = apply({"params": params}, *row, valid[1:, :22], chunk_mask(valid[1:, :22]))
    close("ragged rows equal single rows: flow estimator", together[1, :22], alone[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 2])
def test_blocks_equal_the_whole(inputs, params, left):
    """Blocks of one chunk with the cache of those before; the rows start late, at different frames."""
    size, length = 8, 32
    x, mu, speaker, cond, time, _ = inputs
    x, mu, cond = (a[:, :length] for a in (x, mu, cond))
    valid = jnp.arange(length)[None] >= jnp.array([0, 5])[:, None]
    whole, _ = apply(
        {"params": params}, x, mu, speaker, cond, time, valid, chunk_mask(valid, Chunks(size, left))
    )
    cache, known, parts = (
        EstimatorCache.zeros(CONFIG, 2, left * size),
        jnp.zeros((2, left * size), bool),
        [],
    )
    for at in range(0, length, size):
        part = [a[:, at : at + size] for a in (x, mu, cond, valid)]
        known = jnp.concatenate([known, part[3]], axis=1)
        mask = jnp.broadcast_to(known[:, None], (2, size, known.shape[1]))
        velocity, cache = apply(
            {"params": params}, part[0], part[1], speaker, part[2], time, part[3], mask, cache
        )
        known = known[:, size:]
        parts.append(velocity)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
