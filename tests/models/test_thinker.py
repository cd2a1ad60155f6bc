"""The Thinker against golden Llama 3, Qwen2 and Qwen3 forwards and generations, and what makes its
decoding safe in batches.
"""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close, same
from stacked_layers import stack_layers

from mdmspeech.decoding.sampling import SamplingConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import thinker_config, thinker_params
from mdmspeech.interop.tensors import read_tensors
from mdmspeech.models.generation import (
    draw,
    empty_state,
    fit_state,
    jit_extend,
    jit_generate,
    read_token,
)
from mdmspeech.models.prepared_thinker import PreparedThinker
from mdmspeech.models.thinker import Thinker
from mdmspeech.nn.rope import rope_frequencies

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
NO_STOP = (-1,)


def _load(name):
    hf = json.loads((GOLDEN / f"{name}.json").read_text())["config"]["hf_config"]
    config = thinker_config(
        {"model_type": name[3:].rstrip("3") if name == "hf_llama3" else name[3:], **hf}
    )
    return (
        config,
        thinker_params(config, read_tensors(GOLDEN / f"{name}.safetensors"), name),
        np.load(GOLDEN / f"{name}.npz"),
    )


@pytest.fixture(scope="module", params=["module", "prepared"])
def qwen3(request):
    config, params, golden = _load("hf_qwen3")
    if request.param == "module":
        return Thinker(config), params, golden
    return *PreparedThinker.of(config, params), golden


def _read(thinker, params, rows, room):
    """State after reading ragged rows of ids (lists) in one right-padded batch."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
    x = jax.jit(lambda p: thinker.apply({"params": p}, ids, method=Thinker.embed))(params)
    return jit_extend(
        thinker, params, empty_state(thinker, len(rows), room), x, jnp.array([len(r) for r in rows])
    )


@functools.partial(jax.jit, static_argnums=0)
def _step(thinker, params, state):
    """The next token of both rows, its states, and the state that has read it, as a host loop goes on."""
    token_B = draw(state, _keys([0, 1]))
    return token_B, *read_token(thinker, params, state, token_B)[1:]


def _prompts(golden):
    pairs = zip(golden["generate.in.input_ids"], golden["generate.in.attention_mask"], strict=True)
    return [ids[mask.astype(bool)].tolist() for ids, mask in pairs]


def _keys(seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


@pytest.mark.parity
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize("name", ["hf_llama3", "hf_qwen2", "hf_qwen3"])
def test_forward(name, scan):
    config, params, golden = _load(name)
    if scan:
        config, params = (
            dataclasses.replace(config, scan_layers=True),
            {**params, "layers": stack_layers(params["layers"])},
        )
    thinker = Thinker(config)

    @jax.jit
    def forward(params, ids):
        apply = functools.partial(thinker.apply, {"params": params})
        (hidden, _), inside = apply(
            apply(ids, method="embed"),
            method="states",
            capture_intermediates=not scan,
            mutable="intermediates",
        )
        return hidden, apply(hidden, method="logits"), inside

    hidden, logits, inside = forward(params, golden["in.input_ids"])
    found = {"last_hidden_state": hidden, "logits": logits}
    if not scan:
        layer = inside["intermediates"]["layers"]["0"]
        found |= {
            "hidden_after_layer0": layer["__call__"][0][0],
            "layer0_attention": layer["attn"]["__call__"][0][0],
        }
    valid = golden["in.attention_mask"].astype(bool)
    for key, value in found.items():
        close(f"{name} out.{key}", np.asarray(value)[valid], golden[f"out.{key}"][valid], atol=1e-4)


@pytest.mark.parity
def test_llama3_frequencies():
    config, _, golden = _load("hf_llama3")
    found = rope_frequencies(config.head_dim, config.rope_theta, dict(config.rope_scaling))
    np.testing.assert_allclose(found, golden["out.inv_freq"], rtol=1e-6)
    close("hf_llama3 out.inv_freq", found, golden["out.inv_freq"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parity
def test_greedy_generation_of_ragged_rows(qwen3):
    """Right-padded here, left-padded in the reference: the same tokens, logits and states as each
    row alone.
    """
    thinker, params, golden = qwen3
    rows = _prompts(golden)
    state = _read(thinker, params, rows, 40)[1]
    out = jit_generate(thinker, params, state, _keys([0, 1]), stop_ids=NO_STOP, max_new=16)
    same("hf_qwen3 generate.out.tokens", out.tokens_BN, golden["generate.out.tokens"])
    logits = []
    for _ in range(16):
        logits.append(state.logits_BV)
        state = _step(thinker, params, state)[2]
    logits_BNV = np.stack(logits, axis=1)
    close(
        "hf_qwen3 generate.out.step_logits",
        logits_BNV,
        golden["generate.out.step_logits"],
        atol=1e-4,
    )
    best = np.sort(logits_BNV, axis=-1)
    close(
        "hf_qwen3 generate.out.top2_margin",
        best[..., -1] - best[..., -2],
        golden["generate.out.top2_margin"],
        atol=2e-4,
    )
    for row, tokens in enumerate(rows):
        alone = jit_generate(
            thinker,
            params,
            _read(thinker, params, [tokens], 40)[1],
            _keys([row]),
            stop_ids=NO_STOP,
            max_new=16,
        )
        same(
            "ragged rows equal single rows: generated tokens",
            alone.tokens_BN[0],
            out.tokens_BN[row],
        )
        close(
            "ragged rows equal single rows: generated states",
            alone.hidden_BND[0],
            out.hidden_BND[row],
            atol=1e-4,
        )


def test_states_are_those_of_the_position_that_consumed_the_token(qwen3):
    thinker, params, golden = qwen3
    prompt = _prompts(golden)[0]
    out = jit_generate(
        thinker,
        params,
        _read(thinker, params, [prompt], 40)[1],
        _keys([0]),
        stop_ids=NO_STOP,
        max_new=16,
    )
    ids = jnp.array([prompt + out.tokens_BN[0].tolist()])
    config, params, _ = _load("hf_qwen3")
    whole = functools.partial(Thinker(config).apply, {"params": params})
    hidden, _ = whole(whole(ids, method="embed"), method="states")
    np.testing.assert_allclose(out.hidden_BND[0], hidden[0, len(prompt) :], atol=1e-4)


def test_rows_stop_alone(qwen3):
    """The stop token counts and is consumed; afterwards a row is blank, and its neighbour is not
    disturbed.
    """
    thinker, params, golden = qwen3
    rows, free = _prompts(golden), golden["generate.out.tokens"]
    stop = next(
        int(token) for token in free[0, 3:9] if token not in free[1] and token not in free[0, :3]
    )
    at = int(np.flatnonzero(free[0] == stop)[0])
    out = jit_generate(
        thinker,
        params,
        _read(thinker, params, rows, 40)[1],
        _keys([0, 1]),
        stop_ids=(stop,),
        max_new=16,
    )
    assert out.lengths_B.tolist() == [at + 1, 16] and out.stopped_B.tolist() == [True, False]
    np.testing.assert_array_equal(out.tokens_BN[0], np.where(np.arange(16) <= at, free[0], 0))
    np.testing.assert_array_equal(out.tokens_BN[1], free[1])
    assert bool((out.hidden_BND[0, at + 1 :] == 0).all()) and bool(
        (out.hidden_BND[0, at] != 0).any()
    )
    assert out.state.lengths_B.tolist() == [len(rows[0]) + at + 1, len(rows[1]) + 16]


def test_a_full_cache_ends_the_row(qwen3):
    thinker, params, golden = qwen3
    prompt = _prompts(golden)[0]
    out = jit_generate(
        thinker,
        params,
        _read(thinker, params, [prompt], len(prompt) + 5)[1],
        _keys([0]),
        stop_ids=NO_STOP,
        max_new=16,
    )
    assert out.lengths_B.tolist() == [5] and not bool(out.stopped_B[0])
    np.testing.assert_array_equal(out.tokens_BN[0, :5], golden["generate.out.tokens"][0, :5])


def test_prefix_is_read_once_and_steps_equal_the_loop(qwen3):
    """A cached prefix, repeated and widened, then the rest of each prompt, then single steps: the
    golden tokens again.
    """
    thinker, params, golden = qwen3
    rows = _prompts(golden)
    common = rows[0][:3]
    rest = [rows[0][3:], rows[0][3:5]]
    state = fit_state(_read(thinker, params, [common], 3)[1], 2, 40)
    ids = np.zeros((2, len(rest[0])), np.int32)
    for row, tokens in enumerate(rest):
        ids[row, : len(tokens)] = tokens
    x = jax.jit(lambda p: thinker.apply({"params": p}, ids, method=Thinker.embed))(params)
    _, state = jit_extend(thinker, params, state, x, jnp.array([len(r) for r in rest]))
    np.testing.assert_allclose(
        state.logits_BV[1],
        _read(thinker, params, [common + rest[1]], 40)[1].logits_BV[0],
        atol=1e-4,
    )
    tokens = []
    for _ in range(4):
        token, hidden, state = _step(thinker, params, state)
        assert hidden.shape == (2, thinker.config.dim)
        tokens.append(int(token[0]))
    assert tokens == golden["generate.out.tokens"][0, :4].tolist()


def test_prefix_of_a_scanned_stack(qwen3):
    thinker, params, golden = qwen3
    prompt = _prompts(golden)[0]
    scanned = type(thinker)(dataclasses.replace(thinker.config, scan_layers=True))
    params = {**params, "layers": stack_layers(params["layers"])}
    state = fit_state(_read(scanned, params, [prompt], 12)[1], 2, 30)
    out = jit_generate(scanned, params, state, _keys([0, 1]), stop_ids=NO_STOP, max_new=16)
    np.testing.assert_array_equal(out.tokens_BN, golden["generate.out.tokens"][[0, 0]])


def test_bad_fit_is_named(qwen3):
    thinker, _, _ = qwen3
    with pytest.raises(UserError, match="2 rows and 5 positions to 2 rows"):
        fit_state(empty_state(thinker, 2, 5), 2, 9)
    with pytest.raises(UserError, match="to 1 rows and 4 positions"):
        fit_state(empty_state(thinker, 1, 5), 1, 4)


def test_sampled_rows_do_not_depend_on_their_batch(qwen3):
    thinker, params, golden = qwen3
    rows, sampling = _prompts(golden), SamplingConfig(temperature=1.5, top_k=40, top_p=0.95)
    state = _read(thinker, params, rows, 40)[1]
    both = jit_generate(
        thinker, params, state, _keys([5, 6]), stop_ids=NO_STOP, max_new=8, sampling=sampling
    )
    alone = jit_generate(
        thinker,
        params,
        _read(thinker, params, [rows[1]], 40)[1],
        _keys([6]),
        stop_ids=NO_STOP,
        max_new=8,
        sampling=sampling,
    )
    other = jit_generate(
        thinker, params, state, _keys([5, 7]), stop_ids=NO_STOP, max_new=8, sampling=sampling
    )
    np.testing.assert_array_equal(both.tokens_BN[1], alone.tokens_BN[0])
    np.testing.assert_array_equal(both.tokens_BN[0], other.tokens_BN[0])
    assert both.tokens_BN[1].tolist() != other.tokens_BN[1].tolist()


def test_every_sampled_token_has_noise_of_its_own(qwen3):
    thinker, params, _ = qwen3
    # all tokens are equally likely, always: the noise alone decides
    flat = jax.tree.map(jnp.zeros_like, params)
    state, key = _read(thinker, flat, [[1, 2, 3]], 40)[1], jax.random.key(5)
    hot = SamplingConfig(temperature=1.0)
    drawn = jit_generate(
        thinker, flat, state, key[None], stop_ids=NO_STOP, max_new=32, sampling=hot
    ).tokens_BN[0]
    by_hand = [
        jax.random.categorical(jax.random.fold_in(key, 3 + n), jnp.zeros(thinker.config.vocab_size))
        for n in range(32)
    ]
    assert drawn.tolist() == [int(token) for token in by_hand]
    assert len(set(drawn.tolist())) > 16
