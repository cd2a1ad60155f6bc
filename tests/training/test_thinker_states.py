"""A Talker that reads the Thinker's states from its data learns what one learns that runs it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params
from real import ROWS, TALKER, THINKER, chat, stage_two

from mdmspeech.cli.experiment import load_config, make_task
from mdmspeech.data.datasets import corpus, thinker_states
from mdmspeech.data.datasets.thinker_states import (
    WithStates,
    states_name,
    with_states,
    write_thinker_states,
)
from mdmspeech.data.datasets.writer import write_dataset
from mdmspeech.data.pipelines import random_source
from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.data.pipelines.talker_packed import (
    FixedStates,
    FixedText,
    packed_talker_batches,
)
from mdmspeech.errors import UserError
from mdmspeech.interop.huggingface import thinker_params, thinker_shapes
from mdmspeech.interop.huggingface_rules import thinker_rules
from mdmspeech.interop.rules import export_params
from mdmspeech.models.thinker import Thinker
from mdmspeech.preprocessing.thinker_states import states_of
from mdmspeech.speech_format import EOS, PAD
from mdmspeech.text.prompts import Prompt
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.stages.talker_batches import batch_spec

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)
MARK = "0badcafe"


@pytest.fixture(scope="module")
def thinker():
    return stage_two().init_frozen(KEY)["thinker"]


@pytest.fixture(scope="module")
def root(tmp_path_factory, thinker):
    """A corpus of tokens with the states of their answers."""
    folder = tmp_path_factory.mktemp("corpus")
    speech = random_source.RandomSpeech(40, words=1.0)
    rows = [{**speech[i], "voice": "one"} for i in range(len(speech))]
    write_dataset(
        corpus.folder_of(folder, "tokens", "mine"),
        "tokens",
        {"train": rows[:30], "val": rows[30:]},
        about={"codec": "c"},
    )
    compute = states_of(THINKER, thinker)
    made = write_thinker_states(folder, "mine", chat(), compute, MARK, THINKER.dim, rows=4)
    ids = [len(chat().answer(row["text"])) for row in rows]
    assert made == {"train": sum(ids[:30]), "val": sum(ids[30:])}
    return folder


class PackedAlike(FixedStates):
    """Which takes as much of a row as the whole conversation does: rows as of a Thinker that is run."""

    def sizes(self, source):
        return self._lengths(source)[:, 0]


def batch_of(root, states):
    tokens = corpus.tokens(root, ("mine",), "train")
    source = with_states(root, "mine", "train", tokens, chat(), MARK, THINKER.dim)
    text = (
        PackedAlike(160, chat(), TALKER.block, width=THINKER.dim)
        if states
        else FixedText(160, chat(), TALKER.block)
    )
    batches = packed_talker_batches(
        {"mine": source if states else tokens},
        text,
        batch=ROWS,
        length=96,
        block=TALKER.block,
        eos=EOS,
        pad=PAD,
        seed=0,
    )
    return dict(next(iter(batches)))


@pytest.mark.slow
def test_the_losses_are_those_of_a_thinker_that_is_run(root, thinker):
    """And its gradients, on rows of the same records."""
    run, read = (numbers_of(batch_of(root, states)) for states in (False, True))
    plain, reading = stage_two(), stage_two(sizes={"states": THINKER.dim})
    params = random_params(plain.init, KEY)
    for name in ("tokens", "segment", "position"):
        np.testing.assert_array_equal(run[name], read[name])
    frozen = {"thinker": {"embedding": thinker["embedding"]}}
    assert jax.eval_shape(reading.init_frozen, KEY).keys() == frozen.keys()
    assert set(jax.eval_shape(reading.init_frozen, KEY)["thinker"]) == {"embedding"}
    value = lambda task, frozen, batch: jax.jit(
        jax.value_and_grad(lambda p: task.loss(p, frozen, batch, KEY, jnp.int32(0))["token"][0])
    )(params)
    loss, grads = value(plain, {"thinker": thinker}, run)
    again, same = value(reading, frozen, read)
    np.testing.assert_allclose(again, loss, rtol=1e-4)
    # half precision on the disk
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(b, a, atol=2e-3 * float(np.abs(a).max()) + 1e-6)


@pytest.mark.parametrize("length", [256, 64])
def test_states_are_those_of_each_conversation_alone(tmp_path, thinker, length, monkeypatch):
    """Several stand in a row behind one prompt; one that is longer than a row has a longer row."""
    monkeypatch.setattr(thinker_states, "_LENGTH", length)
    talk = Conversations(random_source.byte_tokenizer(), Prompt("Be brief.", ()))
    asked = [("", "yes"), ("how many?", "two"), ("", "w" * 90), ("say it", "it"), ("", "no")]
    speech = random_source.RandomSpeech(len(asked), words=1.0)
    rows = [
        {**speech[i], "voice": "one", "question": question, "text": text}
        for i, (question, text) in enumerate(asked)
    ]
    tokens = corpus.folder_of(tmp_path, "tokens", "mine")
    write_dataset(tokens, "tokens", {"train": rows}, about={"codec": "c"})
    compute = states_of(THINKER, thinker)
    write_thinker_states(tmp_path, "mine", talk, compute, MARK, THINKER.dim, rows=2)
    found = corpus.open_part(tmp_path, "states", states_name("mine"), "train")
    assert [record["text"] for record in found] == [text for _, text in asked]
    model = Thinker(THINKER)
    for record, (question, text) in zip(found, asked, strict=True):
        ids, answer = talk.typed(question, text)
        states, _ = model.apply(
            {"params": thinker},
            model.apply({"params": thinker}, ids[None], method="embed"),
            method="states",
        )
        np.testing.assert_allclose(record["states"], states[0, answer:], atol=5e-3)


def test_a_batch_is_what_was_announced(root):
    batch = numbers_of(batch_of(root, True))
    spec = batch_spec(dict(batch=ROWS, length=96, text=160, states=THINKER.dim), "fixed")
    assert {n: (x.shape, x.dtype) for n, x in batch.items()} == {
        n: (s.shape, s.dtype) for n, s in spec.items()
    }
    assert (batch["anchor"].max() < (batch["text_segment"] > 0).sum(1).max()).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(mark="11111111"), "was made by another Thinker"),
        (dict(width=32), "has states of width 64, not 32"),
        (dict(system="Be brief."), "was made by other conversations"),
        (
            dict(part="yours"),
            "no states of a Thinker of yours; make them with: mdmspeech data --st",
        ),
        (dict(split="test"), "has no test records"),
    ],
)
def test_states_of_something_else_are_refused(root, change, told):
    tokens = corpus.tokens(root, ("mine",), "train")
    talk = chat()
    if "system" in change:
        talk = type(talk)(random_source.byte_tokenizer(), Prompt(change["system"], ()))
    with pytest.raises(UserError, match=told):
        with_states(
            root,
            change.get("part", "mine"),
            change.get("split", "train"),
            tokens,
            talk,
            change.get("mark", MARK),
            change.get("width", THINKER.dim),
        )


def test_states_of_other_records_are_refused(root):
    tokens = corpus.tokens(root, ("mine",), "train")
    states = corpus.open_part(root, "states", states_name("mine"), "train")
    with pytest.raises(UserError, match="are of 30 records, the tokens of 10"):
        WithStates(corpus.tokens(root, ("mine",), "val"), states, "X")

    class Swapped:
        def __len__(self):
            return len(states)

        def __getitem__(self, i):
            return states[len(states) - 1 - i]

    with pytest.raises(UserError, match=r"states of record 'random-3' are those of 'random-26'"):
        WithStates(tokens, Swapped(), "X")[3]
    record = dict(tokens[0], states=np.zeros((2, THINKER.dim), np.float16))
    text = FixedStates(160, chat(), TALKER.block, width=THINKER.dim)
    with pytest.raises(UserError, match=r"has 2 states of a Thinker for"):
        text.add(text.start(1, 96), 0, record, 1, 0, 96, 0)


def test_one_switch_of_a_large_experiment(tmp_path):
    """`data.states=True` in small, on random data."""
    config = load_config("experiments/talker_8b.py:runlocal")
    config.data.states = True
    task = make_task(config, tmp_path)
    batch = numbers_of(dict(next(iter(task.batches("train", 0)))))
    spec = task.batch_spec()
    assert {n: x.dtype for n, x in batch.items()} == {n: s.dtype for n, s in spec.items()}
    params, frozen = random_params(task.init, KEY), random_params(task.init_frozen, KEY)
    assert set(frozen["thinker"]) == {"embedding"}
    losses = jax.jit(task.loss)(params, frozen, batch, KEY, jnp.int32(0))
    assert np.isfinite(float(losses["token"][0]))


def test_a_part_of_the_weights_is_read_alone():
    thinker = dataclasses.replace(THINKER, tie_embeddings=False)
    params = jax.tree.map(lambda s: np.ones(s.shape, np.float32), thinker_shapes(thinker))
    tensors = export_params(params, thinker_rules(thinker))
    for only in ({"embedding"}, {"embedding", "layers", "norm"}, {"norm"}):
        found = thinker_params(thinker, dict(tensors), "x", only=only)
        assert set(found) == only
    assert set(thinker_params(thinker, tensors, "x")) == {"embedding", "layers", "norm", "output"}
