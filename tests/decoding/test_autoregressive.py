import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import autoregressive
from mdmspeech.decoding.state import FinishReason, SamplingParams
from mdmspeech.errors import UserError
from tests.support import dense_masks

CODES, BOS, EOS, LENGTH = 20, 20, 22, 12


@pytest.fixture(scope="module")
def cond(tiny):
    return jax.random.normal(jax.random.key(8), (3, LENGTH, tiny.dim))


def _counting(state, index, running_B):
    """Row b writes 10 * b + index, and keeps the double of it; the state counts each row's draws."""
    id_B = 10 * jnp.arange(3) + index
    return id_B.astype(jnp.int32), {"twice": 2.0 * id_B[:, None]}, state + running_B


# max_new, stop ids, limit, done -> tokens of each row, by a stop token, forwards
LOOPS = {
    "all that was asked for": (4, (-1,), [9, 9, 9], False, [4, 4, 4], [0, 0, 0], 4),
    "limits of their own": (4, (-1,), [1, 3, 2], False, [1, 3, 2], [0, 0, 0], 3),
    "a limit of nothing, and less": (4, (-1,), [0, -5, 2], False, [0, 0, 2], [0, 0, 0], 2),
    "a stop token counts": (4, (1, 20), [9, 9, 9], False, [2, 4, 1], [1, 0, 1], 4),
    "no draw after the last stop": (4, (0, 11, 20), [9, 9, 9], False, [1, 2, 1], [1, 1, 1], 2),
    "a stop token at the limit": (4, (1,), [2, 1, 1], False, [2, 1, 1], [1, 0, 0], 2),
    "another row's stop token": (
        3,
        (10,),
        [9, 9, 9],
        [True, False, False],
        [0, 1, 3],
        [0, 1, 0],
        3,
    ),
    "all done before": (3, (-1,), [9, 9, 9], True, [0, 0, 0], [0, 0, 0], 0),
    "no token asked for": (0, (-1,), [9, 9, 9], False, [0, 0, 0], [0, 0, 0], 0),
}


@pytest.mark.parametrize("case", LOOPS.values(), ids=LOOPS)
def test_the_loop_over_tokens(case):
    max_new, stop_ids, limit, done, counts, stopped, forwards = case
    out = autoregressive.generate(
        _counting,
        jnp.zeros(3, jnp.int32),
        max_new=max_new,
        stop_ids=stop_ids,
        limit_B=jnp.array(limit),
        done_B=jnp.asarray(done),
        fill=77,
        keep={"twice": jnp.full((3, max_new, 1), -1.0)},
    )
    assert (
        out.count_B.tolist() == counts == out.model_state.tolist()
        and out.stopped_B.tolist() == stopped
        and out.forwards == forwards
    )
    for row, count in enumerate(counts):
        ids = [10 * row + n for n in range(count)]
        assert out.ids_BN[row].tolist() == ids + [77] * (max_new - count)
        assert out.kept["twice"][row, :, 0].tolist() == [2.0 * i for i in ids] + [-1.0] * (
            max_new - count
        )


def test_equals_greedy_decoding_without_a_cache(tiny, run_tiny, cond, options):
    result = run_tiny(
        SamplingParams.create(3, target_len=[12, 7, 4]), cond, options, autoregressive.decode
    )
    forward = jax.jit(
        lambda ids, c: tiny.forward(
            ids, c, jnp.arange(LENGTH)[None], dense_masks.causal_mask(LENGTH)
        )[0][0]
    )
    for row, target in enumerate([12, 7, 4]):
        inputs, ids = np.full((1, LENGTH), BOS), []
        for at in range(target):
            logits = np.asarray(forward(jnp.asarray(inputs), cond[row : row + 1])[at])
            ids.append(logits[:CODES].argmax())
            np.testing.assert_allclose(
                result.confidence_BL[row, at],
                np.exp(logits - np.logaddexp.reduce(logits))[ids[-1]],
                rtol=1e-3,
            )
            inputs[0, at + 1 : at + 2] = ids[-1]
        np.testing.assert_array_equal(result.ids_BL[row, :target], ids)
        assert (result.count_B[row], result.reason_B[row]) == (target, FinishReason.LENGTH)
    assert result.forwards == 12  # one a token


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_decodes_identically_alone_and_in_a_ragged_batch(
    run_tiny, cond, options, temperature
):
    rows = dict(seed=[3, 1, 4], target_len=[10, -1, -1], min_len=[0, 3, 0], max_len=[-1, -1, 6])
    batch = run_tiny(
        SamplingParams.create(3, temperature=temperature, **rows),
        cond,
        options,
        autoregressive.decode,
    )
    for row in range(3):
        request = SamplingParams.create(
            1, temperature=temperature, **{name: values[row] for name, values in rows.items()}
        )
        alone = run_tiny(request, cond[row : row + 1], options, autoregressive.decode)
        for field in ("ids_BL", "count_B", "reason_B"):
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(batch, field)[row])


def test_block_by_block_is_the_whole_utterance(tiny, begin, run_tiny, cond, options):
    request = SamplingParams.create(3, seed=2, temperature=0.8, target_len=[12, 5, 9])
    whole = run_tiny(request, cond, options, autoregressive.decode)
    one_block = jax.jit(functools.partial(autoregressive.decode_block, tiny.step, options=options))
    state, ids = begin(request, options, LENGTH), []
    for b in range(3):
        state, tokens = one_block(state, cond[:, 4 * b : 4 * b + 4])
        ids.append(tokens.ids_BL)
    np.testing.assert_array_equal(jnp.concatenate(ids, axis=1), whole.ids_BL)
    assert state.done_B.all() and state.forwards == whole.forwards


def test_repetitions_are_seen_across_blocks(scripted, options):
    """A model that would write one code for ever, drawn from the best one: it is written wherever it
    is not among the last three, in this block or the one before, and anything elsewhere.
    """
    logits = np.zeros((1, 16, 27))
    logits[..., 6] = 3.0
    request = SamplingParams.create(1, target_len=16, temperature=1.0, seed=5)
    write = lambda **filters: (
        scripted(logits)
        .run(autoregressive.decode, request, dataclasses.replace(options, top_k=1, **filters))
        .ids_BL[0]
    )
    assert (write() == 6).all()
    assert (write(repetition_window=4, repetition_share=1.0)[:4] == 6).all()
    ids = write(repetition_window=3, repetition_share=0.3)
    for at in range(16):
        if 6 not in ids[max(at - 3, 0) : at]:
            assert ids[at] == 6, at
    assert (ids != 6).sum() >= 4 and ids.max() < CODES
    # where it stands two or three places before a block begins, it is hardly written there: once in
    # twenty, of those that are hardly worse
    logits = np.zeros((32, 16, 27))
    logits[..., 6] = 0.1
    request = SamplingParams.create(32, target_len=16, temperature=1.0, seed=np.arange(32))
    filters = dataclasses.replace(options, top_k=1, repetition_window=3, repetition_share=0.3)
    rows = np.asarray(scripted(logits).run(autoregressive.decode, request, filters).ids_BL)
    begun = [
        row[at]
        for row in rows
        for at in (4, 8, 12)
        if 6 in row[at - 3 : at - 1] and row[at - 1] != 6
    ]
    assert len(begun) > 20 and np.mean(np.array(begun) == 6) < 0.3


def test_what_repetitions_are_looked_for(options):
    for bad in (
        dict(repetition_window=options.block + 1),
        dict(repetition_window=-1),
        dict(repetition_share=0.0),
    ):
        with pytest.raises(UserError, match=r"repetition_window=.* is out of range"):
            dataclasses.replace(options, **bad)


def test_no_forward_is_spent_after_the_last_row_has_ended(scripted, options):
    script = 1 + np.arange(16).reshape(1, 16)
    script[0, 6] = EOS
    result = scripted.ids(script).run(autoregressive.decode, SamplingParams.create(1), options)
    assert (result.count_B[0], result.forwards) == (6, 7)
    result = scripted.ids(script).run(
        autoregressive.decode, SamplingParams.create(1, target_len=5), options
    )
    assert (result.count_B[0], result.forwards) == (5, 5)


def test_only_codes_are_produced(scripted, options):
    logits = np.zeros((2, 8, 27))
    logits[..., CODES:], logits[..., 6] = 30.0, 9.0
    request = SamplingParams.create(2, target_len=8, temperature=[0.0, 2.0])
    result = scripted(logits).run(autoregressive.decode, request, options)
    assert (result.ids_BL < CODES).all() and (result.ids_BL[0] == 6).all()
