"""Text in front of its speech: what is trained, in packed rows, is what is decoded over the cache;
and no text is heard by another's speech.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.data.pipelines.random_source import RandomSpeech, byte_tokenizer
from mdmspeech.data.pipelines.talker_packed import PrefixText, packed_talker_batches
from mdmspeech.decoding.state import SamplingParams
from mdmspeech.errors import UserError
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.inference.prefix import PrefixEngine
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


@pytest.fixture(scope="module")
def params():
    params = jax.jit(talker.init, static_argnums=0)(CONFIG, jax.random.key(0))
    params["outputs"]["table"] = params["outputs"]["table"] * 30
    params["anchors"]["embedding"] = params["anchors"]["embedding"] * 30
    return params


@pytest.fixture(scope="module")
def batch():
    """Packed rows of random speech, two or more utterances each."""
    text = PrefixText(96, byte_tokenizer())
    ids = dict(block=8, eos=EOS, pad=PAD)
    return numbers_of(
        dict(
            next(
                iter(
                    packed_talker_batches(
                        {"a": RandomSpeech(40, words=1.0)}, text, batch=2, length=96, seed=0, **ids
                    )
                )
            )
        )
    )


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
    request = SamplingParams.create(len(spoken), steps=1, target_len=lengths)
    result = PrefixEngine(config, params).decode(
        [ids for _, _, ids, _ in spoken], request, max(lengths) // 8
    )

    tokens, noisy = np.full(batch["tokens"].shape, PAD), np.full(batch["tokens"].shape, PAD)
    for (row, _, _, columns), ids, length in zip(spoken, result.ids_BL, lengths, strict=True):
        tokens[row, columns] = noisy[row, columns] = ids[:length]
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
    for (row, _, _, columns), ids, sure, length in zip(
        spoken, result.ids_BL, result.confidence_BL, lengths, strict=True
    ):
        last = chance[row, columns[-8:]]
        np.testing.assert_array_equal(last.argmax(axis=-1), ids[length - 8 : length])
        np.testing.assert_allclose(last.max(axis=-1), sure[length - 8 : length], rtol=2e-3)


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


def test_other_anchors_are_refused(params):
    with pytest.raises(UserError, match="'paced' anchors"):
        PrefixEngine(dataclasses.replace(CONFIG, anchors="paced"), params)
    with pytest.raises(UserError, match="'mtp'"):
        PrefixEngine(CONFIG, params, "mtp")
    with pytest.raises(UserError, match="PrefixEngine"):
        TalkerEngine(CONFIG, params)
