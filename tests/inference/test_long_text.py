"""Texts of any length: no limit of the codec, whole = in parts = streamed, memory that does not
grow, bad texts named before work, one error for nothing to say.
"""

import gc

import numpy as np
import pytest
from small_speech import spell

from mdmspeech.codec.compact import bound
from mdmspeech.errors import UserError
from mdmspeech.inference import synthesizer
from mdmspeech.inference.speech import join
from mdmspeech.inference.symbols import read_text
from mdmspeech.inference.thinker_runner import TextDelta
from mdmspeech.inference.utterance import Utterance

SENTENCE = "A much longer sentence follows here and it takes two blocks or more."
TEXT = " ".join([SENTENCE, "And another one.", SENTENCE, SENTENCE])
NOTHING = [
    "", " ", "...", "!", "—", "?!", "\n\n", "***", "()", "、。", "\u200b", "Привет", "你好", "🙂",
]  # fmt: skip


@pytest.fixture
def short_codec(monkeypatch):
    """A codec that decodes no more than 64 tokens at once."""
    monkeypatch.setattr(bound, "_LENGTHS", (32, 64))


@pytest.fixture
def one_by_one(monkeypatch):
    """Parts of one segment."""
    monkeypatch.setattr(synthesizer, "_PART", 1)


@pytest.fixture
def no_work(voice, monkeypatch):
    def fail(*args):
        raise AssertionError("something was computed")

    monkeypatch.setattr(voice.engine, "open", fail)
    monkeypatch.setattr(voice.reader, "read", fail)


@pytest.mark.slow
def test_in_parts_and_streamed_is_whole(voice, short_codec, one_by_one):
    whole = voice.say(TEXT, steps=2, seed=3)
    assert len(whole.tokens) > 2 * 64
    parts = voice.say_parts(TEXT, steps=2, seed=3)
    assert len(parts) == len(read_text(spell, TEXT).segments) > 1 and parts.words == len(
        whole.words
    )
    joined = join(list(parts))
    stream = voice.stream(steps=2, seed=3)
    stream.end(TEXT)
    samples = []
    while not stream.done:
        samples.append(stream.step())
    for other in (joined, stream.result()):
        np.testing.assert_array_equal(other.tokens, whole.tokens)
        np.testing.assert_allclose(other.audio, whole.audio, atol=1e-3)
        np.testing.assert_array_equal(other.trace.starts_P, whole.trace.starts_P)
        np.testing.assert_array_equal(other.trace.step_L, whole.trace.step_L)
        assert [word.text for word in other.words] == [word.text for word in whole.words]
        np.testing.assert_allclose(
            [(w.start, w.end) for w in other.words],
            [(w.start, w.end) for w in whole.words],
            atol=1e-6,
        )
    assert joined.timeline["audio_s"] == pytest.approx(len(whole.audio) / 24_000)


def test_words_follow_each_other_to_the_end(voice):
    said = voice.say(TEXT, steps=1)
    times = [time for word in said.words for time in (word.start, word.end)]
    assert times == sorted(times) and [word.text for word in said.words] == spell(TEXT).words
    assert 0.9 * len(said.audio) / 24_000 < times[-1] <= len(said.audio) / 24_000 + 0.04


def test_a_part_is_made_when_it_is_asked_for(voice, one_by_one, monkeypatch):
    spoken, speak = [], voice._speak
    monkeypatch.setattr(voice, "_speak", lambda *args: spoken.append(args) or speak(*args))
    parts = iter(voice.say_parts(TEXT, steps=1))
    assert not spoken
    first = next(parts)
    assert (
        len(spoken) == 1 and 0 < len(first.audio) <= len(first.tokens) * voice.codec.token_samples
    )


@pytest.mark.full
def test_a_stream_keeps_only_the_segment_that_it_is_at(voice):
    stream = voice.stream(steps=1)
    stream.end(TEXT)
    while not stream.done:
        stream.step()
        gc.collect()
        assert sum(isinstance(thing, Utterance) for thing in gc.get_objects()) <= 1
    assert len(stream._spoken) == len(read_text(spell, TEXT).segments)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("text", NOTHING)
def test_nothing_to_say_is_the_same_error_everywhere(voice, no_work, text):
    told = set()
    for call in (
        voice.say,
        voice.say_parts,
        lambda text: voice.say_many([text]),
        lambda text: voice.stream().end(text),
    ):
        with pytest.raises(UserError, match="nothing to say") as error:
            call(text)
        told.add(str(error.value))
    assert len(told) == 1


def test_a_bad_text_of_many_is_named_before_any_work(voice, no_work):
    for bad, said in [
        ("...", "text 3 of 4: there is nothing to say"),
        (None, "text 3 of 4 is of type NoneType"),
        (b"yes", "of type bytes"),
    ]:
        with pytest.raises(UserError, match=said):
            voice.say_many(["yes", "no", bad, "maybe"])
    with pytest.raises(UserError, match="list of texts"):
        voice.say_many("yes")
    with pytest.raises(UserError, match="type int"):
        voice.say(5)


def test_no_texts_are_no_speeches(voice):
    assert voice.say_many([]) == []


def test_an_answer_without_words_is_silence(voice):
    stream = voice.stream()
    stream.push_delta(TextDelta("...", True, 1, last=True))
    stream.end()
    while not stream.done:
        stream.step()
    assert len(stream.result().audio) == 0
