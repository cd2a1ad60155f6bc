"""Held-out losses: the right average, the same numbers every time, shown by the loop."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from random_params import random_params
from tiny import TinyTask, tiny_config

from mdmspeech.errors import UserError
from mdmspeech.models.ctc_adaptor import CTCConfig
from mdmspeech.models.phone_classifier import PhoneClassifierConfig
from mdmspeech.models.seq2seq_adaptor import Seq2SeqConfig
from mdmspeech.training import loop
from mdmspeech.training.stages.codec import CodecTask
from mdmspeech.training.stages.hearing import CTCTask, Seq2SeqTask
from mdmspeech.training.stages.phones import PhonesTask
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.stages.thinker import SpeechToTextTask
from mdmspeech.training.validation import ValidationLoss


class Seen(TinyTask):
    held_out = "val"

    def batches(self, split, seed):
        self.asked = (split, seed)
        return super().batches(split, seed)


def test_it_is_the_average_over_records_not_over_batches():
    task = Seen(noise=0.0)
    params = random_params(task.init, jax.random.key(0))
    found = ValidationLoss(task, task.init_frozen(None), lambda batch: batch, batches=3)(params)
    assert task.asked[0] == "val"
    data, above, below = task.batches("val", task.asked[1]), 0.0, 0.0
    for _ in range(3):
        batch = {k: v for k, v in next(data).items() if k != "id"}
        num, den = task.loss(params, task.init_frozen(None), batch, jax.random.key(0), 0)["mse"]
        above, below = above + float(num), below + float(den)
    assert found["held_out/mse"] == pytest.approx(above / below, rel=1e-5)


def test_each_source_of_a_mixture_alone():
    task = Seen(noise=0.0)
    params = random_params(task.init, jax.random.key(0))

    def alone(number, split, seed):
        if number is None:
            raise UserError("no val records")
        return Seen(size=number).batches(split, seed)

    task.sources = {name: partial(alone, n) for name, n in (("a", 8), ("b", 5), ("none", None))}
    found = ValidationLoss(task, task.init_frozen(None), lambda batch: batch)(params)
    assert found["held_out/a/mse"] == found["held_out/mse"] != found["held_out/b/mse"]
    assert not any("none" in name for name in found)


def test_the_same_noise_every_time():
    task = Seen(noise=0.5)
    params = random_params(task.init, jax.random.key(0))
    held_out = ValidationLoss(task, task.init_frozen(None), lambda batch: batch)
    assert held_out(params) == held_out(params)


def test_a_task_without_a_split_has_none():
    task = TinyTask()
    assert (
        ValidationLoss(task, task.init_frozen(None), lambda batch: batch)(
            random_params(task.init, jax.random.key(0))
        )
        == {}
    )


def test_the_loop_writes_them(tmp_path):
    loop.train(tiny_config(), Seen(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if any("held_out/mse" in key for key in line)]
    assert len(rows) == 2 and all(
        np.isfinite(next(v for k, v in row.items() if "held_out/mse" in k)) for row in rows
    )


@pytest.mark.parametrize(
    "stage", [CodecTask, PhonesTask, SpeechToTextTask, CTCTask, TalkerTask, Seq2SeqTask]
)
def test_no_stage_is_steered_by_the_test_set(stage):
    assert stage.held_out == "val"


def test_a_split_without_data_is_an_error_before_the_first_step(tmp_path):
    class Empty(Seen):
        def batches(self, split, seed):
            if split == "val":
                raise UserError("no val recordings")
            return super().batches(split, seed)

    with pytest.raises(UserError, match="no val recordings"):
        loop.train(tiny_config(eval_every=0), Empty(), tmp_path)
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())


def states_batch(width, ids):
    rng = np.random.default_rng(0)
    return {
        "states": rng.normal(size=(2, 40, width)).astype(np.float32),
        "states_valid": np.ones((2, 40), bool),
        "text": rng.integers(1, ids, (2, 6)).astype(np.int32),
        "text_valid": np.ones((2, 6), bool),
    }


def hearing(kind, **spans):
    if kind == "ctc":
        return CTCTask(
            CTCConfig(encoder_dim=16, dim=32, num_layers=1, head_dim=32), None, **spans
        ), states_batch(16, 20)
    return Seq2SeqTask(
        Seq2SeqConfig(
            encoder_dim=16, dim=32, num_layers=1, num_heads=2, ffn_dim=32, pieces=12, positions=40
        ),
        None,
        **spans,
    ), states_batch(16, 12)


def loss_of(task, method, batch, seed):
    params = random_params(task.init, jax.random.key(0))
    losses = jax.jit(lambda key: getattr(task, method)(params, {}, batch, key, 0))(
        jax.random.key(seed)
    )
    return {name: (float(above), float(below)) for name, (above, below) in losses.items()}


@pytest.mark.parametrize("kind", ["ctc", "attention"])
def test_spans_are_hidden_in_training_only(kind):
    task, batch = hearing(kind, span=20, spans=2)
    whole, _ = hearing(kind, span=0, spans=0)
    assert loss_of(task, "held_out_loss", batch, 1) == loss_of(task, "held_out_loss", batch, 2)
    assert (
        loss_of(task, "held_out_loss", batch, 1)
        == loss_of(whole, "loss", batch, 1)
        != loss_of(task, "loss", batch, 1)
    )


def test_dropout_is_on_in_training_only():
    task = PhonesTask(PhoneClassifierConfig(encoder_dim=8, dim=16, symbols=10), None)
    rng = np.random.default_rng(0)
    batch = {
        "states": rng.normal(size=(2, 50, 8)).astype(np.float32),
        "symbols": rng.integers(0, 10, (2, 50)).astype(np.int32),
    }
    assert loss_of(task, "held_out_loss", batch, 1) == loss_of(task, "held_out_loss", batch, 2)
    assert loss_of(task, "loss", batch, 1) != loss_of(task, "loss", batch, 2)
    plain = task.model.apply(
        {"params": random_params(task.init, jax.random.key(0))}, batch["states"]
    )
    nll = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(plain)), batch["symbols"][..., None], -1
    ).sum()
    assert loss_of(task, "held_out_loss", batch, 1)["symbol"][0] == pytest.approx(nll, rel=1e-5)


def test_the_loop_compares_states_by_the_held_out_loss():
    class Noisy(Seen):
        def held_out_loss(self, params, frozen, batch, rng, step):
            return {"mse": (jax.numpy.float32(3.0), jax.numpy.float32(2.0))}

    task = Noisy()
    assert ValidationLoss(task, task.init_frozen(None), lambda batch: batch)(
        random_params(task.init, jax.random.key(0))
    ) == {"held_out/mse": 1.5}
