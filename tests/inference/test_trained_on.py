"""What the Talker is trained on is what it speaks from: the same anchors, and over them the same
distributions, block by block.
"""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_speech import THINKER, chat_tokenizer, thinker, thinker_params

from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.data.pipelines.talker_packed import FixedText, PacedText, packed_talker_batches
from mdmspeech.inference.conditioning import (
    FixedInputs,
    FixedReader,
    PacedInputs,
    PacedReader,
)
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.inference.fixed_anchor_synthesizer import FixedAnchorSynthesizer
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.models import talker
from mdmspeech.models.anchors import anchor_index
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.speech_format import CODES, EOS, MASK, NULL_ANCHOR, PAD, VOCAB
from mdmspeech.text.prompts import Prompt
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.stages.talker_batches import Rows

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZES = dict(dim=64, num_layers=1, num_heads=2, ffn_dim=64, block=4, structured_codes=False)
FIXED = TalkerConfig(**SIZES, anchors="fixed", text_dim=2 * THINKER.dim, anchors_per_block=3)
PACED = TalkerConfig(**SIZES, anchors="paced", symbols=20, symbol_lookahead=(2,))
# Texts of 1 to 8 ids with the end token: every remainder by the anchors of a block, and more or
# fewer blocks of speech than the text needs.
TEXTS = {
    "no": 9,
    "yes it": 3,
    "it is red": 15,
    "it is a red apple": 6,
    "yes it is a good apple": 11,
    "it is a very good red apple": 22,
}


def params_of(config, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: talker.init(config, key), jax.random.key(0))
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(1.0 if x.ndim == 1 else 0.0, 0.2, x.shape), x.dtype),
        shapes,
    )


@dataclasses.dataclass
class Utterance:
    """One utterance of a packed batch: where it stands, and what inference makes of its text alone."""

    row: int
    where: np.ndarray  # its speech positions
    record: int
    placed: np.ndarray  # condition of its positions
    spoken: np.ndarray  # tokens, in one step a block
    sure: np.ndarray  # their probabilities


def compared(task, params, frozen, records, anchors, read):
    """(batch, utterances, (text features, condition, probabilities) of the batch by the task): all
    noisy tokens hidden, the clean ones as spoken.

    read: record -> what the engine reads of it.
    """
    batches = packed_talker_batches(
        {"all": records}, anchors, batch=3, length=48, block=4, eos=EOS, pad=PAD, seed=1
    )
    batch = dict(next(iter(batches)))
    names = batch.pop("id")
    engine = TalkerEngine(task.config, params)
    place = jax.jit(lambda params, text, at_BL: text.condition(engine.talker, params, at_BL))
    tokens, utterances = np.array(batch["tokens"]), []
    for row, segment, record in [
        (row, n + 1, int(name))
        for row, line in enumerate(names)
        for n, name in enumerate(str(line).split(","))
    ]:
        where = np.flatnonzero(batch["segment"][row] == segment)
        heard, size = read(engine, records[record]), len(where)
        [(_, result)] = engine.decode([heard], steps=1, target_len=size)
        placed = np.asarray(place(engine.params, heard, jnp.arange(32)[None]))[0, :size]
        utterances.append(Utterance(row, where, record, placed, result.ids_N, result.confidence_N))
        tokens[row, where] = result.ids_N
    batch["tokens"] = tokens

    @jax.jit
    def trained(params, frozen, batch):
        text = task._read(frozen["thinker"], batch) if frozen else None
        cond, _ = task.condition(params, batch, text)
        rows = Rows.of(batch)
        hidden = task._denoise(params, jnp.full_like(rows.tokens, MASK), cond, rows)
        return text, cond, jax.nn.softmax(task.logits(params, hidden))[:, :, :CODES]

    assert len({one.record for one in utterances}) >= 4
    return (
        batch,
        utterances,
        trained(params, frozen, {name: jnp.asarray(value) for name, value in batch.items()}),
    )


@pytest.fixture(scope="module")
def thoughts():
    return thinker()


@pytest.fixture(scope="module")
def fixed(thoughts):
    rng = np.random.default_rng(0)
    states = thoughts.hidden_states_of(list(TEXTS))
    records = [
        dict(id=str(n), text=text, tokens=rng.integers(0, CODES, count))
        for n, (text, count) in enumerate(TEXTS.items())
    ]

    def read(engine, record):
        row = states[int(record["id"])]
        reader = FixedReader(engine.talker, engine.params)
        fused = reader.fuse(reader.empty() + 7.0, row, 0)
        return FixedInputs(fused, np.array([len(row)], np.int32))

    task = TalkerTask(FIXED, "mdm", None, streams=2, thinker=THINKER)
    text = FixedText(
        96, Conversations(chat_tokenizer(), Prompt("be kind")), FIXED.block, FIXED.anchors_per_block
    )
    return states, *compared(
        task, params_of(FIXED), {"thinker": thinker_params()}, records, text, read
    )


@pytest.fixture(scope="module")
def paced():
    rng = np.random.default_rng(0)
    records = []
    for n, count in enumerate((9, 3, 15, 6, 11, 22)):
        symbols, frames = rng.integers(0, 20, 2 + count // 2), rng.integers(1, 6, 2 + count // 2)
        tokens = rng.integers(0, CODES, int(np.ceil(frames.sum() * 0.025 / 0.04)))
        records.append(dict(id=str(n), symbols=symbols, frames=frames, tokens=tokens))

    def read(engine, record):
        count = len(record["symbols"])
        durations = record["frames"] * (0.025 / 0.04)
        durations[-1] += len(record["tokens"]) - durations.sum()
        valid = np.arange(16)[None] < count
        features, _ = PacedReader(engine.talker, engine.params).read(
            np.pad(record["symbols"], (0, 16 - count), constant_values=3)[None], valid
        )
        return PacedInputs(
            features,
            np.pad(durations, (0, 16 - count), constant_values=9.0)[None].astype(np.float32),
            np.array([count], np.int32),
        )

    return compared(
        TalkerTask(PACED, "mdm", None, streams=2),
        params_of(PACED),
        {},
        records,
        PacedText(40, 0.04),
        read,
    )


@pytest.mark.slow
def test_fixed_anchors_read_the_states_that_the_thinker_hands_on(fixed):
    """[Emb(y); h] with the h that has consumed y, of every token of the answer and of its end; for
    every remainder by the anchors of a block.
    """
    states, batch, utterances, (text, cond, _) = fixed
    counts, nulls = set(), set()
    for one in utterances:
        count = len(states[one.record])
        segment = batch["segment"][one.row, one.where[0]]
        heard = np.flatnonzero(batch["text_segment"][one.row] == segment)[-count:]
        np.testing.assert_allclose(text[one.row, heard], states[one.record], atol=2e-4)
        np.testing.assert_allclose(cond[one.row, one.where], one.placed, atol=1e-4)
        counts.add(count % FIXED.anchors_per_block)
        nulls.add(bool((batch["anchor"][one.row, one.where] == NULL_ANCHOR).any()))
    assert counts == {0, 1, 2} and nulls == {False, True}


def test_paced_anchors_read_what_the_engine_reads(paced):
    _, utterances, (_, cond, _) = paced
    for one in utterances:
        np.testing.assert_allclose(cond[one.row, one.where], one.placed, atol=2e-4)


@pytest.mark.parametrize("kind", ["fixed", "paced"])
def test_blocks_that_are_all_hidden_behind_a_clean_past_are_what_decoding_sees(kind, request):
    """Two streams: with everything hidden in one and what was spoken in the other, every block's
    distributions are those of the engine's first step.
    """
    *_, utterances, (_, _, chance) = request.getfixturevalue(kind)
    chance = np.asarray(chance)
    for one in utterances:
        np.testing.assert_array_equal(chance[one.row, one.where].argmax(axis=-1), one.spoken)
        np.testing.assert_allclose(chance[one.row, one.where].max(axis=-1), one.sure, rtol=2e-3)
    assert len(np.unique(np.concatenate([one.spoken for one in utterances]))) > 8


# ---- The end ------------------------------------------------------------------------------------

ENDING = dataclasses.replace(FIXED, anchors_per_block=4, output_bias=True)


@pytest.fixture(scope="module")
def ending(codec, thoughts):
    """A voice that ends as soon as it may."""
    params = params_of(ENDING)
    return FixedAnchorSynthesizer(
        ENDING, {**params, "output_bias": jnp.zeros(VOCAB).at[EOS].set(1e3)}, codec, thoughts
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13])
def test_the_earliest_end_is_the_block_of_the_last_anchor(ending, count):
    index = np.asarray(anchor_index(jnp.array([count]), jnp.arange(32)[None], 4, 4))[0]
    last = np.flatnonzero(index == count - 1) if count else np.zeros(1)
    text = ending.text()
    assert text.limits() == {}
    text.count = count
    text.end()
    assert text.limits()["min_len"] == last[0] // 4 * 4 < text.limits()["max_len"]


@pytest.mark.slow
def test_speech_ends_there_and_neither_earlier_nor_later(ending, monkeypatch):
    """Whole and streamed, for texts whose counts leave every remainder by the anchors of a block; a
    text without tokens is over at once.
    """
    rng = np.random.default_rng(0)
    states = [
        rng.normal(size=(count, 2 * THINKER.dim)).astype(np.float32)
        for count in (1, 2, 3, 4, 5, 6, 7, 8, 9)
    ]
    expected = [0, 0, 0, 0, 4, 4, 4, 4, 8]
    numbers = range(len(states))
    monkeypatch.setattr(
        ending,
        "thinker",
        SimpleNamespace(
            hidden_states_of=lambda segments: [states[int(segment)] for segment in segments]
        ),
    )
    whole = ending._speak([str(n) for n in numbers], numbers, GenerationConfig())
    assert [len(one.tokens) for one in whole] == expected
    # nine blocks are more than a stream has room for at first
    long = rng.normal(size=(40, 2 * THINKER.dim)).astype(np.float32)
    for row, length in [*((states[n], expected[n]) for n in (3, 4, 7, 8)), (long, 36)]:
        stream = ending.stream()
        stream.push_delta(TextDelta("w ", True, len(row), row, last=True))
        while not stream.done:
            stream.step()
        assert (len(stream.result().tokens), stream.result().stop_reason) == (length, "eos")
    silent = ending.stream()
    silent.end()
    assert len(silent.step()) == 0 and silent.done
