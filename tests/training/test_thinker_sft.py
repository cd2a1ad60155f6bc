"""Supervised fine-tuning of the Thinker: packed conversations are conversations alone, and only the
update is trained.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params
from real import THINKER

from mdmspeech.data.pipelines import chats_packed, random_source
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.errors import UserError
from mdmspeech.models.thinker import Thinker, behind_prompt
from mdmspeech.nn import losses
from mdmspeech.text.prompts import Prompt
from mdmspeech.training.stages.thinker_sft import ThinkerSFTTask

CHAT = Conversations(random_source.byte_tokenizer(), Prompt("Be brief."))
SIZES = dict(batch=4, length=256, answers=128)
RECORDS = random_source.random_chats(count=40)


def batches(records=RECORDS, **settings):
    sizes = SIZES | {key: settings.pop(key) for key in list(settings) if key in SIZES}
    return chats_packed.chat_batches({"chats": records}, CHAT, seed=1, **sizes, **settings)


def alone(turns):
    """Ids of one conversation after its own prompt, and which of them are supervised."""
    ids, supervised = list(CHAT.before), [False] * len(CHAT.before)
    for n, (asked, answered) in enumerate(turns):
        between = list(CHAT.next_turn) if n else []
        around = between + list(CHAT.encode(asked)) + list(CHAT.after)
        answer = list(CHAT.answer(answered))
        ids += around + answer
        supervised += [False] * len(around) + [True] * len(answer)
    return np.array(ids), np.array(supervised)


@pytest.fixture(scope="module")
def task():
    return ThinkerSFTTask(dataclasses.replace(THINKER, lora_rank=4), None, SIZES)


@pytest.fixture(scope="module")
def params(task):
    """Of an update that does something: a fresh one has B = 0."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    trained = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), shapes
    )
    return trained, random_params(task.init_frozen, jax.random.key(1))


def loss_of(task, params, batch):
    arrays = {name: jnp.asarray(value) for name, value in batch.items() if name != "id"}
    return jax.jit(task.loss)(*params, arrays, jax.random.key(0), jnp.int32(0))


def whole_model(task, params):
    """Merged weights in a Thinker without LoRA: what answers people."""
    from mdmspeech.models import lora

    config = dataclasses.replace(task.thinker.config, lora_rank=0)
    merged = lora.fuse(params[1]["thinker"], params[0]["lora"], task.thinker.config.lora_alpha)
    return jax.jit(lambda ids: Thinker(config).apply({"params": merged}, ids))


def loss_alone(model, turns, length=256):
    """Summed nats of the supervised ids, and how many there are."""
    ids, supervised = alone(turns)
    padded = np.zeros(length, np.int32)
    padded[: len(ids)] = ids
    nats = losses.cross_entropy(model(padded[None])[0, :-1], jnp.asarray(padded[1:]))
    at = np.flatnonzero(supervised) - 1
    return float(np.asarray(nats)[at].sum()), len(at)


def test_packed_conversations_are_conversations_alone(task, params):
    model, by_id = whole_model(task, params), {record["id"]: record for record in RECORDS}
    batch = next(batches())
    names = [name for row in batch["id"] for name in row.split(",")]
    assert len(names) > 4  # several a row
    parts = [loss_alone(model, by_id[name]["turns"]) for name in names]
    total, count = loss_of(task, params, batch)["loss"]
    assert count == sum(number for _, number in parts)
    np.testing.assert_allclose(total, sum(nats for nats, _ in parts), rtol=1e-4)


def test_a_conversation_that_follows_is_a_further_turn(task, params):
    model, by_id = whole_model(task, params), {record["id"]: record for record in RECORDS}
    batch = next(batches(following=1.0))
    turns = [[t for n in row.split(",") for t in by_id[n]["turns"]] for row in batch["id"]]
    parts = [loss_alone(model, row) for row in turns]
    total, count = loss_of(task, params, batch)["loss"]
    assert count == sum(number for _, number in parts)
    np.testing.assert_allclose(total, sum(nats for nats, _ in parts), rtol=1e-4)
    assert batch["segment"].max() == 2


def test_only_the_update_is_trained(task, params):
    batch = next(batches())
    arrays = {name: jnp.asarray(value) for name, value in batch.items() if name != "id"}
    trained, frozen = params
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(trained)} == {
        "lora_a",
        "lora_b",
    }
    loss = lambda trained: task.loss(trained, frozen, arrays, None, jnp.int32(0))["loss"][0]
    gradients = jax.jit(jax.grad(loss))(trained)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_right_counts_right_tokens(task, params):
    batch = next(batches())
    right, count = loss_of(task, params, batch)["right"]
    model = whole_model(task, params)
    wanted = 0
    by_id = {record["id"]: record for record in RECORDS}
    for name in [name for row in batch["id"] for name in row.split(",")]:
        ids, supervised = alone(by_id[name]["turns"])
        padded = np.zeros(256, np.int32)
        padded[: len(ids)] = ids
        best = np.asarray(model(padded[None])[0].argmax(-1))
        at = np.flatnonzero(supervised)
        wanted += int((best[at - 1] == ids[at]).sum())
    assert (right, count) == (wanted, batch["weight"].sum()) and wanted > 0


def test_the_mask_by_hand():
    segment = jnp.array([[1, 1, 2, 2, 3, 0]])
    wanted = np.array([
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ])  # fmt: skip
    np.testing.assert_array_equal(behind_prompt(segment, chats_packed.PROMPT)[0], wanted)


def test_informal_questions():
    records = [{"id": "a", "turns": [("Where is Rome?", "In Italy.")]}]
    seen = set()
    for _, batch in zip(range(8), batches(records, batch=1, informal=0.5), strict=False):
        seen |= set(text_of(batch))
    assert seen == {"Where is Rome?", "where is rome"}
    assert set(text_of(next(batches(records, informal=0.0)))) == {"Where is Rome?"}


def text_of(batch):
    """What the users of a batch ask."""
    tokenizer, asked = random_source.byte_tokenizer(), []
    for ids, segment in zip(batch["ids"], batch["segment"], strict=True):
        for number in range(2, segment.max() + 1):
            text = tokenizer.decode(ids[segment == number].tolist())
            asked.append(text.split("\n")[0].removesuffix("<|im_end|>").split("In Italy")[0])
    return [one.removesuffix("assistant") for one in asked]


def test_a_thinker_without_rank_is_refused():
    with pytest.raises(UserError, match="lora_rank is 0"):
        ThinkerSFTTask(THINKER, None, SIZES)
