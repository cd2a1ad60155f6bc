"""The voice with fixed anchors: what it reads is what training read, streamed = whole, batched =
alone, no end before the text is used up.
"""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_speech import (
    ENCODER,
    FIXED,
    THINKER,
    chat_tokenizer,
    encoder_params,
    ending_params,
    question,
    spelling,
    thinker,
    thinker_params,
)

from mdmspeech.data.pipelines.conversations import Conversations
from mdmspeech.errors import UserError
from mdmspeech.evaluation.speaking import endings
from mdmspeech.inference.assistant import Assistant, AudioEvent
from mdmspeech.inference.conditioning import earliest_end
from mdmspeech.inference.fixed_anchor_synthesizer import FixedAnchorSynthesizer
from mdmspeech.inference.speech_frontend import ctc_frontend
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.models import talker
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.models.thinker import Thinker
from mdmspeech.speech_format import EOS
from mdmspeech.text.prompts import Prompt

TEXTS = [
    "yes it is a red apple .",
    "no",
    "what is a very good answer ? it is a red apple and a very good answer .",
]


def pieces_of(states, cut):
    """An answer's states as they come: one at a time, the last `cut` together."""
    firsts = [TextDelta("w ", False, n, row[None]) for n, row in enumerate(states[:-cut])]
    return [*firsts, TextDelta("", True, len(firsts), states[-cut:], last=True)]


def states_in_training(ids):
    """(embeddings, states) of a conversation, each [1, T, D]."""
    thinker, variables = Thinker(THINKER), {"params": thinker_params()}

    @jax.jit
    def read(ids_BT):
        x = thinker.apply(variables, ids_BT, method=Thinker.embed)
        return x, thinker.apply(variables, x, method=Thinker.states)[0]

    return read(jnp.asarray(ids)[None])


def test_what_is_read_is_what_training_read(thoughts):
    conversations = Conversations(chat_tokenizer(), Prompt("be kind"))
    for text, states in zip(TEXTS, thoughts.hidden_states_of(TEXTS), strict=True):
        ids, answer = conversations.typed("", text)
        x, hidden = states_in_training(ids)
        np.testing.assert_allclose(
            states, np.concatenate([x, hidden], axis=-1)[0, answer:], atol=2e-4
        )


def test_states_of_a_written_answer_are_those_of_the_text_read(thoughts):
    """Decoding step by step gives [Emb(y); h] with the h that has consumed y."""
    pieces = list(thoughts.answer(thoughts.read([thoughts.question("what is it ?")]), states=True))
    written = np.concatenate([piece.states for piece in pieces])
    assert pieces[-1].last and not any(piece.last for piece in pieces[:-1])
    plain = list(thoughts.answer(thoughts.read([thoughts.question("what is it ?")])))
    assert [piece.text for piece in plain] == [piece.text for piece in pieces] and all(
        piece.states is None for piece in plain
    )
    conversations = Conversations(chat_tokenizer(), Prompt("be kind"))
    ids, answer = conversations.typed("what is it ?", "".join(piece.text for piece in pieces))
    assert len(ids) - answer == len(written)
    x, hidden = states_in_training(ids)
    np.testing.assert_allclose(written, np.concatenate([x, hidden], axis=-1)[0, answer:], atol=2e-4)


@pytest.mark.slow
def test_batched_is_alone(state_voice):
    for text, together in zip(TEXTS, state_voice.say_many(TEXTS), strict=True):
        np.testing.assert_array_equal(state_voice.say(text).tokens, together.tokens)
        assert (
            together.stop_reason in ("eos", "text")
            and len(together.audio) == len(together.tokens) * state_voice.codec.token_samples
        )


@pytest.mark.parametrize("cut", [1, 2])
def test_streamed_is_whole(state_voice, thoughts, cut):
    for text in TEXTS:
        (states,) = thoughts.hidden_states_of([text])
        stream, samples = state_voice.stream(), []
        for piece in pieces_of(states, cut):
            stream.push_delta(piece)
            while stream.ready():
                samples.append(stream.step())
        whole = state_voice.say(text)
        said = stream.result()
        assert stream.done and said.stop_reason == whole.stop_reason
        np.testing.assert_array_equal(said.tokens, whole.tokens)
        np.testing.assert_allclose(np.concatenate(samples), whole.audio, atol=2e-4)


def test_no_block_waits_for_more_than_its_text_and_none_ends_before_the_last(state_voice, thoughts):
    (states,) = thoughts.hidden_states_of([TEXTS[2]])
    stream, before = state_voice.stream(), []
    for count, piece in enumerate(pieces_of(states, 1), start=1):
        stream.push_delta(piece)
        if not piece.last:
            assert stream.ready() == (count % 4 == 0)
        while stream.ready():
            stream.step()
            before.append(count)
    assert before[: len(states) // 4] == [4 * (b + 1) for b in range(len(states) // 4)]
    assert len(stream.result().tokens) >= earliest_end(len(states), 4, 16)


def test_a_stream_does_not_end_before_its_text(codec, thoughts):
    """The Talker would write the end at once, everywhere it may."""
    eager = dataclasses.replace(FIXED, num_layers=1, output_bias=True)
    init = jax.jit(talker.init, static_argnums=0)(eager, jax.random.key(0))
    init["output_bias"] = init["output_bias"].at[EOS].set(100.0)
    voice = FixedAnchorSynthesizer(eager, init, codec, thoughts)
    (states,) = thoughts.hidden_states_of([TEXTS[2]])
    stream = voice.stream(steps=1)
    for piece in pieces_of(states, 1):
        stream.push_delta(piece)
        while stream.ready():
            stream.step()
    speech = stream.result()
    assert speech.stop_reason == "eos" and len(speech.tokens) == earliest_end(len(states), 4, 16)


def test_an_assistant_speaks_what_its_thinker_writes(codec):
    thoughts = functools.cache(thinker)
    voices = {
        "mdm": functools.cache(
            lambda: FixedAnchorSynthesizer(FIXED, ending_params(FIXED), codec, thoughts())
        )
    }
    assistant = Assistant(
        "fixed", voices, lambda: ctc_frontend(ENCODER, encoder_params(), *spelling()), thoughts
    )
    assistant.voice().warm_up()
    events = list(assistant.stream(question(), steps=2))
    reply = events[-1].reply
    assert reply.text and len(reply.audio) and reply.stop_reason in ("eos", "text")
    np.testing.assert_array_equal(
        np.concatenate([e.audio for e in events if isinstance(e, AudioEvent)]), reply.audio
    )


def test_bad_requests(state_voice, codec, thoughts):
    with pytest.raises(UserError, match="width 10, this Thinker makes 64"):
        FixedAnchorSynthesizer(
            TalkerConfig(
                dim=64, num_layers=1, num_heads=2, ffn_dim=64, anchors="fixed", text_dim=10
            ),
            {},
            codec,
            thoughts,
        )
    with pytest.raises(UserError, match="use a PacedSynthesizer"):
        FixedAnchorSynthesizer(TalkerConfig(), {}, codec, thoughts)
    with pytest.raises(UserError, match="pace"):
        state_voice.say("yes", pace=1.2)
    with pytest.raises(UserError, match="nothing to say"):
        state_voice.say(" . ")
    with pytest.raises(UserError, match="give it in parts"):
        thoughts.hidden_states_of(["yes " * 600])


def test_the_evaluation_counts_every_end_that_fixed_anchors_have_to_find(state_voice):
    """Their ends are chosen, so they can be missed: with paced anchors none can."""
    found = endings([speech.stop_reason for speech in state_voice.say_many(TEXTS, steps=2)])
    assert found["ends_chosen"] == len(TEXTS) == sum(found["stop_reasons"].values())
    assert found["eos_missed"] == len(TEXTS) - found["stop_reasons"].get("eos", 0)


@pytest.mark.slow
def test_a_long_text_is_said_in_parts(state_voice, monkeypatch):
    """Each part is what it is alone, but for its own seed; no part is longer than an answer."""
    module = sys.modules[type(state_voice).__module__]
    monkeypatch.setattr(module, "_PART", 10)
    text = "yes it is a red apple .\n" + "very good " * 12 + "."
    plan = state_voice.plan(text)
    assert " ".join(" ".join(plan.segments).split()) == " ".join(text.split())
    assert len(plan.segments) > 2 and all(
        len(chat_tokenizer().encode(part)) <= 10 for part in plan.segments
    )
    whole = state_voice.say(text)
    alone = np.concatenate([state_voice.say(part).tokens for part in plan.segments])
    np.testing.assert_array_equal(whole.tokens, alone)  # no draws at temperature 0
    np.testing.assert_array_equal(
        np.concatenate([part.tokens for part in state_voice.say_parts(text)]), alone
    )
