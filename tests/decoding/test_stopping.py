"""Every stop rule, through both decoders: a script says what the model wants at each position, the
rules say where a row ends.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mdmspeech.decoding import autoregressive, block_diffusion, stopping
from mdmspeech.decoding.state import FinishReason, SamplingParams, initial_state

EOS, LENGTH, SILENT = 22, 16, 0  # four blocks of four; code 0 is silence
DECODERS = pytest.mark.parametrize(
    "decoder", [block_diffusion.decode, autoregressive.decode], ids=["blocks", "next token"]
)


def _script(**at):
    """Sound everywhere (codes 1, 2, 3, ...), `eos=[...]` and `silence=[...]` at the positions given."""
    ids = 1 + np.arange(LENGTH)
    ids[at.get("eos", [])] = EOS
    ids[at.get("silence", [])] = SILENT
    return ids


# Next-token decoding does not look at the place behind the allowance, so it cannot know that the
# model would end there.
UNSEEN = "eos and allowance together"
# what the model wants, what is asked for, tokens, reason
CASES = {
    "eos at once": (_script(eos=[0]), {}, 0, FinishReason.EOS),
    "eos inside a block": (_script(eos=[5]), {}, 5, FinishReason.EOS),
    "the first of two eos": (_script(eos=[5, 6]), {}, 5, FinishReason.EOS),
    "eos at the start of a block": (_script(eos=[8]), {}, 8, FinishReason.EOS),
    "eos while there is text is not written": (
        _script(eos=[2, 6, 9]),
        {"min_len": 7},
        9,
        FinishReason.EOS,
    ),
    "eos just when the text is used up": (_script(eos=[7]), {"min_len": 7}, 7, FinishReason.EOS),
    "known length inside a block": (_script(), {"target_len": 7}, 7, FinishReason.LENGTH),
    "known length at the end of a block": (_script(), {"target_len": 8}, 8, FinishReason.LENGTH),
    "known length of nothing": (_script(), {"target_len": 0}, 0, FinishReason.LENGTH),
    "known length of all": (_script(), {"target_len": LENGTH}, LENGTH, FinishReason.LENGTH),
    "known length, eos wanted earlier": (
        _script(eos=[3]),
        {"target_len": 9},
        9,
        FinishReason.LENGTH,
    ),
    "known length, a long pause": (
        _script(silence=range(1, 9)),
        {"target_len": 11},
        11,
        FinishReason.LENGTH,
    ),
    "silence over a block's edge": (_script(silence=[2, 3, 4, 5, 6]), {}, 5, FinishReason.SILENCE),
    "silence just too short": (
        _script(silence=[2, 3, 5, 6, 8, 9]),
        {},
        LENGTH,
        FinishReason.BUDGET,
    ),
    "silence while there is text": (
        _script(silence=range(1, 9)),
        {"min_len": 7},
        8,
        FinishReason.SILENCE,
    ),
    "silence that is over when the text is": (
        _script(silence=[1, 2, 3, 4]),
        {"min_len": 6},
        LENGTH,
        FinishReason.BUDGET,
    ),
    "allowance of the text": (_script(), {"max_len": 6}, 6, FinishReason.TEXT),
    "allowance at the end of a block": (_script(), {"max_len": 12}, 12, FinishReason.TEXT),
    "eos before the allowance": (_script(eos=[4]), {"max_len": 6}, 4, FinishReason.EOS),
    "eos and allowance together": (_script(eos=[6]), {"max_len": 6}, 6, FinishReason.EOS),
    "silence before eos": (_script(silence=[0, 1, 2], eos=[4]), {}, 3, FinishReason.SILENCE),
    "silence and eos together": (_script(silence=[0, 1, 2], eos=[3]), {}, 3, FinishReason.EOS),
    "eos that never comes": (_script(), {}, LENGTH, FinishReason.BUDGET),
    "eos that may never come": (_script(eos=[3, 15]), {"min_len": 99}, LENGTH, FinishReason.BUDGET),
}


@pytest.fixture(scope="module")
def guarded(options):
    return dataclasses.replace(options, silence_ids=(SILENT, 17), max_silence=3)


def _request(cases):
    wanted = {name: [case[1].get(name, unset) for case in cases] for name, unset in
              (("target_len", -1), ("min_len", 0), ("max_len", -1))}  # fmt: skip
    return SamplingParams.create(
        len(cases), steps=[1 + row % 4 for row in range(len(cases))], **wanted
    )


@DECODERS
def test_every_rule(decoder, scripted, guarded):
    cases = list(CASES.values())
    result = scripted.ids([case[0] for case in cases]).run(decoder, _request(cases), guarded)
    for row, (name, (script, _, length, reason)) in enumerate(CASES.items()):
        if decoder is autoregressive.decode and name == UNSEEN:
            reason = FinishReason.TEXT
        assert (result.count_B[row], FinishReason(result.reason_B[row]).name) == (
            length,
            reason.name,
        ), name
        kept = result.ids_BL[row, :length]
        assert (kept < guarded.codes).all(), name  # what is kept is speech
        spoken = script[:length] < guarded.codes
        np.testing.assert_array_equal(kept[spoken], script[:length][spoken], err_msg=name)
        assert (result.ids_BL[row, length:] == guarded.pad).all(), name
        assert ((result.step_BL[row] >= 0) == (np.arange(LENGTH) < length)).all(), name


def test_a_row_ends_for_the_same_reason_alone_and_beside_longer_ones(scripted, guarded):
    """Next-token decoding: what the others still need says nothing about a row that has its allowance."""
    names = [UNSEEN, "eos that never comes"]
    together = scripted.ids([CASES[name][0] for name in names]).run(
        autoregressive.decode, _request([CASES[n] for n in names]), guarded
    )
    alone = scripted.ids([CASES[UNSEEN][0]]).run(
        autoregressive.decode, _request([CASES[UNSEEN]]), guarded
    )
    assert (
        together.reason_B.tolist() == [FinishReason.TEXT, FinishReason.BUDGET]
        and alone.reason_B[0] == FinishReason.TEXT
    )


@DECODERS
def test_budget_is_the_smaller_of_cache_and_conditions(decoder, scripted, options):
    result = scripted.ids([_script()]).run(decoder, SamplingParams.create(1), options, max_len=10)
    assert (result.count_B[0], result.reason_B[0]) == (10, FinishReason.BUDGET)
    result = scripted.ids([_script()[:8]]).run(
        decoder, SamplingParams.create(1, target_len=11), options, max_len=16
    )
    assert (result.count_B[0], result.reason_B[0]) == (8, FinishReason.BUDGET)


def test_without_a_guard_silence_goes_on(scripted, options):
    result = scripted.ids([_script(silence=range(16))]).run(
        block_diffusion.decode, SamplingParams.create(1), options
    )
    assert (result.count_B[0], result.reason_B[0]) == (LENGTH, FinishReason.BUDGET)


def test_rows_that_are_done_stay_as_they_are(guarded):
    state = initial_state((), SamplingParams.create(2), guarded, LENGTH, 1)
    state = dataclasses.replace(
        state,
        done_B=jnp.array([True, False]),
        reason_B=jnp.array([FinishReason.EOS, FinishReason.RUNNING]),
        length_B=jnp.array([2, 4]),
        block_B=jnp.array([0, 1]),
        silence_B=jnp.array([1, 1]),
    )
    ids = jnp.array([[0, 0, 0, EOS], [0, 17, 5, 0]])
    after, tokens = stopping.close_block(
        state, ids, jnp.zeros((2, 4), int), jnp.ones((2, 4)), guarded
    )
    assert (tokens.ids_BL[0] == guarded.pad).all() and tokens.count_B[0] == 0
    for field in ("done_B", "reason_B", "length_B", "block_B", "silence_B"):
        assert getattr(after, field)[0] == getattr(state, field)[0], field
    # Row 1: one silent token carried over, then two more, which makes three.
    assert (tokens.count_B[1], after.reason_B[1], after.length_B[1]) == (2, FinishReason.SILENCE, 6)
