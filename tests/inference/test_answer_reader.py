"""Drafts make an answer come sooner and change nothing else of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_speech import TALKER, THINKER, chat_tokenizer, small_codec, spell, talker_params

from mdmspeech.decoding.prompt_lookup import lookup
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.conversation import Conversation
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.thinker_runner import ThinkerRunner
from mdmspeech.models.thinker import Thinker
from mdmspeech.text.prompts import Prompt

QUESTIONS = ("what is it ?", "is a red apple good ?", "yes and no")


@pytest.mark.parametrize(
    ("read", "most", "found"),
    [
        ([1, 2, 3, 4, 9, 2, 3], 3, [4, 9, 2]),  # two tokens are found
        ([3, 5, 2, 3, 6, 2, 3], 1, [6]),  # the longer ending, not the nearer last token
        ([7, 3, 5, 7, 3, 6, 7, 3], 2, [6, 7]),  # of two places, the later one
        ([8, 4, 1, 8], 3, [4, 1, 8]),
        ([1, 2, 3], 3, []),
        ([1], 3, []),
        ([], 3, []),
        ([5, 5], 3, [5]),
        ([4, 6, 0, 7, 4, 6], 3, []),  # the end of an answer is no draft
        ([4, 6, 7, 0, 4, 6], 3, [7]),
    ],
)
def test_what_stood_behind_the_same_words_is_drafted(read, most, found):
    assert lookup(read, most, stop_ids=(0,)) == found


@pytest.fixture(scope="module")
def runner():
    """One whose answers have many words."""
    config = dataclasses.replace(THINKER, tie_embeddings=False)
    init = jax.jit(Thinker(config).init)
    params = init(jax.random.key(11), jnp.zeros((1, 2), jnp.int32))["params"]
    params["embedding"]["embedding"] = params["embedding"]["embedding"] * 40
    one = ThinkerRunner(config, params, chat_tokenizer(), Prompt("be kind"), max_new=12)
    assert all(len(set(answered(one, question)[1].read)) > 4 for question in QUESTIONS)
    return one


def answered(runner, question, context=(), states=True, take=None):
    """(pieces, tokens, forwards) of an answer with drafts out of `context`, or the first pieces."""
    calls = []

    def counted(program):
        def call(*args, **named):
            calls.append(program)
            return program(*args, **named)

        return call

    before = runner._advance, runner._verify
    try:
        runner._advance, runner._verify = map(counted, before)
        answer = runner.answer(runner.read([runner.question(question)]), states, context)
        pieces = list(answer) if take is None else [next(answer) for _ in range(take)]
    finally:
        runner._advance, runner._verify = before
    return pieces, answer, len(calls)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_the_same_whatever_is_drafted(runner, question):
    plain, answer, forwards = answered(runner, question)
    ids, rng = answer.read, np.random.default_rng(len(question))
    assert forwards == len(ids)
    halves = [ids[: len(ids) // 2], [*ids[len(ids) // 2 :], 5, *ids[:3]]]
    contexts = [ids, *halves, runner.tokenizer.encode(question), [ids[0], 7, 7, 7]]
    contexts += [rng.permutation(ids).tolist() for _ in range(3)]
    fewest = forwards
    for context in contexts:
        pieces, again, count = answered(runner, question, context)
        assert again.read == ids
        assert [(p.text, p.stopped, p.count, p.last) for p in pieces] == [
            (p.text, p.stopped, p.count, p.last) for p in plain
        ]
        for one, other in zip(pieces, plain, strict=True):
            np.testing.assert_allclose(one.states, other.states, atol=1e-5)
        fewest = min(fewest, count)
        if len(set(ids)) == len(ids) and context is ids:
            assert count <= -(-len(ids) // 4) + 1
    assert fewest < forwards


def test_an_answer_that_is_cut_off_has_read_what_was_given_out(runner):
    """What was drafted behind it is not among its tokens, and the next question is read over it."""
    ids = answered(runner, QUESTIONS[0])[1].read
    for taken in (1, 2, 3, 5):
        _, answer, _ = answered(runner, QUESTIONS[0], ids, take=taken)
        assert answer.read == ids[:taken]


def test_no_context_no_drafts(runner, monkeypatch):
    monkeypatch.setattr(runner, "_verify", lambda *_, **__: pytest.fail("something was drafted"))
    assert list(runner.answer(runner.read([runner.question(QUESTIONS[1])])))


def test_drafts_that_are_not_taken_are_not_read(runner):
    """Another token than the drafted one stands where it does without drafts: the end of an answer
    that repeats itself, the end of a thought that takes too long.
    """
    ids = answered(runner, QUESTIONS[0])[1].read
    for taken in (1, 2, 3):
        found = []
        for context in (ids, ()):
            reader = answered(runner, QUESTIONS[0], context, take=taken)[1]._reader
            drafted = reader.best()
            reader.take(drafted - 1)
            found.append(reader)
        with_drafts, without = (reader.state for reader in found)
        assert with_drafts.lengths_B.tolist() == without.lengths_B.tolist()
        np.testing.assert_allclose(with_drafts.logits_BV, without.logits_BV, atol=1e-4)
        assert len(found[0].reads()) == len(found[1].reads()) == taken + 1


@pytest.mark.slow
def test_who_asks_says_what_may_be_repeated(runner, monkeypatch):
    """An assistant the question, a conversation all that both have said."""
    given = []
    before = runner.answer

    def answer(state, states=False, context=()):
        given.append(list(context))
        return before(state, states, context)

    monkeypatch.setattr(runner, "answer", answer)
    voice = lambda: PacedSynthesizer(TALKER, talker_params(), small_codec(), pronounce=spell)
    Assistant("small", {"mdm": voice}, None, lambda: runner).answer(QUESTIONS[1], steps=1)
    encode = runner.tokenizer.encode
    assert given.pop() == encode(QUESTIONS[1])
    talk = Conversation(runner, 256)
    text = "".join(piece.text for piece in talk.ask(QUESTIONS[0]))
    talk.settle(text)
    list(talk.ask(QUESTIONS[2]))
    for context, texts in zip(
        given, (QUESTIONS[:1], [QUESTIONS[0], text, QUESTIONS[2]]), strict=True
    ):
        said = " ".join(map(str, context))
        assert all(" ".join(map(str, encode(part.strip()))) in said for part in texts)
