"""VocalNet's speech generator against the golden forward, loss and generations of the published
code.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measured import close, same

from mdmspeech.decoding.sampling import SamplingConfig
from mdmspeech.errors import UserError
from mdmspeech.interop.tensors import read_tensors
from mdmspeech.interop.vocalnet import vocalnet_config, vocalnet_params
from mdmspeech.models.vocalnet import VocalNet
from mdmspeech.models.vocalnet_decoding import (
    VocalNetDecodingConfig,
    jit_predict,
    jit_push,
    jit_start,
    start,
)
from mdmspeech.training import multi_token_loss

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "vocalnet_talker"
ATOL = 1e-4
KEY = jax.random.key(0)[None]


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN.with_suffix(".npz")))


@pytest.fixture(scope="module")
def generator():
    config = vocalnet_config(
        json.loads(GOLDEN.with_suffix(".json").read_text())["config"]["config"]
    )
    params = vocalnet_params(config, read_tensors(GOLDEN.with_suffix(".safetensors")), "golden")
    return VocalNet(config), jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def forward(generator):
    """Logits and loss, and the states of the projector and of the decoder's first layer."""
    model, params = generator

    @jax.jit
    def run(text, text_lens, tokens, lens, streaming, padded):
        speech = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=model.config.sos)
        inputs = (text, text_lens, speech, lens + 1, streaming, padded)
        logits, found = model.apply(
            {"params": params}, *inputs, capture_intermediates=lambda module, _: module.name == "0"
        )
        parts = multi_token_loss.cross_entropies(
            logits, *multi_token_loss.next_tokens(tokens, lens, model.config.eos)
        )
        found = found["intermediates"]
        states = (
            found["projector"]["0"]["__call__"][0][0],
            found["stages_0"]["layers"]["0"]["__call__"][0][0],
        )
        return logits, multi_token_loss.total(parts), *states

    return run


def _inputs(golden):
    return [
        golden[f"in.{name}"]
        for name in ("text_hidden", "text_lens", "speech_tokens", "speech_lens")
    ]


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("case", ["non_streaming", "streaming"])
def test_training_forward(forward, golden, case):
    text, text_lens, tokens, lens = _inputs(golden)
    logits, loss, projected, block0 = forward(
        text, text_lens, tokens, lens, np.full(2, case == "streaming"), True
    )
    close(f"vocalnet_talker {case}.out.loss", loss, golden[f"{case}.out.loss"], atol=ATOL)
    for row, (n_text, n_speech) in enumerate(zip(text_lens, lens, strict=True)):
        for k, found in enumerate(logits):  # k positions fewer have something to predict
            key = f"{case}.out.logits{k}"
            close(
                f"vocalnet_talker {key}",
                found[row, : n_speech + 1 - k],
                golden[key][row, : n_speech + 1 - k],
                atol=ATOL,
            )
        close(
            "vocalnet_talker out.projected_text",
            projected[row, :n_text],
            golden["out.projected_text"][row, :n_text],
            atol=ATOL,
        )
        if case == "streaming":
            start = text.shape[1] + 1
            for part in (slice(0, n_text + 1), slice(start, start + n_speech + 1)):
                key = "streaming.out.decoder_block0"
                close(
                    f"vocalnet_talker {key}", block0[row, part], golden[key][row, part], atol=ATOL
                )


def test_a_coin_for_each_row(forward, golden):
    """Rows of one batch may differ in their mask; each is as in the batch of its kind."""
    logits = forward(*_inputs(golden), np.array([False, True]), True)[0]
    np.testing.assert_allclose(
        logits[1][0, :26], golden["non_streaming.out.logits1"][0, :26], atol=ATOL
    )
    np.testing.assert_allclose(
        logits[1][1, :19], golden["streaming.out.logits1"][1, :19], atol=ATOL
    )


@pytest.mark.parity
def test_own_positions_make_a_row_independent_of_its_batch(forward, golden):
    text, text_lens, tokens, lens = _inputs(golden)
    streaming = np.ones(2, bool)
    own = forward(text, text_lens, tokens, lens, streaming, False)[0]
    alone = forward(text[1:, :8], text_lens[1:], tokens[1:], lens[1:], streaming[1:], True)[0]
    for k in range(4):
        close(
            "ragged rows equal single rows: VocalNet",
            own[k][1, : 20 - k],
            alone[k][0, : 20 - k],
            atol=1e-5,
        )
    padded = golden["streaming.out.logits0"][1, :20]
    # the reference's positions do depend on the longest text
    assert np.abs(own[0][1, :20] - padded).max() > 0.01


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("predict_ntp", VocalNetDecodingConfig(modules=0, max_text=11, max_tokens=24)),
        (
            "predict_ntp_penalty",
            VocalNetDecodingConfig(
                modules=0, max_text=11, max_tokens=24, penalty=2.0, penalty_window=4
            ),
        ),
        ("predict_mtp", VocalNetDecodingConfig(modules=2, max_text=11, max_tokens=24)),
    ],
)
def test_predict(generator, golden, case, options):
    model, params = generator
    out = jit_predict(
        model, params, options, golden["in.text_hidden"][:1], golden["in.text_lens"][:1], KEY
    )
    expected = golden[f"{case}.out.tokens"][0, 1:]  # the reference returns the leading sos
    count, ended = len(expected), expected[-1] == model.config.eos
    assert out.count_B[0] == count and out.done_B[0]
    assert ended or count == options.max_tokens
    same(
        f"vocalnet_talker {case}.out.tokens",
        out.tokens_BL[0],
        np.r_[expected, np.full(24 - count, model.config.pad)],
    )
    key = f"{case}.out.min_top2_margin"
    close(f"vocalnet_talker {key}", out.margin_BL[0, :count].min(), golden[key], atol=ATOL)


@pytest.mark.slow
@pytest.mark.parity
def test_streaming(generator, golden):
    """Text in groups, one compiled program for all pushes; groups of 7 tokens end inside a cycle of 3."""
    model, params = generator
    options = VocalNetDecodingConfig(
        modules=2, max_text=11, max_tokens=40, penalty=2.0, penalty_window=6, penalise_modules=True
    )
    text, group = golden["in.text_hidden"][:1], model.config.text_group
    state, said = jit_start(model, params, options, 1), []
    for at in range(0, text.shape[1], group):
        piece = text[:, at : at + group]
        new, last = piece.shape[1], at + group >= text.shape[1]
        piece = np.pad(piece, ((0, 0), (0, group - new), (0, 0)))
        state, out = jit_push(
            model,
            params,
            options,
            state,
            piece,
            np.array([new]),
            np.array([15 if last else 7]),
            KEY,
        )
        said.append(np.asarray(out.tokens_BL[0, : out.count_B[0]]))
    same(
        "vocalnet_talker predict_stream.out.chunk_lens",
        [len(tokens) for tokens in said],
        golden["predict_stream.out.chunk_lens"],
    )
    same(
        "vocalnet_talker predict_stream.out.tokens",
        np.concatenate(said),
        golden["predict_stream.out.tokens"][0],
    )


@pytest.mark.slow
def test_sampled_rows_do_not_know_their_neighbours(generator, golden):
    """Ragged rows, each with its key: in the other order they say the same, with each other's keys
    something else.
    """
    model, params = generator
    options = VocalNetDecodingConfig(
        modules=1, max_text=11, max_tokens=12, sampling=SamplingConfig(temperature=1.0, top_k=20)
    )
    text, lens, keys = (
        golden["in.text_hidden"],
        golden["in.text_lens"],
        jnp.stack([jax.random.key(3), jax.random.key(4)]),
    )
    said = jit_predict(model, params, options, text, lens, keys).tokens_BL
    np.testing.assert_array_equal(
        jit_predict(model, params, options, text[::-1], lens[::-1], keys[::-1]).tokens_BL,
        said[::-1],
    )
    assert (
        (jit_predict(model, params, options, text, lens, keys[::-1]).tokens_BL != said)
        .any(axis=1)
        .all()
    )


def test_wrong_options_are_named(generator):
    model, params = generator
    with pytest.raises(UserError, match="this model has 3 MTP modules"):
        start(model, params, VocalNetDecodingConfig(modules=4), 1)
    with pytest.raises(UserError, match="penalty 0"):
        VocalNetDecodingConfig(penalty=0.0)
