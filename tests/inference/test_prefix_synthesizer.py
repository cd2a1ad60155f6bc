"""The voice with a text prefix: sentences, each with its own text in front; batched = alone; no end
before or after what a text may last; what it cannot be asked for.
"""

import dataclasses
import random

import numpy as np
import pytest
from small_speech import (
    ENCODER,
    PREFIX,
    TALKER,
    encoder_params,
    ending_params,
    spelling,
    text_tokenizer,
)

from mdmspeech.data.pipelines.random_source import byte_tokenizer
from mdmspeech.errors import UserError
from mdmspeech.inference import engine
from mdmspeech.inference.assistant import Assistant
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.prefix_synthesizer import PrefixSynthesizer, SentenceReader
from mdmspeech.inference.speech_frontend import ctc_frontend
from mdmspeech.speech_format import EOS

TEXTS = ["Yes, it is.", "What is a very good answer? It is a red apple.", "No."]


def read(text, at=(), longest=255):
    """A reader that was fed the text cut at these places."""
    reader = SentenceReader(byte_tokenizer().encode, longest)
    for first, end in zip([0, *at], [*at, len(text)], strict=True):
        reader.feed(text[first:end])
    reader.end()
    return reader


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is so. Yes? No.", ["It is so.", "Yes?", "No."]),
        ("It costs $3.50 at 7:30.", ["It costs three dollars and fifty cents at seven thirty."]),
        ("Good! ... !!! Very good?", ["Good!", "Very good?"]),
        ("Hello\n\nWorld", ["Hello.", "World"]),
        ("Dr. Smith has one. He said so.", ["Doctor Smith has one.", "He said so."]),
        ("", []),
        ("...", []),
    ],
)
def test_sentences_are_read_as_they_are_said(text, said):
    reader = read(text)
    assert reader.texts == said and reader.silent == (not said)
    assert [list(s.ids) for s in reader.segments] == [byte_tokenizer().encode(s) for s in said]


def test_no_segment_has_more_ids_than_are_read_and_no_word_is_lost():
    for text in ("word " * 100, "A" * 600, "Ha. " + "long, " * 90 + "end. Then one more."):
        reader = read(text, longest=40)
        assert all(0 < len(segment.ids) <= 40 for segment in reader.segments)
        said = "".join(reader.texts).replace(" ", "")
        assert said == "".join(read(text).texts).replace(" ", "")


def test_a_text_in_any_pieces_is_read_as_the_whole():
    rng, marks = random.Random(0), [". ", "! ", ", ", " ", "\n", "\n\n", "...", " 3.5 ", "? A"]
    marks += ["word", "It", "is", "Dr.", "a"]
    for _ in range(15):
        text = "".join(rng.choice(marks) for _ in range(60))
        whole = read(text, longest=64)
        at = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 30)))
        assert read(text, at, longest=64).segments == whole.segments


@pytest.mark.slow
def test_batched_is_alone(prefix_voice, monkeypatch):
    monkeypatch.setattr(engine, "ROWS", (1, 2))  # what is compiled for two is soon compiled
    how = dict(steps=3, temperature=0.8, seed=7)
    for text, together in zip(TEXTS, prefix_voice.say_many(TEXTS, **how), strict=True):
        alone = prefix_voice.say(text, **how)
        np.testing.assert_array_equal(alone.tokens, together.tokens)
        np.testing.assert_array_equal(alone.trace.step_L, together.trace.step_L)
        assert together.stop_reason == alone.stop_reason and together.words == ()
        assert len(together.audio) == len(together.tokens) * prefix_voice.codec.token_samples


def test_a_sentence_hears_nothing_of_the_others(prefix_voice):
    """But for its seed, which plays no part where nothing is drawn; parts are the whole."""
    alone = [prefix_voice.say(part, steps=2).tokens for part in prefix_voice.plan(TEXTS[1]).texts]
    assert len(alone) == 2 and not np.array_equal(*(tokens[:9] for tokens in alone))
    for whole in (
        [prefix_voice.say(TEXTS[1], steps=2).tokens],
        [part.tokens for part in prefix_voice.say_parts(TEXTS[1], steps=2)],
    ):
        np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(alone))


@pytest.mark.parametrize(
    ("bias", "stopped", "an_id"), [(100.0, "eos", 2), (-100.0, "text", 20)], ids=["eager", "never"]
)
def test_speech_ends_when_it_may_and_when_it_must(prefix_voice, monkeypatch, bias, stopped, an_id):
    params = prefix_voice.engine.params
    changed = params["output_bias_V"].at[EOS].set(bias)
    monkeypatch.setitem(params, "output_bias_V", changed)
    for text in ("Yes.", "It is a red apple"):
        (segment,) = prefix_voice.plan(text).segments
        speech = prefix_voice.say(text, steps=1)
        assert (speech.stop_reason, len(speech.tokens)) == (stopped, an_id * len(segment.ids))


def test_an_answer_is_spoken_while_it_is_written(prefix_voice, thoughts):
    frontend = lambda: ctc_frontend(ENCODER, encoder_params(), *spelling())
    assistant = Assistant("prefix", {"mdm": lambda: prefix_voice}, frontend, lambda: thoughts)
    reply = assistant.answer("what is it ?", steps=1)
    assert reply.text and len(reply.tokens)
    np.testing.assert_array_equal(reply.tokens, prefix_voice.say(reply.text, steps=1).tokens)


def test_the_next_token_of_the_best_and_a_long_silence(codec):
    """Options of decoding reach the engine: drawing among the best one draws nothing, and all codes
    are silence here.
    """
    params = ending_params(PREFIX)
    params["output_bias"] = params["output_bias"].at[EOS].set(-100.0)
    voice = PrefixSynthesizer(
        PREFIX, params, codec, text_tokenizer(), mode="ntp", silence=range(6561), top_k=1
    )
    greedy, drawn = (voice.say("It is a red apple", temperature=t, seed=3) for t in (0.0, 1.5))
    np.testing.assert_array_equal(greedy.tokens, drawn.tokens)
    assert (greedy.stop_reason, len(greedy.tokens)) == ("silence", 50)
    assert greedy.trace.step_L.max() == 15  # one token a step


def test_what_is_refused(prefix_voice, codec):
    with pytest.raises(UserError, match="use a PacedSynthesizer"):
        PrefixSynthesizer(TALKER, {}, codec, prefix_voice.tokenizer)
    with pytest.raises(UserError, match="use a PrefixSynthesizer"):
        PacedSynthesizer(PREFIX, {}, codec)
    with pytest.raises(UserError, match="knows 60 ids of text, this tokenizer has 259"):
        PrefixSynthesizer(PREFIX, {}, codec, byte_tokenizer())
    with pytest.raises(UserError, match="no modules of multi-token prediction"):
        PrefixSynthesizer(PREFIX, {}, codec, prefix_voice.tokenizer, mode="mtp")
    with pytest.raises(UserError, match="'none' anchors does not speak"):
        PrefixSynthesizer(dataclasses.replace(PREFIX, anchors="none"), {}, codec, None)
    with pytest.raises(UserError, match="prefix anchors finds its own pace"):
        prefix_voice.say("yes", pace=1.2)
    with pytest.raises(UserError, match="16 tokens"):
        prefix_voice.say("yes", steps=17)
    for nothing in ("", " . ", "...", "—"):
        with pytest.raises(UserError, match="nothing to say"):
            prefix_voice.say(nothing)
        with pytest.raises(UserError, match="nothing to say"):
            prefix_voice.stream().end(nothing)
