import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import autoregressive, block_diffusion
from mdmspeech.decoding.state import DecodingConfig, FinishReason, SamplingParams, initial_state
from mdmspeech.diffusion import layout
from mdmspeech.errors import UserError
from tests.support import dense_masks

CODES, BOS, EOS, MASK, VOCABULARY = 20, 20, 22, 24, 27
LENGTH = 12  # three blocks of four


@pytest.fixture(scope="module")
def cond(tiny):
    return jax.random.normal(jax.random.key(5), (4, LENGTH, tiny.dim))


@pytest.fixture(scope="module")
def reference(tiny, options):
    """Greedy block decoding of one row by the book: numpy, no cache, the whole sequence through the
    model at each step.
    """
    block = options.block

    @jax.jit
    def logits_of(ids_L, cond_LD):
        return tiny.forward(
            ids_L[None],
            cond_LD[None],
            jnp.arange(LENGTH)[None],
            dense_masks.block_causal_mask(LENGTH, block),
        )[0][0]

    def run(cond_LD, steps, target=LENGTH, shift=False):
        ids, step, sure = np.full(LENGTH, EOS), np.full(LENGTH, -1), np.zeros(LENGTH)
        for first in range(0, target, block):
            masked = [at for at in range(first, first + block) if at < target]
            ids[masked] = MASK
            for index in range(steps):
                count = -(-len(masked) // (steps - index))
                shown = np.concatenate([[BOS], ids[:-1]]) if shift else ids
                chance = np.asarray(
                    jax.nn.softmax(logits_of(jnp.asarray(shown), cond_LD)), np.float64
                )
                best = chance[:, :CODES].max(axis=-1)
                for at in sorted(masked, key=lambda at: -best[at])[:count]:
                    ids[at], step[at], sure[at] = chance[at, :CODES].argmax(), index, best[at]
                    masked.remove(at)
        return ids[:target], step[:target], sure[:target]

    return run


@pytest.mark.parametrize("shift", [False, True], ids=["", "label shift"])
@pytest.mark.parametrize("fused", [True, False])
def test_equals_decoding_by_the_book_for_every_number_of_steps(
    run_tiny, reference, cond, options, fused, shift
):
    """Cached = uncached; the fused commit = a commit of its own; rows of different S share a batch."""
    options = dataclasses.replace(options, fused=fused, label_shift=shift)
    result = run_tiny(
        SamplingParams.create(4, steps=[1, 2, 3, 4], target_len=[12, 12, 10, 7]), cond, options
    )
    for row, (steps, target) in enumerate([(1, 12), (2, 12), (3, 10), (4, 7)]):
        ids, step, sure = reference(cond[row], steps, target, shift=shift)
        np.testing.assert_array_equal(result.ids_BL[row, :target], ids)
        np.testing.assert_array_equal(result.step_BL[row, :target], step)
        np.testing.assert_allclose(result.confidence_BL[row, :target], sure, rtol=1e-3, atol=1e-5)
        assert (result.ids_BL[row, target:] == options.pad).all() and (
            result.step_BL[row, target:] == -1
        ).all()
        assert result.count_B[row] == target and result.reason_B[row] == FinishReason.LENGTH
    assert len(np.unique(result.ids_BL[:, :7])) > 6  # the model says something


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_decodes_identically_alone_and_in_a_ragged_batch(
    run_tiny, cond, options, temperature
):
    rows = dict(
        seed=[3, 1, 4, 9],
        steps=[4, 1, 2, 3],
        target_len=[11, -1, 3, -1],
        min_len=[0, 5, 0, 9],
        max_len=[-1, -1, -1, 10],
    )
    batch = run_tiny(SamplingParams.create(4, temperature=temperature, **rows), cond, options)
    assert len(set(batch.count_B)) > 1
    for row in range(4):
        request = SamplingParams.create(
            1, temperature=temperature, **{name: values[row] for name, values in rows.items()}
        )
        alone = run_tiny(request, cond[row : row + 1], options)
        for field in ("ids_BL", "step_BL", "count_B", "reason_B"):
            np.testing.assert_array_equal(
                getattr(alone, field)[0],
                getattr(batch, field)[row],
                err_msg=f"{field} of row {row}",
            )


def test_every_mask_is_revealed_for_any_number_of_steps(run_tiny, tiny):
    options = DecodingConfig(block=16, codes=CODES, bos=20, eos=EOS, pad=23, mask=MASK)
    cond = jax.random.normal(jax.random.key(6), (16, 32, tiny.dim))
    result = run_tiny(SamplingParams.create(16, steps=range(1, 17), target_len=29), cond, options)
    assert (result.ids_BL[:, :29] < CODES).all()
    for row, steps in enumerate(range(1, 17)):
        for part in (result.step_BL[row, :16], result.step_BL[row, 16:29]):
            shares, left = [], len(part)
            for index in range(steps):
                shares.append(-(-left // (steps - index)))
                left -= shares[-1]
            np.testing.assert_array_equal(np.bincount(part, minlength=steps), shares)
    assert result.forwards == 16 + 13


@pytest.mark.parametrize(("fused", "expected"), [(True, 6), (False, 9)])
def test_two_steps_cost_two_forwards_a_block(run_tiny, cond, options, fused, expected):
    options = dataclasses.replace(options, fused=fused)
    assert (
        run_tiny(SamplingParams.create(4, steps=2, target_len=12), cond, options).forwards
        == expected
    )


@pytest.fixture(scope="module")
def one_block(tiny, options):
    return jax.jit(functools.partial(block_diffusion.decode_block, tiny.step, options=options))


def test_committed_keys_and_values_are_those_of_a_clean_pass(tiny, begin, one_block, cond, options):
    state = begin(SamplingParams.create(4, steps=3, target_len=12), options, LENGTH)
    ids = []
    for b in range(3):
        state, tokens = one_block(state, cond[:, 4 * b : 4 * b + 4])
        ids.append(tokens.ids_BL)
    clean = jnp.concatenate(ids, axis=1)
    positions = jnp.tile(jnp.arange(LENGTH)[None], (4, 1))
    _, expected = jax.jit(tiny.forward)(
        clean, cond, positions, dense_masks.block_causal_mask(LENGTH, 4)
    )
    for layer in range(tiny.layers):
        kept = state.cache[layer][:, :, 4:]  # behind the scratch block
        np.testing.assert_allclose(kept[:, :, :8], expected[layer][:, :, :8], atol=1e-4)
        # the last block is not committed yet
        assert np.abs(kept[:, :, 8:] - expected[layer][:, :, 8:]).max() > 1e-2


def test_block_by_block_is_the_whole_utterance(run_tiny, begin, one_block, cond, options):
    request = SamplingParams.create(
        4, steps=[1, 2, 3, 4], seed=7, temperature=0.7, target_len=[12, 5, 8, 11]
    )
    whole = run_tiny(request, cond, options)
    state, ids, counts = begin(request, options, LENGTH), [], 0
    for b in range(3):
        state, tokens = one_block(state, cond[:, 4 * b : 4 * b + 4])
        ids.append(tokens.ids_BL)
        counts += tokens.count_B
    np.testing.assert_array_equal(jnp.concatenate(ids, axis=1), whole.ids_BL)
    np.testing.assert_array_equal(counts, whole.count_B)
    np.testing.assert_array_equal(state.length_B, whole.count_B)
    assert state.done_B.all()


def test_a_row_may_join_a_batch_that_is_under_way(run_tiny, begin, one_block, cond, options):
    """Rows stand at different blocks of their utterances: continuous batching changes no token."""
    request = SamplingParams.create(4, steps=2, target_len=12)
    expected = run_tiny(request, cond, options).ids_BL
    ahead, first = one_block(begin(request, options, LENGTH), cond[:, :4])
    fresh = begin(request, options, LENGTH)

    def mix(old, new):  # rows 0, 1 go on; rows 2, 3 start; cache leaves have rows on axis 1
        axis = 1 if old.ndim == 5 else 0
        return (
            old
            if old.ndim == 0
            else jnp.concatenate(
                [old.take(jnp.arange(2), axis), new.take(jnp.arange(2, 4), axis)], axis
            )
        )

    state = jax.tree.map(mix, ahead, fresh)
    state, second = one_block(state, jnp.concatenate([cond[:2, 4:8], cond[2:, :4]]))
    np.testing.assert_array_equal(first.ids_BL[:2], expected[:2, :4])
    np.testing.assert_array_equal(
        second.ids_BL, np.concatenate([expected[:2, 4:8], expected[2:, :4]])
    )
    assert list(state.block_B) == [2, 2, 1, 1]


def test_text_that_arrives_late_moves_the_limits_between_blocks(begin, one_block, cond, options):
    state = begin(SamplingParams.create(4, steps=1, min_len=layout.NO_END), options, LENGTH)
    state, _ = one_block(state, cond[:, :4])
    assert not state.done_B.any()  # no row may end while text is to come
    # 2: shorter than what was said
    known = dataclasses.replace(state.request, target_len_B=jnp.array([6, 4, 2, 12]))
    state, tokens = one_block(dataclasses.replace(state, request=known), cond[:, 4:8])
    np.testing.assert_array_equal(tokens.count_B, [2, 0, 0, 4])
    np.testing.assert_array_equal(state.length_B, [6, 4, 4, 8])
    np.testing.assert_array_equal(
        state.reason_B, [FinishReason.LENGTH] * 3 + [FinishReason.RUNNING]
    )


def test_temperature_and_seed_change_tokens_but_never_the_confidence(run_tiny, cond, options):
    one = jnp.tile(cond[:1], (4, 1, 1))
    rows = SamplingParams.create(
        4, steps=4, target_len=4, temperature=[0.0, 0.5, 2.0, 2.0], seed=[0, 0, 0, 1]
    )
    result = run_tiny(rows, one, options)
    first = result.step_BL == 0
    # all see the same masks: the same place comes first
    assert (first == first[0]).all() and first[0].sum() == 1
    np.testing.assert_array_equal(
        result.confidence_BL[first], np.repeat(result.confidence_BL[first][:1], 4)
    )
    wild = run_tiny(
        SamplingParams.create(4, steps=1, target_len=12, temperature=3.0, seed=[0, 0, 1, 2]),
        one,
        options,
    )
    np.testing.assert_array_equal(wild.ids_BL[0], wild.ids_BL[1])
    assert (wild.ids_BL[0] != wild.ids_BL[2]).any() and (wild.ids_BL[2] != wild.ids_BL[3]).any()


@pytest.mark.parametrize(
    "decoder", [block_diffusion.decode, autoregressive.decode], ids=["blocks", "next token"]
)
def test_every_token_is_drawn_with_noise_of_its_own(decoder, scripted, options):
    """Where all codes are as likely, a key used twice shows as tokens or blocks that are alike."""
    request = SamplingParams.create(2, seed=5, temperature=1.0, steps=2, target_len=16)
    result = scripted(np.zeros((2, 16, VOCABULARY))).run(decoder, request, options)
    np.testing.assert_array_equal(result.ids_BL[0], result.ids_BL[1])
    assert len(np.unique(result.ids_BL[0].reshape(4, 4), axis=0)) == 4
    assert all(len(np.unique(block)) > 1 for block in result.ids_BL[0].reshape(4, 4))


def test_only_codes_are_produced(scripted, options):
    logits = np.zeros((3, 8, VOCABULARY))
    # bos, sos, eos, pad, mask and filler rows are what the model likes best
    logits[..., CODES:] = 30.0
    logits[..., 6] = 9.0
    result = scripted(logits).run(
        block_diffusion.decode,
        SamplingParams.create(3, steps=2, target_len=8, temperature=[0, 1, 5]),
        options,
    )
    assert (result.ids_BL < CODES).all() and (result.ids_BL[0] == 6).all()


@pytest.mark.parametrize("score", ["max_probability", "margin", "entropy"])
def test_rows_that_fill_the_table_up_have_no_part_in_confidence(scripted, options, score):
    """Where all logits are low, they would be nearly all of the probability."""
    plain = np.random.default_rng(0).normal(-25, 4, (1, 16, VOCABULARY))
    filled = np.concatenate([plain, np.zeros((1, 16, 5))], axis=-1)
    options = dataclasses.replace(options, score=score, vocab_size=VOCABULARY)
    request = SamplingParams.create(1, steps=4, target_len=16)
    one, other = (
        scripted(logits).run(block_diffusion.decode, request, options) for logits in (plain, filled)
    )
    np.testing.assert_array_equal(other.ids_BL, one.ids_BL)
    np.testing.assert_array_equal(other.step_BL, one.step_BL)
    np.testing.assert_allclose(other.confidence_BL, one.confidence_BL, rtol=1e-6)


def test_nor_in_that_of_next_token_decoding(scripted, options):
    plain = np.random.default_rng(0).normal(-25, 4, (1, 8, VOCABULARY))
    filled = np.concatenate([plain, np.zeros((1, 8, 5))], axis=-1)
    options = dataclasses.replace(options, vocab_size=VOCABULARY)
    request = SamplingParams.create(1, target_len=8)
    one, other = (
        scripted(logits).run(autoregressive.decode, request, options) for logits in (plain, filled)
    )
    np.testing.assert_array_equal(other.ids_BL, one.ids_BL)
    np.testing.assert_allclose(other.confidence_BL, one.confidence_BL, rtol=1e-6)


def _two_certain_two_unsure():
    logits = np.zeros((1, 4, VOCABULARY))
    logits[0, [0, 2], 3] = 12.0  # above any threshold
    logits[0, 1, 4], logits[0, 3, 4] = 4.0, 3.5  # doubtful
    return logits


@pytest.mark.parametrize(("name", "field", "expected"), [
    ("quota", {}, [0, 2, 1, 3]),
    ("threshold", {"threshold": 0.9}, [0, 1, 0, 2]),
    ("threshold", {"threshold": 0.1}, [0, 0, 0, 0]),
    ("entropy_bound", {"entropy_bound": 0.2}, [0, 0, 0, 1]),
    ("entropy_bound", {"entropy_bound": 99.0}, [0, 0, 0, 0]),
])  # fmt: skip
def test_adaptive_counts_reveal_more_where_the_model_is_sure(
    scripted, options, name, field, expected
):
    options = dataclasses.replace(options, count=name, **field)
    result = scripted(_two_certain_two_unsure()).run(
        block_diffusion.decode, SamplingParams.create(1, steps=4, target_len=4), options
    )
    np.testing.assert_array_equal(result.step_BL[0], expected)
    assert result.forwards == max(expected) + 1


def test_unsure_models_still_finish_in_the_steps_asked_for(scripted, options):
    options = dataclasses.replace(options, count="threshold", threshold=0.999)
    result = scripted(np.zeros((1, 4, VOCABULARY))).run(
        block_diffusion.decode, SamplingParams.create(1, steps=2, target_len=4), options
    )
    assert result.forwards == 2 and (np.bincount(result.step_BL[0]) == 2).all()


@pytest.mark.parametrize(("score", "threshold"), [("max_probability", 0.9), ("margin", 0.3)])
def test_beyond_the_even_share_only_what_is_as_sure_as_the_threshold_is_revealed(
    scripted, options, score, threshold
):
    """In numpy, from probabilities: rows of any sharpness, mass on forbidden ids, greedy and drawn
    tokens; `threshold` is a probability.
    """
    rng = np.random.default_rng(3)
    logits = (
        rng.normal(size=(8, 4, VOCABULARY))
        * np.array([0.1, 0.5, 1, 1.5, 2, 3, 4, 6])[:, None, None]
    )
    logits[::2, :, EOS] += 3.0
    steps = np.array([4, 3, 4, 2, 4, 3, 4, 4])
    options = dataclasses.replace(options, count="threshold", score=score, threshold=threshold)
    request = SamplingParams.create(
        8, steps=steps, target_len=4, temperature=[0, 0, 0, 0, 0, 2, 2, 2], seed=np.arange(8)
    )
    result = scripted(logits).run(block_diffusion.decode, request, options)
    chance = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    best = -np.sort(-chance[..., :CODES], axis=-1)
    sure = best[..., 0] - (best[..., 1] if score == "margin" else 0)
    expected = np.full((8, 4), -1)
    for row in range(8):
        left = list(np.argsort(-sure[row]))
        for step in range(4):
            count = max(
                -(-len(left) // max(steps[row] - step, 1)),
                sum(sure[row, at] >= threshold for at in left),
            )
            expected[row, left[:count]], left = step, left[count:]
    np.testing.assert_array_equal(result.step_BL, expected)
    # some rows were sure enough to be quick, others were not
    assert len(set(expected.max(axis=1).tolist())) > 1
    np.testing.assert_allclose(result.confidence_BL, best[..., 0], rtol=1e-4)


def test_mistakes_are_named(tiny, options, begin):
    with pytest.raises(UserError, match="multiple of the block size 4"):
        block_diffusion.decode(
            tiny.step,
            begin(SamplingParams.create(1), options, 8),
            jnp.zeros((1, 6, tiny.dim)),
            options,
        )
    for field in ({"count": "all"}, {"score": "luck"}, {"block": 0}, {"top_p": 0.0}, {"top_k": -1},
        {"max_silence": 3},
                  {"count": "threshold", "threshold": 1.5},
                  {"count": "threshold", "score": "entropy"}):  # fmt: skip
        with pytest.raises(UserError, match=next(iter(field))):
            dataclasses.replace(options, **field)
    with pytest.raises(UserError, match="steps=0"):
        SamplingParams.create(2, steps=0)
    with pytest.raises(UserError, match="temperature"):
        SamplingParams.create(2, temperature=[0.0, -1.0])
    with pytest.raises(UserError, match="max_len=0"):
        initial_state((), SamplingParams.create(1), options, 0, 1)
