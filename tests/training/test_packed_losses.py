"""A row packed with several utterances has the losses that each of them has alone, in every stage."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params
from real import PACED, TALKER, packed_talker_batch, stage_one, stage_one_batch, stage_two

from mdmspeech.diffusion.masking import Masking

MEL = ("mel", "mel_segment", "mel_position")


def fresh(task):
    return random_params(task.init, jax.random.key(0)), random_params(
        task.init_frozen, jax.random.key(1)
    )


class Fixed:
    """A masking schedule that hides what it is told to."""

    def __init__(self, mask_BL):
        self.mask_BL = mask_BL

    def sample(self, key, valid_BL, block):
        mask = self.mask_BL & valid_BL
        return Masking(mask, mask.astype(jnp.float32))


def alone(row, segment, fields, field="segment"):
    """The columns of one utterance of a row, moved to the front of an otherwise empty row."""
    where = np.flatnonzero(row[field] == segment)
    out = {name: np.zeros_like(row[name]) for name in fields}
    for name in fields:
        out[name][: len(where)] = row[name][where]
    out[field][: len(where)] = 1
    return out, where


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "mode", "streams"),
    [
        (TALKER, "mdm", 1),
        (TALKER, "mdm", 2),
        (TALKER, "ntp", 1),
        (PACED, "isd", 1),
        (dataclasses.replace(PACED, mtp_modules=2), "mtp", 1),
    ],
    ids=["fixed-mdm", "fixed-two-streams", "fixed-ntp", "paced-isd", "paced-mtp"],
)
def test_talker(config, mode, streams):
    task = stage_two(config, mode, streams=streams)
    batch = {name: value[:2] for name, value in packed_talker_batch(config).items()}
    params, frozen = fresh(task)
    hide = np.random.default_rng(3).random(batch["tokens"].shape) < 0.6
    text = [
        n
        for n in batch
        if n in ("text", "text_segment", "text_position", "symbols", "symbols_segment", "durations")
    ]
    text_segment = "text_segment" if "text" in batch else "symbols_segment"

    @jax.jit
    def losses(batch, hide):
        task.schedule = Fixed(hide)
        return task.loss(params, frozen, batch, jax.random.key(0), jnp.int32(0))

    together = losses(batch, hide)
    rows, hidden = [], []
    for b in range(2):
        row = {name: np.asarray(value[b]) for name, value in batch.items()}
        for segment in range(1, row["segment"].max() + 1):
            speech, where = alone(row, segment, [n for n in row if n not in text])
            words, place = alone(row, segment, text, text_segment)
            if "anchor" in speech:
                speech["anchor"][: len(where)] -= np.where(row["anchor"][where] >= 0, place[0], 0)
            rows.append(speech | words)
            hidden.append(np.zeros(hide.shape[1], bool))
            hidden[-1][: len(where)] = hide[b][where]
    assert len(rows) >= 4, "the rows hold several utterances"
    parts = losses(
        {name: np.stack([row[name] for row in rows]) for name in rows[0]}, np.stack(hidden)
    )
    assert set(parts) == set(together)
    for name, (numerator, denominator) in together.items():
        np.testing.assert_allclose(
            parts[name], (numerator, denominator), rtol=2e-5, atol=1e-5, err_msg=name
        )


def test_speech_to_text():
    task = stage_one()
    batch = {name: value[:2] for name, value in stage_one_batch().items()}
    params, frozen = fresh(task)
    # an update of zero would hide a leak
    params["lora"] = jax.tree.map(lambda x: x + 0.05, params["lora"])
    losses = jax.jit(
        lambda batch: task.loss(params, frozen, batch, jax.random.key(0), jnp.int32(0))
    )
    rows = []
    for b in range(2):
        row = {name: np.asarray(value[b]) for name, value in batch.items()}
        for segment in range(1, row["segment"].max() + 1):
            typed, _ = alone(row, segment, [n for n in row if n not in MEL])
            heard, frames = alone(row, segment, MEL, "mel_segment")
            typed["speech"] = np.where(typed["speech"] >= 0, typed["speech"] - frames[0] // 10, -1)
            rows.append(typed | heard)
    assert len(rows) >= 4, "the rows hold several conversations"
    parts, together = (
        losses({name: np.stack([row[name] for row in rows]) for name in rows[0]}),
        losses(batch),
    )
    for name, pair in together.items():
        np.testing.assert_allclose(parts[name], pair, rtol=2e-5, err_msg=name)
    louder = dict(
        batch, mel=batch["mel"] + np.float16(0.5) * (batch["mel_segment"] == 1)[..., None]
    )
    assert not np.allclose(losses(louder)["loss"][0], together["loss"][0], rtol=1e-5), (
        "the speech was not heard"
    )
    noise = dict(
        batch, mel=np.where((batch["mel_segment"] == 0)[..., None], np.float16(9), batch["mel"])
    )
    np.testing.assert_allclose(
        losses(noise)["loss"][0], together["loss"][0], rtol=1e-6, err_msg="padding was heard"
    )


@pytest.mark.slow
def test_only_adaptor_and_update_learn_and_both_do():
    task, batch = stage_one(), stage_one_batch()
    params, frozen = fresh(task)

    def loss(params):
        parts = task.loss(params, frozen, batch, jax.random.key(0), jnp.int32(0))
        numerator, denominator = parts["loss"]
        return numerator / denominator

    grads = jax.jit(jax.grad(loss))(params)
    assert set(grads) == {"adaptor", "lora"}
    assert np.abs(grads["adaptor"]["fc1"]["kernel"]).max() > 0
    layers = grads["lora"]["layers"]["all"]
    for branch, name in (("attn", "q"), ("attn", "o"), ("mlp", "down")):
        assert np.abs(layers[branch][name]["lora_b"]).max() > 0
        assert not np.abs(layers[branch][name]["lora_a"]).any(), (
            "B is zero at the start, so A has no gradient yet"
        )
