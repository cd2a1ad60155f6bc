"""The flow's encoder against the reference's arrays, in ragged batches, and window by window."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close, same

from mdmspeech.codec.cosyvoice2.flow_encoder import (
    EncoderCache,
    FlowEncoder,
    FlowEncoderConfig,
    by_key,
    distance_table,
)
from mdmspeech.codec.cosyvoice2.flow_layers import Chunks, chunk_mask
from mdmspeech.errors import UserError
from mdmspeech.interop.cosyvoice2_flow import encoder_rules
from mdmspeech.interop.rules import import_params
from mdmspeech.interop.tensors import read_tensors

GOLDEN = Path(__file__).parents[2] / "fixtures" / "cosyvoice2"
SIZES = json.loads((GOLDEN / "flow_encoder.json").read_text())["config"]
CONFIG = FlowEncoderConfig(
    dim=SIZES["d"], num_heads=SIZES["heads"], ffn_dim=SIZES["ffn"], num_layers=SIZES["num_blocks"]
)
CHUNKS = Chunks(SIZES["static_chunk_size"])
AHEAD = CONFIG.lookahead
ENCODER = FlowEncoder(CONFIG)
apply = jax.jit(ENCODER.apply, static_argnames="capture_intermediates")


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "flow_encoder.npz")


@pytest.fixture(scope="module")
def params():
    example = (
        jnp.ones((1, 2 + AHEAD), bool),
        jnp.ones((1, 2), bool),
        jnp.ones((1, 2, 2), bool),
        jnp.ones((1, 4, 4), bool),
    )
    shapes = jax.eval_shape(
        ENCODER.init, jax.random.key(0), jnp.zeros((1, 2 + AHEAD, CONFIG.dim)), *example
    )["params"]
    return import_params(
        read_tensors(GOLDEN / "flow_encoder.safetensors"),
        encoder_rules(CONFIG),
        shapes,
        "the encoder",
    )


def encode(params, x, present, spoken, chunks=None):
    """Embeddings [B, T, D], of which `present` [B] are tokens and `spoken` [B] of those are encoded
    -> (states, inner outputs).
    """
    length = x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, AHEAD), (0, 0)))
    present, valid = (
        jnp.arange(n)[None] < jnp.asarray(count)[:, None]
        for n, count in ((length + AHEAD, present), (length, spoken))
    )
    masks = chunk_mask(valid, chunks), chunk_mask(jnp.repeat(valid, 2, axis=1), chunks, rate=2)
    (states, cache), inner = apply(
        {"params": params}, x, present, valid, *masks, capture_intermediates=True
    )
    assert cache is None
    return np.asarray(states), inner["intermediates"]


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(("case", "chunks"), [("full", None), ("streaming", CHUNKS)])
def test_golden(golden, params, case, chunks):
    """In the reference's batch the padding (zeros, but not after the input layer) leaks into the
    last tokens of the shorter row: what three zero vectors to look at give here.
    """
    lengths = golden["in.xs_lens"].tolist()
    present = [lengths[0], lengths[1] + AHEAD]
    states, inner = encode(params, golden["in.xs"], present, lengths, chunks)
    for row, length in enumerate(lengths):
        same(
            f"flow_encoder {case}.out.masks",
            np.arange(states.shape[1]) < 2 * length,
            golden[f"{case}.out.masks"][row, 0] > 0,
        )
        close(
            f"flow_encoder {case}.out.ys",
            states[row, : 2 * length],
            golden[f"{case}.out.ys"][row, : 2 * length],
            atol=1e-4,
        )
    if case == "streaming":
        return
    first = lambda name: np.asarray(jax.tree.leaves(inner[name]["__call__"])[0])
    where = {
        "embed": "embed",
        "pre_lookahead": "lookahead",
        "block0": "block_0",
        "up_layer": "up",
        "up_block0": "up_block_0",
    }
    for theirs, ours in where.items():
        expected = golden[f"full.out.{theirs}"]
        rate = expected.shape[1] // golden["in.xs"].shape[1]
        for row, length in enumerate(lengths):
            close(
                f"flow_encoder full.out.{theirs}",
                first(ours)[row, : rate * length],
                expected[row, : rate * length],
                atol=5e-4,
            )


@pytest.mark.parity
@pytest.mark.parametrize(
    ("case", "chunks"), [("context_full", None), ("context_streaming", CHUNKS)]
)
def test_golden_with_tokens_only_looked_at(golden, params, case, chunks):
    length = int(golden["in.xs_lens"][0])
    states, _ = encode(params, golden["in.xs"][:1, :length], [length], [length - AHEAD], chunks)
    expected = golden[f"{case}.out.ys"]
    close(f"flow_encoder {case}.out.ys", states[:, : expected.shape[1]], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("chunks", [None, CHUNKS, Chunks(4, left=1)], ids=str)
def test_ragged_rows_equal_single_rows(params, chunks):
    """What stands behind the end of a row is anything but zero."""
    x = jax.random.normal(jax.random.key(0), (3, 14, CONFIG.dim))
    present, spoken = [14, 9, 4], [14, 9, 1]
    together, _ = encode(params, x, present, spoken, chunks)
    for row in range(3):
        alone, _ = encode(
            params,
            x[row : row + 1, : present[row]],
            present[row : row + 1],
            spoken[row : row + 1],
            chunks,
        )
        close(
            "ragged rows equal single rows: flow encoder",
            together[row, : 2 * spoken[row]],
            alone[0, : 2 * spoken[row]],
            atol=2e-5,
        )


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1, 3])
def test_windows_equal_the_whole(params, left):
    """Windows of one chunk with the cache of those before give the states of the whole sequence
    under the chunk mask.
    """
    size, length = 5, 20
    x = jax.random.normal(jax.random.key(1), (2, length, CONFIG.dim))
    whole, _ = encode(params, x, [length] * 2, [length - AHEAD] * 2, Chunks(size, left))
    cache, parts, known = (
        EncoderCache.zeros(CONFIG, 2, left * size),
        [],
        np.zeros((2, left * size), bool),
    )
    for at in range(0, length - AHEAD - size + 1, size):
        window = x[:, at : at + size + AHEAD]
        known = np.concatenate([known, np.ones((2, size), bool)], axis=1)[:, -(left + 1) * size :]
        masks = (
            jnp.broadcast_to(
                jnp.repeat(known, n, axis=1)[:, None], (2, n * size, n * known.shape[1])
            )
            for n in (1, 2)
        )
        present = jnp.ones((2, size + AHEAD), bool)
        states, cache = apply({"params": params}, window, present, present[:, :size], *masks, cache)
        parts.append(states)
        known = known[:, size:]
    streamed = np.concatenate(parts, axis=1)
    assert streamed.shape[1] == 30
    np.testing.assert_allclose(streamed, whole[:, :30], atol=2e-5)


@pytest.mark.parametrize(("length", "history"), [(1, 0), (4, 0), (3, 5)])
def test_by_key_picks_the_distance(length, history):
    table = distance_table(length, history, 8)
    far = (
        np.arange(len(table), dtype=np.float32)[None, None, None]
        + 100 * np.arange(length)[None, None, :, None]
    )
    got = by_key(jnp.asarray(far), history + length)
    for query in range(length):
        for key in range(history + length):
            distance = history + query - key
            place = int(got[0, 0, query, key]) - 100 * query
            np.testing.assert_allclose(
                table[place, :2], [np.sin(distance), np.cos(distance)], atol=1e-6
            )


def test_bad_sizes_are_named():
    with pytest.raises(UserError, match="multiple of its 5 heads"):
        FlowEncoderConfig(dim=32, num_heads=5)
    with pytest.raises(UserError, match="chunks of 0 tokens"):
        Chunks(0)
