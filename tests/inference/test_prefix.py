"""Text in front of its speech: what is trained, in packed rows, is what the engine decodes, which is
what the decoders give over the trained model; and no text is heard by another's speech.
"""

import dataclasses

import jax
import jax.numpy as jnp
import linen_prefix
import numpy as np
import pytest

from mdmspeech.data.pipelines import talker_packed
from mdmspeech.data.pipelines.random_source import RandomSpeech, byte_tokenizer
from mdmspeech.decoding.state import FinishReason, SamplingParams
from mdmspeech.errors import UserError
from mdmspeech.inference import engine as module
from mdmspeech.inference.conditioning import PrefixReader, PrefixText
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.speech_format import CODES, EOS, MASK, PAD, SOS, START
from mdmspeech.training.prefetch import numbers_of
from mdmspeech.training.stages.talker import TalkerTask
from mdmspeech.training.stages.talker_batches import Rows

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONFIG = TalkerConfig(
    dim=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=96,
    block=8,
    anchors="prefix",
    text_vocab_size=300,
    structured_codes=False,
    label_shift=True,
)


# What a text sees of itself, the speech hears from the second layer on.
DEEP = dataclasses.replace(CONFIG, num_layers=2)


def params_of(config):
    params = jax.jit(talker.init, static_argnums=0)(config, jax.random.key(0))
    params["outputs"]["table"] = params["outputs"]["table"] * 30
    params["anchors"]["embedding"] = params["anchors"]["embedding"] * 30
    return params


@pytest.fixture(scope="module")
def params():
    return params_of(CONFIG)


@pytest.fixture(scope="module")
def deep():
    return params_of(DEEP)


@pytest.fixture(scope="module")
def batch():
    """Packed rows of random speech, two or more utterances each."""
    text = talker_packed.PrefixText(96, byte_tokenizer())
    ids = dict(block=8, eos=EOS, pad=PAD)
    return numbers_of(
        dict(
            next(
                iter(
                    talker_packed.packed_talker_batches(
                        {"a": RandomSpeech(40, words=1.0)}, text, batch=2, length=96, seed=0, **ids
                    )
                )
            )
        )
    )


def heard(engine, ids):
    """A text as the engine hears it."""
    text = PrefixText(PrefixReader(engine.talker, engine.params), 2, 20)
    text.extend(ids)
    return text


def texts_of(batch):
    """[(row, segment, text ids, columns of the speech)] of a batch."""
    found = []
    for row in range(len(batch["text"])):
        for segment in range(1, batch["segment"][row].max() + 1):
            ids = batch["text"][row][batch["text_segment"][row] == segment]
            assert ids[0] == START and (ids[1:] >= 0).all()
            found.append(
                (row, segment, ids[1:].tolist(), np.flatnonzero(batch["segment"][row] == segment))
            )
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "streams"),
    [(True, 1), (True, 2), (False, 2)],
    ids=["label shift", "two streams", "no shift"],
)
def test_what_is_trained_in_packed_rows_is_what_is_decoded_alone(params, batch, streams, shift):
    config = dataclasses.replace(CONFIG, label_shift=shift)
    spoken = texts_of(batch)
    assert len(spoken) > 3
    lengths = [len(columns) for *_, columns in spoken]
    engine = TalkerEngine(config, params)
    said = [
        tokens
        for _, tokens in engine.decode(
            [heard(engine, ids).inputs for _, _, ids, _ in spoken], steps=1, target_len=lengths
        )
    ]

    tokens, noisy = np.full(batch["tokens"].shape, PAD), np.full(batch["tokens"].shape, PAD)
    for (row, _, _, columns), new in zip(spoken, said, strict=True):
        tokens[row, columns] = noisy[row, columns] = new.ids_N
        noisy[row, columns[-8:]] = MASK  # the last block alone is hidden
    task = TalkerTask(config, "mdm", None, capacity=1.0, streams=streams)
    rows = Rows.of(
        {name: jnp.asarray(value) for name, value in batch.items()}
        | {"tokens": jnp.asarray(tokens)}
    )

    @jax.jit
    def chances(params):
        cond, _ = task.condition(params, {"text": jnp.asarray(batch["text"])})
        return jax.nn.softmax(
            task.logits(params, task._denoise(params, jnp.asarray(noisy), cond, rows))
        )[..., :CODES]

    chance = np.asarray(chances(params))
    for (row, _, _, columns), new in zip(spoken, said, strict=True):
        last = chance[row, columns[-8:]]
        np.testing.assert_array_equal(last.argmax(axis=-1), new.ids_N[-8:])
        np.testing.assert_allclose(last.max(axis=-1), new.confidence_N[-8:], rtol=2e-3)


@pytest.mark.parametrize("mode", ["mdm", "ntp"])
def test_the_loss_teaches_the_text(params, batch, mode):
    task = TalkerTask(CONFIG, mode, None, capacity=1.0)
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}

    def loss(params):
        total, count = task.loss(params, {}, arrays, jax.random.key(1), jnp.int32(0))["token"]
        return total / count

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    used = np.zeros(300, bool)
    used[batch["text"][(batch["text"] >= 0) & (batch["text_segment"] > 0)]] = True
    moved = np.abs(np.asarray(grads["anchors"]["embedding"])).max(axis=-1) > 0
    assert np.isfinite(value) and moved[used].all() and not moved[~used].any()
    assert np.abs(grads["inputs"]["table"][SOS]).max() > 0  # what stands before the text


WAYS = {
    "drawn from the best, no label shift": dict(
        steps=[1, 2, 4], temperature=0.8, shift=False, options=dict(top_k=40, top_p=0.9)
    ),
    "next token, ends by itself": dict(
        mode="ntp", temperature=[0.7, 0.0, 1.0], ends=True, options=dict(top_p=0.9)
    ),
    "ends in silence": dict(
        steps=[8, 1, 3], temperature=[1.0, 0.0, 0.6], ends=True, options=dict(max_silence=3)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_engine_writes_what_the_decoders_write_over_the_trained_talker(deep, way, monkeypatch):
    """Golden: rows of other texts, lengths and seeds, in one batch of the trained model and in one of
    the engine.
    """
    monkeypatch.setattr(module, "ROWS", (1, 3))
    asked = {"mode": "mdm", "steps": 1, "temperature": 0.0, "shift": True, "ends": False} | way
    options = {"silence_ids": tuple(range(0, 6561, 2))} | asked.pop("options", {})
    config, params = dataclasses.replace(DEEP, label_shift=asked["shift"]), deep
    rng = np.random.default_rng(len(str(way)))
    texts = [rng.integers(0, 300, count).tolist() for count in (9, 1, 40)]
    wished = {"steps": asked["steps"], "temperature": asked["temperature"], "seed": [3, 4, 5]}
    if asked["ends"]:
        # an end is likely enough to be met
        ending = params["outputs"]["table"].at[EOS].set(3 * params["outputs"]["table"][7])
        params = {**params, "outputs": {"table": ending}}
        wished |= {"min_len": [4, 0, 9], "max_len": [30, 11, 21]}
    else:
        wished |= {"target_len": [29, 7, 13]}
    golden = linen_prefix.decode(
        config, params, texts, SamplingParams.create(3, **wished), 4, asked["mode"], **options
    )
    engine = TalkerEngine(config, params, asked["mode"], **options)
    said = engine.decode([heard(engine, ids).inputs for ids in texts], **wished)
    for row, (one, tokens) in enumerate(said):
        np.testing.assert_array_equal(tokens.ids_N, golden.ids_BL[row, : golden.count_B[row]])
        np.testing.assert_array_equal(tokens.step_N, golden.step_BL[row, : golden.count_B[row]])
        assert one.reason == golden.reason_B[row]
    reasons = {one.reason for one, _ in said}
    assert (FinishReason.LENGTH in reasons) != asked["ends"]
    if asked["ends"]:
        stop = FinishReason.SILENCE if options.get("max_silence") else FinishReason.EOS
        assert stop in reasons, reasons


def test_modules_of_more_tokens_do_not_go_with_a_prefix(params):
    with pytest.raises(UserError, match="mode 'ntp'"):
        TalkerEngine(CONFIG, params, "mtp")
    with pytest.raises(UserError, match="a text in front gives none"):
        talker.init(dataclasses.replace(CONFIG, mtp_modules=1), jax.random.key(0))


def test_a_text_is_read_before_its_speech(params):
    engine = TalkerEngine(CONFIG, params)
    text = PrefixText(PrefixReader(engine.talker, engine.params), 2, 20)
    assert not text.ready(0) and text.limits() == {}
    with pytest.raises(RuntimeError, match="has not been read"):
        _ = text.inputs
    text.extend([1, 2, 3])
    assert text.ready(0) and text.limits() == {"min_len": 6, "max_len": 60} and text.lasting == 3
