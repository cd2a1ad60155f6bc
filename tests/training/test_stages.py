"""Every stage's loss: finite with gradients for what it trains and none for what it does not, and
sensitive to what it should learn.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.diffusion import masking
from mdmspeech.errors import UserError
from mdmspeech.models import talker
from mdmspeech.models.ctc_adaptor import CTCConfig, text_to_ids
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig, greedy_decode
from mdmspeech.training.optim import match_rules, param_path
from mdmspeech.training.stages.codec import CodecTask
from mdmspeech.training.stages.hearing import (
    CTCTask,
    Seq2SeqTask,
    from_config,
    hide_spans,
    tiny,
)
from mdmspeech.training.stages.stage import Loaders
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.stages.talker_batches import Rows

ROOT = Path(__file__).parents[2]
TALKER = talker.TalkerConfig(
    dim=64, num_layers=1, num_heads=2, ffn_dim=128, symbols=20, symbol_lookahead=(2,)
)
CODEC = CompactCodecConfig(
    encoder_dim=64,
    encoder_num_layers=1,
    decoder_dim=64,
    decoder_num_layers=2,
    decoder_lookahead=(1,),
    frame_dim=32,
    head_dim=32,
    phones=8,
)


def frozen_of(task):
    abstract = jax.eval_shape(task.init_frozen, jax.random.key(2))
    return task.load_frozen(abstract) or random_params(task.init_frozen, jax.random.key(2))


def total_of(task, batch, key=None):
    key = jax.random.key(1) if key is None else key

    frozen = frozen_of(task)

    def total(params):
        losses = task.loss(params, frozen, batch, key, jnp.int32(0))
        return sum(
            w * losses[name][0] / losses[name][1] for name, w in task.weights.items()
        ), losses

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@jax.jit
def moved(params, grads, rate):
    return jax.tree.map(lambda p, g: p - rate * jnp.sign(g), params, grads)


def talker_batch():
    rng = np.random.default_rng(0)
    return {
        "tokens": jnp.asarray(rng.integers(0, 6561, (2, 32))),
        "valid": jnp.ones((2, 32), bool).at[1, 16:].set(False),
        "symbols": jnp.asarray(rng.integers(0, 20, (2, 12))),
        "symbols_valid": jnp.ones((2, 12), bool).at[1, 6:].set(False),
        "durations": jnp.full((2, 12), 2.7),
    }


@pytest.mark.parametrize("mode", ["mdm", "ntp", "isd", "mtp"])
def test_talker_losses(mode):
    start = None if mode != "isd" else lambda: random_params(talker.init, TALKER, jax.random.key(5))
    config = dataclasses.replace(TALKER, mtp_modules=int(mode == "mtp"))
    task = TalkerTask(config, mode, None, masking.Hierarchical(), capacity=1.0, start=start)
    params = random_params(task.init, jax.random.key(0))
    (loss, losses), grads = total_of(task, talker_batch())(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads["anchors"]["embed"]["embedding"]).max() > 0
    assert float(losses["token"][1]) > 0
    if mode in ("mdm", "isd"):
        assert float(losses["left_out"][0]) == 0
    if mode == "mtp":
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads["mtp_layers_0"]))


def test_ntp_does_not_see_the_token_it_predicts():
    task = TalkerTask(TALKER, "ntp", None)
    params, batch = random_params(task.init, jax.random.key(0)), talker_batch()
    valid = jnp.zeros((2, 32), bool).at[0, :9].set(True)

    @jax.jit
    def first_eight(tokens):
        cond, _ = task.condition(params, batch)
        rows = Rows.of({"tokens": tokens, "valid": valid.at[:, 8].set(False)})
        numerator, _ = task._next_tokens(params, cond, rows)["token"]
        return numerator

    tokens = batch["tokens"]
    assert first_eight(tokens) == first_eight(tokens.at[0, 8].set((tokens[0, 8] + 1) % 6561))


@pytest.mark.parametrize(
    ("mode", "modules"), [("mtp", 0), ("mdm", 1), ("isd", 5), ("ntp", 2), ("ntp", 5)]
)
def test_modules_and_mode_belong_together(mode, modules):
    with pytest.raises(UserError, match=f"mode '{mode}' and talker.mtp_modules={modules}: "):
        TalkerTask(dataclasses.replace(TALKER, mtp_modules=modules), mode, None)


def test_masked_tokens_are_the_only_targets_of_diffusion():
    task = TalkerTask(TALKER, "mdm", None, masking.Bernoulli(0.3, 0.5), capacity=1.0)
    params, batch = random_params(task.init, jax.random.key(0)), talker_batch()
    (_, losses), _ = total_of(task, batch)(params)
    hidden = (
        masking.Bernoulli(0.3, 0.5).sample(jax.random.key(1), batch["valid"], TALKER.block).mask_BL
    )
    assert float(losses["token"][1]) == int(hidden.sum())


def codec_batch():
    rng = np.random.default_rng(0)
    return {
        "audio": jnp.asarray(rng.integers(-3000, 3000, (2, 24 * 960)), jnp.int16),
        "valid": jnp.ones((2, 24), bool).at[1, 12:].set(False),
        "phone": jnp.asarray(rng.integers(-1, 8, (2, 48))),
        "f0": jnp.full((2, 96), 180.0),
        "voiced": jnp.asarray(rng.random((2, 96)) > 0.4),
    }


@pytest.mark.parametrize("phase", ["tokens", "wave"])
def test_codec_losses_and_who_is_trained(phase):
    task = CodecTask(CODEC, phase, None)
    params = random_params(task.init, jax.random.key(0))
    (loss, _), grads = total_of(task, codec_batch())(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    rules = match_rules(params, task.optimizer)
    frozen = {
        part: all(
            rule.frozen
            for rule in jax.tree.leaves(rules[part], is_leaf=lambda x: hasattr(x, "frozen"))
        )
        for part in params
    }
    assert frozen == {"encoder": phase == "wave", "decoder": False, "spectral": phase == "tokens"}


def test_spelling_task_learns_one_utterance():
    task = CTCTask(CTCConfig(encoder_dim=16, dim=64, num_layers=1, head_dim=32), None, spans=0)
    ids = text_to_ids("hello you")
    states = np.random.default_rng(0).normal(size=(1, 40, 16)).astype(np.float32)
    batch = {
        "states": jnp.asarray(states),
        "states_valid": jnp.ones((1, 40), bool),
        "text": jnp.asarray(ids)[None],
        "text_valid": jnp.ones((1, len(ids)), bool),
    }
    params = random_params(task.init, jax.random.key(0))
    step = total_of(task, batch)
    before = None
    for _ in range(30):
        (loss, _), grads = step(params)
        before = loss if before is None else before
        params = moved(params, grads, 0.02)
    assert loss < 0.3 * before


WRITING = Seq2SeqConfig(
    encoder_dim=16, dim=32, num_layers=1, num_heads=2, ffn_dim=64, pieces=12, positions=40
)


def writing_batch():
    text = np.array([[3, 1, 4, WRITING.end, 0], [5, 9, WRITING.end, 0, 0]], np.int32)
    return {
        "states": np.random.default_rng(0).normal(size=(2, 30, 16)).astype(np.float32),
        "states_valid": np.ones((2, 30), bool),
        "text": text,
        "text_valid": np.arange(5)[None] < np.array([[4], [3]]),
    }


def test_writing_task_learns_to_write_and_to_end():
    config, batch = WRITING, writing_batch()
    task = Seq2SeqTask(config, None, spans=0)
    params = random_params(task.init, jax.random.key(0))
    step = total_of(task, batch)
    for _ in range(60):
        (loss, losses), grads = step(params)
        params = moved(params, grads, 0.01)
    assert loss < 0.1 and losses["accuracy"][1] == 7  # padding is not counted
    written = np.asarray(
        jax.jit(greedy_decode, static_argnums=0)(
            config, params, batch["states"], batch["states_valid"]
        ).ids_BN
    )
    assert [row[: list(row).index(config.end)].tolist() for row in written] == [[3, 1, 4], [5, 9]]


def test_a_teacher_says_what_a_piece_is_and_the_text_where_it_ends():
    """By hand, in NumPy."""
    share, batch = 0.7, writing_batch()
    start, taught = (
        random_params(Seq2SeqTask(WRITING, None).init, jax.random.key(i)) for i in (1, 2)
    )
    task = Seq2SeqTask(WRITING, None, spans=0, teacher=lambda: taught, teacher_share=share)

    def log_probabilities(params):
        logits = np.asarray(task._logits(params, batch, batch["states"])[0], np.float64)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    ours, theirs = log_probabilities(start), log_probabilities(taught)
    nats = {"text": 0.0, "distillation": 0.0}
    for b, n in np.argwhere(batch["text_valid"]):
        piece = batch["text"][b, n]
        mine = 0.0 if piece == WRITING.end else share
        nats["text"] -= (1 - mine) * ours[b, n, piece]
        nats["distillation"] += mine * np.sum(np.exp(theirs[b, n]) * (theirs - ours)[b, n])
    (loss, found), _ = total_of(task, batch)(start)
    for name, value in nats.items():
        np.testing.assert_allclose(found[name][0], value, rtol=1e-5)
        assert found[name][1] == 7
    np.testing.assert_allclose(loss, sum(nats.values()) / 7, rtol=1e-5)
    # the same one teaches nothing
    (_, found), _ = total_of(task, batch)(taught)
    assert abs(float(found["distillation"][0])) < 1e-5
    # states are compared by the text alone, all of it
    held_out = task.held_out_loss(start, {}, batch, jax.random.key(0), 0)
    assert "distillation" not in held_out
    np.testing.assert_allclose(
        held_out["text"][0],
        -sum(ours[b, n, batch["text"][b, n]] for b, n in np.argwhere(batch["text_valid"])),
        rtol=1e-5,
    )


def test_a_teacher_hears_what_is_hidden_from_who_learns():
    batch = writing_batch()
    params = random_params(Seq2SeqTask(WRITING, None).init, jax.random.key(1))
    task = Seq2SeqTask(WRITING, None, span=29, spans=4, teacher=lambda: params, teacher_share=1.0)
    (_, found), _ = total_of(task, batch)(params)
    assert float(found["distillation"][0]) > 1e-3


def test_whispers_decoder_teaches_whoever_the_run_starts_from(tmp_path):
    config = load_config(str(ROOT / "experiments" / "compact_hearing.py"))
    tiny(config)
    config.start_layers, config.init_from = (0,), "compact"
    config.training.teacher_share = 0.5
    loaders = Loaders(
        whisper_decoder=lambda model, layers: {"whisper": (model, layers)},
        release=lambda release, part: {release: part},
        describe=lambda release, part: (True, False, None),
    )
    task = from_config(config, tmp_path / "run", tmp_path, loaders)
    model = Seq2SeqConfig(**config.adaptor)
    assert task.load_frozen(None) == {"teacher": {"whisper": (model, (0,))}}
    assert task._start() == {"compact": "adaptor"}
    config.start_layers = ()
    with pytest.raises(UserError, match=r"teacher_share is not 0, but config\.start_layers names"):
        from_config(config, tmp_path / "run", tmp_path, loaders)


def test_what_the_ear_is_not_to_change_is_frozen(tmp_path):
    """By the shipped experiment: the embedding of pieces, and nothing else."""
    config = load_config(str(ROOT / "experiments" / "compact_hearing.py:runlocal"))
    task = make_task(config, tmp_path)
    rules = match_rules(jax.eval_shape(task.init, jax.random.key(0)), task.optimizer)
    frozen = [
        param_path(path) for path, rule in jax.tree_util.tree_leaves_with_path(rules) if rule.frozen
    ]
    assert frozen == ["embedding"]


def test_impossible_alignments_count_for_nothing():
    task = CTCTask(CTCConfig(encoder_dim=16, dim=64, num_layers=1, head_dim=32), None, spans=0)
    batch = {
        "states": jnp.ones((1, 4, 16)),
        "states_valid": jnp.ones((1, 4), bool),
        "text": jnp.ones((1, 9), jnp.int32),
        "text_valid": jnp.ones((1, 9), bool),
    }
    loss = jax.jit(lambda params: task.loss(params, {}, batch, jax.random.key(0), 0))
    numerator, denominator = loss(random_params(task.init, jax.random.key(0)))["ctc"]
    assert (float(numerator), float(denominator)) == (0.0, 0.0)


def test_hidden_spans_stay_within_their_size():
    hidden = np.asarray(hide_spans(jax.random.key(0), (64, 100), span=8, spans=2))
    assert 0 < hidden.mean() < 0.16
    assert hidden.sum(axis=1).max() <= 16
