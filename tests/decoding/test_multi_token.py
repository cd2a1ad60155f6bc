"""Multi-token decoding: equal to whole forwards without a cache, to next-token decoding where it
must be, and a row alone to the same row beside others.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linen_heads import TalkerHeads

from mdmspeech.decoding import autoregressive, multi_token
from mdmspeech.decoding.state import DecodingConfig, FinishReason, SamplingParams, initial_state
from mdmspeech.diffusion.layout import cache_slots
from mdmspeech.errors import UserError
from mdmspeech.models import talker

CODES, BOS, EOS, PAD, LENGTH = 20, 20, 22, 23, 12
FIELDS = ("ids_BL", "count_B", "reason_B")
MODES = {"all stand": {}, "verified": {"mtp_verify": True}}


@pytest.fixture(scope="module")
def cond(tiny_heads):
    return jax.random.normal(jax.random.key(8), (3, LENGTH, tiny_heads.dim))


@functools.cache
def _compiled(decoder, model, options):
    """(params, state, cond) -> result; the model's own params are not looked at."""

    def run(params, state, cond_BLD):
        now = dataclasses.replace(model, params=params)
        step = now.step if decoder is autoregressive else now
        return decoder.decode(step, state, cond_BLD, options)

    return jax.jit(run)


def run(model, request, cond_BLD, options, decoder=multi_token, params=None):
    """A whole utterance, as numpy; compiled once for each shape and options."""
    length, block = cond_BLD.shape[1], options.block
    cache = model.cache(len(cond_BLD), cache_slots(length, block))
    state = initial_state(cache, request, options, length, model.dim)
    result = _compiled(decoder, model, options)(params or model.params, state, cond_BLD)
    return jax.tree.map(np.asarray, result)


def same(one, other, fields=FIELDS):
    for field in fields:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


@pytest.fixture(scope="module")
def whole_forward(tiny_heads):
    """(ids, cond) -> logits [L, V] of every head, from one pass over all tokens."""
    return jax.jit(lambda ids, c: [x[0] for x in tiny_heads.forward_heads(ids, c, 4)])


@pytest.mark.parametrize("emit", [3, 4])
def test_equals_whole_forwards_without_a_cache(tiny_heads, cond, options, whole_forward, emit):
    """Each forward tells `emit` tokens, none beyond its block; the modules hear the conditions of
    every place they have read, also of those that were not known yet when it was read.
    """
    options = dataclasses.replace(options, mtp_emit=emit)
    lengths = [12, 7, 4]
    result = run(tiny_heads, SamplingParams.create(3, target_len=lengths), cond, options)
    for row, length in enumerate(lengths):
        inputs, ids, steps, sure = np.full((1, LENGTH), BOS), [], [], []
        while len(ids) < length:
            logits = whole_forward(jnp.asarray(inputs), cond[row : row + 1])
            for k in range(min(emit, options.block - len(ids) % options.block, length - len(ids))):
                logit = np.asarray(logits[k][len(ids) - k])
                ids.append(logit[:CODES].argmax())
                sure.append(np.exp(logit - np.logaddexp.reduce(logit))[ids[-1]])
                steps.append((len(ids) - 1) % options.block // emit)
            inputs[0, 1 : 1 + len(ids)] = ids[: LENGTH - 1]
        np.testing.assert_array_equal(result.ids_BL[row, :length], ids)
        np.testing.assert_array_equal(result.step_BL[row, :length], steps)
        np.testing.assert_allclose(result.confidence_BL[row, :length], sure, rtol=1e-3)
        assert (result.count_B[row], result.reason_B[row]) == (length, FinishReason.LENGTH)
    assert result.forwards == 3 * -(-options.block // emit)


REQUESTS = dict(seed=[3, 1, 4], target_len=[10, -1, -1], min_len=[0, 3, 0], max_len=[-1, -1, 6])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_token_a_forward_is_next_token_decoding(tiny_heads, cond, options, temperature):
    options = dataclasses.replace(options, mtp_emit=1)
    request = SamplingParams.create(3, temperature=temperature, **REQUESTS)
    ours = run(tiny_heads, request, cond, options)
    theirs = run(tiny_heads, request, cond, options, autoregressive)
    same(ours, theirs, (*FIELDS, "step_BL", "forwards"))
    np.testing.assert_allclose(ours.confidence_BL, theirs.confidence_BL, rtol=1e-4)


@functools.cache
def _compiled_script(model, options):
    def run(script, wrong_HL, state):
        cond_BLD = jnp.zeros((*script.shape, 1))
        logits_BLV = 9.0 * jax.nn.one_hot(script, 27)
        return multi_token.decode(model(logits_BLV, wrong_HL), state, cond_BLD, options)

    return jax.jit(run)


def run_script(model, script, request, options, wrong=()):
    """What is written if head 0 says `script`, and every other head as well but for the `wrong`
    (head, place); one program for all scripts.
    """
    wrong_HL = np.zeros((options.mtp_emit, script.shape[1]), bool)
    for head, at in wrong:
        wrong_HL[head, at] = True
    state = initial_state((), request, options, script.shape[1], 1)
    return jax.tree.map(np.asarray, _compiled_script(model, options)(script, wrong_HL, state))


def _random_requests(rng, batch, length):
    """Known lengths, ends, allowances and temperatures, mixed."""
    known = rng.random(batch) < 0.4
    return SamplingParams.create(
        batch,
        seed=rng.integers(0, 99, batch),
        temperature=rng.choice([0.0, 0.0, 0.7, 1.3], batch),
        target_len=np.where(known, rng.integers(0, length + 1, batch), -1),
        min_len=rng.integers(0, length, batch),
        max_len=np.where(rng.random(batch) < 0.3, rng.integers(0, length, batch), -1),
    )


@pytest.mark.parametrize(
    ("block", "emit", "filters"),
    [(5, 2, {"top_k": 7}), (3, 3, {"top_p": 0.9})],
)
def test_what_is_verified_is_next_token_decoding(tiny_heads, options, block, emit, filters):
    """For random weights, conditions, lengths, ends and temperatures."""
    options = dataclasses.replace(options, block=block, mtp_emit=emit, mtp_verify=True, **filters)
    length, batch = 3 * block, 8
    saved, reasons = 0, set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = type(tiny_heads).create(seed, sharpness=rng.choice([1.0, 3.0, 9.0]))
        out = model.params["out"]  # an end comes where it may, in place of token 3 and more
        params = {**model.params, "out": out.at[:, EOS].set(1.3 * out[:, 3])}
        cond = rng.normal(size=(batch, length, model.dim))
        if seed % 2:  # every place is told nearly the same, and modules are often right
            cond = 20 * rng.normal(size=(batch, 1, model.dim)) + 0.1 * cond
        request = _random_requests(rng, batch, length)
        arguments = (request, jnp.asarray(cond, jnp.float32), options)
        ours = run(tiny_heads, *arguments, params=params)
        theirs = run(tiny_heads, *arguments, autoregressive, params=params)
        same(ours, theirs)
        np.testing.assert_allclose(ours.confidence_BL, theirs.confidence_BL, rtol=1e-2, atol=1e-5)
        saved += np.sum(theirs.step_BL - ours.step_BL)
        reasons |= set(ours.reason_B.tolist())
    assert saved > 5 * (emit - 1)
    assert reasons >= {FinishReason.LENGTH, FinishReason.EOS}


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        ([], [0, 1, 1, 1, 2, 2, 2, 3]),
        ([(1, at) for at in range(8)], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([(2, at) for at in range(8)], [0, 1, 1, 2, 2, 3, 3, 4]),
        ([(1, 1)], [0, 1, 2, 2, 2, 3, 3, 3]),
        ([(2, 2)], [0, 1, 1, 2, 2, 2, 3, 3]),
        ([(1, 4), (2, 6)], [0, 1, 1, 1, 2, 3, 3, 4]),
        ([(1, 7)], [0, 1, 1, 1, 2, 2, 2, 3]),
        ([(2, 3), (2, 5), (1, 6)], [0, 1, 1, 1, 2, 2, 3, 4]),
    ],
)
def test_as_many_stand_as_agree_and_one_more(scripted_heads, options, wrong, steps):
    """wrong: (head, place) of drafts that are not what head 0 says there."""
    script = 1 + np.arange(16).reshape(1, 16) % 8
    options = dataclasses.replace(options, block=8, mtp_verify=True)
    request = SamplingParams.create(1, target_len=8)
    result = run_script(scripted_heads, script, request, options, wrong)
    np.testing.assert_array_equal(result.ids_BL[0, :8], script[0, :8])
    assert result.step_BL[0, :8].tolist() == steps and result.forwards == steps[-1] + 1


def test_a_block_of_sixteen_is_six_forwards(scripted_heads, options):
    options = dataclasses.replace(options, block=16)
    script = 1 + np.arange(32).reshape(1, 32) % 17
    result = run_script(scripted_heads, script, SamplingParams.create(1, target_len=32), options)
    assert result.forwards == 12 and result.ids_BL.tolist() == script.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("end", "request_of", "count", "reason", "forwards"),
    [
        (1, {}, 1, "EOS", (1, 2)),  # the token behind it was drawn in the same forward
        (4, {}, 4, "EOS", (2, 3)),
        (7, {}, 7, "EOS", (3, 4)),
        (8, {}, 8, "EOS", (4, 5)),
        (
            1,
            {"min_len": 2},
            None,
            "BUDGET",
            None,
        ),  # it may not end there, and another id is written
        (15, {"target_len": 4}, 4, "LENGTH", (2, 2)),
        (15, {"max_len": 2}, 2, "TEXT", (1, 2)),
        (15, {"max_len": 0}, 0, "TEXT", (0, 0)),
    ],
)
def test_a_row_that_ends_inside_a_forward(
    scripted_heads, options, mode, end, request_of, count, reason, forwards
):
    script = 1 + np.arange(16).reshape(1, 16) % 15
    script[0, end] = EOS
    options = dataclasses.replace(options, block=8, **MODES[mode])
    request = SamplingParams.create(1, **request_of)
    result = run_script(scripted_heads, script, request, options)
    assert FinishReason(result.reason_B[0]).name == reason
    count = 16 if count is None else count
    assert result.count_B[0] == count and (result.ids_BL[0, count:] == PAD).all()
    expected = np.where(script[0, :count] == EOS, 0, script[0, :count])
    np.testing.assert_array_equal(result.ids_BL[0, :count], expected)
    if forwards is not None:
        assert result.forwards == forwards[mode == "verified"]


def _beside(states):
    """One state of the rows of several; the tiny model's caches are [2, B, ...]."""
    first, *_ = states
    join = lambda axis: lambda *xs: jnp.concatenate(xs, axis) if xs[0].ndim else xs[0]
    cache = jax.tree.map(join(1), *[state.cache for state in states])
    rest = jax.tree.map(join(0), *[dataclasses.replace(state, cache=()) for state in states])
    return dataclasses.replace(rest, cache=cache, max_blocks=first.max_blocks)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_row_decodes_identically_alone_beside_others_and_block_by_block(
    tiny_heads, cond, options, mode
):
    """Three rows as a batch; each alone, block by block; and together from different blocks on: one
    program for all lengths and places.
    """
    options = dataclasses.replace(options, **MODES[mode])
    rows = {**REQUESTS, "max_len": [-1, -1, 11], "temperature": [0.0, 0.9, 0.6]}
    whole = run(tiny_heads, SamplingParams.create(3, **rows), cond, options)
    assert len(set(whole.reason_B.tolist())) > 1
    one_block = jax.jit(functools.partial(multi_token.decode_block, tiny_heads, options=options))
    part = lambda row, b: cond[row : row + 1, 4 * b : 4 * b + 4]

    def expect(tokens, index, row, b):
        for field in ("ids_BL", "step_BL", "confidence_BL"):
            there = getattr(whole, field)[row, 4 * b : 4 * b + 4]
            np.testing.assert_allclose(getattr(tokens, field)[index], there, rtol=1e-4)

    states = []
    for row, blocks in enumerate([2, 1, 0]):
        request = SamplingParams.create(1, **{name: rows[name][row] for name in rows})
        cache = tiny_heads.cache(1, cache_slots(LENGTH, options.block))
        state = initial_state(cache, request, options, LENGTH, tiny_heads.dim)
        for b in range(blocks):
            state, tokens = one_block(state, part(row, b))
            expect(tokens, 0, row, b)
        states.append(state)
    state, at = _beside(states), [2, 1, 0]
    while not state.done_B.all():
        conds = [part(row, min(b, 2)) for row, b in enumerate(at)]
        state, tokens = one_block(state, jnp.concatenate(conds))
        for row, b in enumerate(at):
            if b < 3 and tokens.count_B[row]:
                expect(tokens, row, row, b)
        at = [b + 1 for b in at]
    np.testing.assert_array_equal(state.length_B, whole.count_B)
    np.testing.assert_array_equal(state.reason_B, whole.reason_B)
    assert one_block._cache_size() == 2  # of one row and of three


def test_what_a_forward_may_write_is_told(tiny_heads, cond, options):
    with pytest.raises(UserError, match="mtp_emit=0: a forward writes at least one token"):
        DecodingConfig(mtp_emit=0)
    with pytest.raises(
        UserError, match=r"mtp_emit=5: .* at most a block, here 4 tokens; give 1 to"
    ):
        run(
            tiny_heads,
            SamplingParams.create(3),
            cond,
            dataclasses.replace(options, mtp_emit=5),
        )


SMALL = talker.TalkerConfig(
    dim=64,
    num_layers=1,
    num_heads=2,
    ffn_dim=64,
    block=4,
    symbols=12,
    symbol_lookahead=(2,),
    structured_codes=False,
    mtp_modules=2,
)


@pytest.fixture(scope="module")
def real():
    """decode(decoder, emit=, verify=) of a small Talker with random weights, surer than fresh ones."""
    shapes = jax.eval_shape(lambda key: talker.init(SMALL, key), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), shapes)
    cond = jnp.asarray(rng.normal(size=(2, 8, 64)), jnp.float32)
    model = talker.Talker(SMALL)

    def next_token(params, cache, ids, cond, positions, mask, write_at, num_logits):
        hidden, cache = model.apply({"params": params}, ids, cond, mask, positions, cache, write_at)
        return model.apply(
            {"params": params}, hidden[:, hidden.shape[1] - num_logits :], method="logits"
        ), cache

    def decode(decoder, **settings):
        options = DecodingConfig(block=SMALL.block, **settings)
        cache = talker.empty_caches(SMALL, 2, cache_slots(8, SMALL.block))
        request = SamplingParams.create(2, target_len=[8, 6], temperature=[0.0, 1.0], seed=[1, 2])
        state = initial_state(cache, request, options, 8, SMALL.dim)
        step = TalkerHeads(model, params)
        step = functools.partial(next_token, params) if decoder is autoregressive else step
        return jax.jit(lambda state: decoder.decode(step, state, cond, options))(state)

    return decode


@pytest.mark.slow
def test_a_talker_verified_or_alone_writes_the_next_token(real):
    theirs = real(autoregressive)
    same(real(multi_token, mtp_emit=1), theirs)
    same(real(multi_token, mtp_verify=True), theirs)
    assert len(set(theirs.ids_BL[0].tolist())) > 3


def test_more_tokens_than_a_talker_has_heads_are_told(real):
    with pytest.raises(UserError, match="4 tokens at once of a Talker with mtp_modules=2"):
        real(multi_token, mtp_emit=4)
