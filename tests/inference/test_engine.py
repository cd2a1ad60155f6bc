"""The engine: every way of decoding is the decoder over the trained Talker; rows in any company and
order are rows alone; nothing is compiled twice and nothing grows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linen_heads import TalkerHeads
from small_speech import TALKER, talker_params

from mdmspeech.decoding.state import DecodingConfig, FinishReason, SamplingParams, initial_state
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.errors import UserError
from mdmspeech.inference import engine as module
from mdmspeech.inference.conditioning import PacedReader, PacedText
from mdmspeech.inference.engine import MODES, TalkerEngine
from mdmspeech.models import talker
from mdmspeech.models.talker import Talker

pytestmark = pytest.mark.usefixtures("quick_compilation")
CONFIG = dataclasses.replace(TALKER, num_layers=1, mtp_modules=2, block=4)
# mode -> what it says of the decoder
KINDS = {mode: {"mtp_verify": True} if mode == "mtp_verified" else {} for mode in MODES}


@functools.cache
def params():
    return talker_params(CONFIG)


@functools.cache
def engine(kind="mdm"):
    return TalkerEngine(CONFIG, params(), kind)


def heard(one, count, seed=0):
    """A text of `count` symbols, read to its end."""
    text = PacedText(PacedReader(one.talker, one.params), CONFIG.block)
    text.extend(np.random.default_rng(seed).integers(0, 40, count).tolist(), closed=True)
    return text


def reference(kind, text, steps, length, temperature, seed):
    """Tokens by the decoder over the trained Talker."""
    options = DecodingConfig(block=CONFIG.block, **KINDS[kind])
    model, whole = Talker(CONFIG), -(-length // CONFIG.block) * CONFIG.block

    def step(cache, ids, cond, positions, mask, write_at, num_logits):
        hidden, cache = model.apply(
            {"params": params()}, ids, cond, mask, positions, cache, write_at
        )
        states = hidden[:, hidden.shape[1] - num_logits :]
        return model.apply({"params": params()}, states, method="logits"), cache

    inputs, valid = text.inputs, np.arange(512)[None] < text.count
    cond = model.apply(
        {"params": params()},
        inputs.features_BMD,
        valid,
        inputs.durations_BM,
        jnp.arange(whole)[None],
        method="place",
    )
    asked = dict(seed=seed, steps=steps, target_len=length, temperature=temperature)
    request = SamplingParams.create(1, **asked)
    cache = talker.empty_caches(CONFIG, 1, cache_slots(whole, CONFIG.block))
    state = initial_state(cache, request, options, whole, CONFIG.dim)
    heads = step if kind in ("mdm", "ntp") else TalkerHeads(model, params())
    decode = MODES[kind].decode
    result = jax.jit(lambda state, cond: decode(heads, state, cond, options))(state, cond)
    return np.asarray(result.ids_BL[0, :length])


@pytest.mark.parametrize("kind", KINDS)
def test_every_mode_is_its_decoder_over_the_trained_talker(kind):
    one = engine(kind)
    text = heard(one, 9)
    asked = dict(steps=2, target_len=text.length, temperature=0.7, seed=5)
    [(row, tokens)] = one.decode([text.inputs], **asked)
    expected = reference(kind, text, 2, text.length, 0.7, 5)
    np.testing.assert_array_equal(tokens.ids_N, expected)
    assert len(expected) > 2 * CONFIG.block and row.reason is FinishReason.LENGTH
    assert row.done and row.blocks == -(-text.length // CONFIG.block)


def test_verified_drafts_are_the_next_tokens():
    text = heard(engine("ntp"), 12, seed=3)
    said = [
        engine(kind).decode([text.inputs], target_len=text.length)[0][1].ids_N
        for kind in ("ntp", "mtp_verified")
    ]
    np.testing.assert_array_equal(*said)


def compositions(one, rounds, seed):
    """Rows of random texts, lengths, steps, seeds and temperatures that join, take blocks in random
    company and leave: those whose tokens are not what they are alone.
    """
    rng = np.random.default_rng(seed)
    texts = [heard(one, int(rng.integers(2, 14)), seed=n) for n in range(6)]
    asked = [
        dict(
            steps=int(rng.integers(1, 5)),
            seed=n,
            temperature=float(rng.choice([0.0, 0.8])),
            target_len=text.length,
        )
        for n, text in enumerate(texts)
    ]
    alone = [one.decode([t.inputs], **a)[0][1].ids_N for t, a in zip(texts, asked, strict=True)]
    differ, speaking = 0, {}
    for _ in range(rounds):
        while len(speaking) < 3 or (len(speaking) < 7 and rng.random() < 0.5):
            n = int(rng.integers(len(texts)))
            speaking[object()] = (n, one.open(**asked[n]), [])
        chosen = [key for key in speaking if rng.random() < 0.7]
        rows = [speaking[key][1] for key in chosen]
        new = one.advance(
            rows, [texts[speaking[key][0]].inputs for key in chosen], int(rng.integers(1, 4))
        )
        for key, tokens in zip(chosen, new, strict=True):
            n, row, said = speaking[key]
            said.append(tokens.ids_N)
            if row.done:
                differ += not np.array_equal(np.concatenate(said), alone[n])
                one.close(row)
                del speaking[key]
            elif rng.random() < 0.05:  # somebody hangs up
                one.close(row)
                del speaking[key]
    return differ


@pytest.mark.parametrize("kind", ["mdm", "mtp"])
def test_a_row_in_any_company_is_a_row_alone(kind):
    assert compositions(engine(kind), 12, seed=0) == 0


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_companies(kind):
    assert compositions(engine(kind), 200, seed=1) == 0


def test_nothing_is_compiled_for_another_length_and_no_memory_is_taken_twice():
    one = engine()
    texts = [heard(one, count, seed=count) for count in (3, 11, 14)]
    for text in texts:
        one.decode([text.inputs], target_len=text.length)
    count = lambda: sum(each._cache_size() for each in one._jit_advance._jits.values())
    programs, spare = count(), len(one._spare)
    for _ in range(3):
        for text in reversed(texts):
            one.decode([text.inputs], target_len=text.length, steps=1)
    row = one.open(target_len=texts[1].length, steps=1)  # block by block, too
    while not row.done:
        one.advance([row], [texts[1].inputs])
    one.close(row)
    assert count() == programs > 0 and len(one._spare) == spare > 0


def test_a_row_may_become_longer_than_the_first_program_reaches(monkeypatch):
    """Block by block over the reach of one program to the next is the whole at once."""
    monkeypatch.setattr(module, "BLOCKS", (2, 3, 8))
    one = TalkerEngine(CONFIG, params())
    text = heard(one, 14)
    length = 7 * CONFIG.block - 1
    text.length = length
    [(row, whole)] = one.decode([text.inputs], target_len=length)
    assert row.blocks == 7 and len(whole.ids_N) == length
    row = one.open(target_len=length)
    parts = []
    while not row.done:
        parts += one.advance([row], [text.inputs])
    np.testing.assert_array_equal(np.concatenate([part.ids_N for part in parts]), whole.ids_N)
    row = one.open(steps=1)  # without an end: the longest there is
    one.advance([row], [text.inputs], blocks=3)
    assert row.blocks == 3
    while not row.done:
        one.advance([row], [text.inputs], blocks=3)
    assert (row.length, row.reason) == (8 * CONFIG.block, FinishReason.BUDGET)


def test_steps_may_change_between_blocks():
    one = engine()
    text = heard(one, 12)
    row = one.open(target_len=text.length, steps=1)
    first = one.advance([row], [text.inputs])[0]
    one.ask(row, steps=4)
    second = one.advance([row], [text.inputs])[0]
    assert first.step_N.max() == 0 and second.step_N.max() == 3


def test_what_cannot_be():
    with pytest.raises(UserError, match="choose mdm or ntp or mtp"):
        TalkerEngine(CONFIG, params(), "other")
    with pytest.raises(UserError, match="mode 'ntp'"):
        TalkerEngine(TALKER, talker_params(), "mtp")
    with pytest.raises(UserError, match="at most 3 tokens"):
        TalkerEngine(CONFIG, params(), "mtp", mtp_emit=4)
    few = dataclasses.replace(CONFIG, mtp_modules=1)
    assert TalkerEngine(few, params(), "mtp").options.mtp_emit == 2
    row = engine().open()
    engine().close(row)
    with pytest.raises(RuntimeError, match="closed"):
        engine().ask(row, steps=2)
