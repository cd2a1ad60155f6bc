"""A conversation kept in the cache is the conversation read anew, whatever happened in between."""

import functools
import gc
import itertools

import jax
import numpy as np
import pytest
from small_speech import thinker

from mdmspeech.errors import UserError
from mdmspeech.inference.conversation import Conversation
from mdmspeech.models import generation
from mdmspeech.models.thinker import Thinker

QUESTIONS = ["what is it ?", "is a red apple good ?", "yes and no", "what is a very good answer ?"]


@pytest.fixture(scope="module")
def runner():
    return thinker()


def ask(conversation, *question, settle=True, states=False):
    """Its answer and the logits before it."""
    pieces = conversation.ask(*question, states=states)
    logits = np.asarray(pieces.state.logits_BV[0])
    text = "".join(piece.text for piece in pieces).strip()
    if settle:
        conversation.settle(text)
    return text, logits


def said(conversation):
    return [([text for _, text in turn.asked], turn.answered) for turn in conversation.turns]


@functools.cache
def logits_of(runner):
    """Of the last of so many ids, read in one go (what is padded behind them plays no part)."""

    @jax.jit
    def apply(params, ids_BT, count):
        embedded = runner._thinker.apply({"params": params}, ids_BT, method=Thinker.embed)
        nothing = generation.empty_state(runner._thinker, 1, ids_BT.shape[1])
        _, state = generation.extend(runner._thinker, params, nothing, embedded, count[None])
        return state.logits_BV[0]

    return apply


def anew(runner, turns):
    """Logits before the answer to the last of `turns`, (asked, answered) each, as the chat template
    writes them.
    """
    messages = [{"role": "system", "content": "be kind"}]
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}]
        messages += [{"role": "assistant", "content": answered}] if answered else []
    ids = runner.tokenizer.chat_prompt(messages)
    padded = np.array([ids + [0] * (256 - len(ids))])
    return np.asarray(logits_of(runner)(runner._params, padded, np.int32(len(ids))))


def test_every_turn_is_answered_as_if_all_were_read_anew(runner):
    conversation, turns = Conversation(runner, 256), []
    for question in QUESTIONS:
        text, logits = ask(conversation, question)
        np.testing.assert_allclose(logits, anew(runner, [*turns, (question, "")]), atol=1e-4)
        turns.append((question, text))
        fresh = Conversation(runner, 256)
        fresh.turns = list(conversation.turns[:-1])
        assert ask(fresh, question)[0] == text  # nothing in the cache
    assert [turn.answered for turn in conversation.turns] == [text for _, text in turns]


def test_the_first_turn_is_that_of_a_question_alone(runner):
    for states in (False, True):
        asked = runner.read([runner.question(QUESTIONS[1])])
        alone = list(runner.answer(asked, states))
        here = list(Conversation(runner, 256).ask(QUESTIONS[1], states=states))
        assert [piece.text for piece in here] == [piece.text for piece in alone]
        if states:
            for one, other in zip(here, alone, strict=True):
                np.testing.assert_allclose(one.states, other.states, atol=1e-4)


def test_an_answer_is_remembered_as_far_as_it_was_heard(runner):
    conversation = Conversation(runner, 256)
    text, _ = ask(conversation, QUESTIONS[0], settle=False)
    cut = " ".join(text.split()[:4])
    conversation.settle(cut)
    _, logits = ask(conversation, QUESTIONS[1])
    expected = anew(runner, [(QUESTIONS[0], cut), (QUESTIONS[1], "")])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # and once more, of the one that is remembered already
    second = " ".join(conversation.turns[-1].answered.split()[:2])
    conversation.amend(second)
    _, logits = ask(conversation, QUESTIONS[2])
    expected = anew(runner, [(QUESTIONS[0], cut), (QUESTIONS[1], second), (QUESTIONS[2], "")])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("taken", [0, 1, 5, 99])
def test_a_question_taken_back_leaves_no_trace(runner, taken):
    """To the last bit, wherever its answer was left."""
    plain, other = Conversation(runner, 256), Conversation(runner, 256)
    for question in QUESTIONS[:2]:
        assert ask(plain, question)[0] == ask(other, question)[0]
    for spoken in ("what is", "what is a very red apple and a good answer"):
        pieces = other.ask(spoken)
        for _ in range(taken):
            next(pieces, None)
        other.discard()
    other.discard()
    expected, found = ask(plain, QUESTIONS[3]), ask(other, QUESTIONS[3])
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])
    assert said(other) == said(plain)


def test_an_answer_nobody_heard_leaves_its_question_to_the_next(runner):
    conversation = Conversation(runner, 256)
    ask(conversation, QUESTIONS[0])
    first = conversation.turns[0].answered
    conversation.ask("what is")
    conversation.settle(" ")
    assert len(conversation.turns) == 1
    _, logits = ask(conversation, "a red apple ?")
    expected = anew(runner, [(QUESTIONS[0], first), ("what is a red apple ?", "")])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    conversation.amend("")
    _, logits = ask(conversation, "yes")
    expected = anew(runner, [(QUESTIONS[0], first), ("what is a red apple ? yes", "")])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_vectors_are_read_as_they_are(runner):
    """Of what was heard: here the vectors of the words."""
    words, spoken = Conversation(runner, 256), Conversation(runner, 256)
    for n, question in enumerate(QUESTIONS[:3]):
        heard = runner.embedded(runner.tokenizer.encode(question))
        text, logits = ask(words, question)
        found = ask(spoken, question if n == 1 else heard)
        assert found[0] == text
        np.testing.assert_allclose(found[1], logits, atol=1e-5)


def test_the_oldest_turns_are_forgotten_when_there_is_no_room(runner):
    conversation, told = Conversation(runner, 128), []
    for n in range(14):
        question = QUESTIONS[n % 4]
        text, logits = ask(conversation, question)
        kept = [(turn.asked[0][1], turn.answered) for turn in conversation.turns[:-1]]
        expected = anew(runner, [*kept, (question, "")])
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        told.append(conversation.dropped)
        assert len(conversation.turns) + conversation.dropped == n + 1 and text
    changes = sum(a != b for a, b in itertools.pairwise(told))
    assert told[0] == 0 < told[-1] and changes < told[-1]  # several at a time
    before = said(conversation), conversation.dropped
    conversation.ask("what " * 90)
    assert not conversation.turns
    conversation.discard()  # what it pushed out is there again
    assert (said(conversation), conversation.dropped) == before


def test_a_question_without_room_changes_nothing(runner):
    conversation = Conversation(runner, 128)
    for question in QUESTIONS[:2]:
        ask(conversation, question)
    before = list(conversation.turns)
    with pytest.raises(UserError, match="ask something shorter, or give a larger context"):
        conversation.ask("what " * 120)
    assert conversation.turns == before and conversation.dropped == 0
    text, _ = ask(conversation, QUESTIONS[2])
    fresh = Conversation(runner, 128)
    fresh.turns = before
    assert ask(fresh, QUESTIONS[2])[0] == text
    # nor do questions that nobody was answered
    for _ in range(30):
        conversation.ask("what is it")
        conversation.settle("")
    assert ask(conversation, QUESTIONS[0])[0]


def test_of_many_parts_the_last_that_have_room_are_asked(runner):
    """As of a session that only writes down for long, and is then asked to respond."""
    conversation, parts = Conversation(runner, 128), [f"{word} " * 10 for word in ("what", "it")]
    parts = parts * 8
    text, logits = ask(conversation, *parts)
    asked = [part for _, part in conversation.turns[0].asked]
    assert 1 < len(asked) < len(parts) and asked == parts[-len(asked) :] and text
    assert conversation.dropped == len(parts) - len(asked)  # and it is told
    fewer = Conversation(runner, 128)
    np.testing.assert_allclose(ask(fewer, *asked)[1], logits, atol=1e-4)
    assert fewer.dropped == 0


@pytest.mark.parametrize("words", [1, 60, 70, 105, 106])
def test_a_question_may_fill_all_the_room_there_is(runner, words):
    """What is read is padded; the padding may go over the end of the cache."""
    conversation, question = Conversation(runner, 128), " ".join(["red apple"] * 53)
    question = " ".join(question.split()[:words])
    if words > 105:
        with pytest.raises(UserError, match="a conversation of 128"):
            conversation.ask(question)
        return
    _, logits = ask(conversation, question)
    np.testing.assert_allclose(logits, anew(runner, [(question, "")]), atol=1e-4)


def test_only_what_is_new_is_read(runner, monkeypatch):
    conversation, read = Conversation(runner, 256), []
    extend = runner.extend
    monkeypatch.setattr(
        runner,
        "extend",
        lambda state, vectors: (read.append(len(vectors)), extend(state, vectors))[1],
    )
    for question in QUESTIONS:
        ask(conversation, question)
    words = [len(question.split()) for question in QUESTIONS]
    # the end of the answer, the user's role, the words, the end, the assistant's role
    assert all(new <= asked + 7 for new, asked in zip(read, words, strict=True))


def test_nothing_grows_and_nothing_compiles_anew(runner, compiled):
    conversation = Conversation(runner, 128)
    rng = np.random.default_rng(0)

    def go_on(times):
        for _ in range(times):
            pieces = conversation.ask(QUESTIONS[rng.integers(4)])
            for _ in range(rng.integers(0, 5)):
                next(pieces, None)
            if rng.random() < 0.3:
                conversation.discard()
            else:
                conversation.settle("it is good" if rng.random() < 0.8 else "")

    go_on(12)
    gc.collect()
    arrays = len(jax.live_arrays())
    compiled.clear()
    go_on(40)
    gc.collect()
    assert len(jax.live_arrays()) <= arrays and compiled == []
    assert len(conversation._keys) <= 128
