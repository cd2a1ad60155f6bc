"""The voice: one text, many texts and a stream of words give the same tokens; audio leaves early;
wrong wishes are one line.
"""

import dataclasses

import numpy as np
import pytest
from small_speech import TALKER, spell, talker_params

from mdmspeech.errors import UserError
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.models.prepared_talker import fold_tables

TEXTS = [
    "Hello there my friend.",
    "A much longer sentence follows here and it takes two blocks or more. And another one.",
    "Ok.",
]


def by_words(voice, text, **generation):
    """(speech, samples after each block)."""
    stream, waves = voice.stream(**generation), []
    for word in text.split(" "):
        stream.feed(word + " ")
        while stream.ready():
            waves.append(stream.step())
    stream.end()
    while not stream.done:
        waves.append(stream.step())
    return stream.result(), waves


def test_speech_has_the_length_its_durations_ask_for(voice):
    speech = voice.say(TEXTS[0])
    assert speech.stop_reason == "length"
    assert len(speech.audio) == len(speech.tokens) * voice.codec.token_samples
    assert speech.tokens.min() >= 0 and speech.tokens.max() < 6561
    assert np.isfinite(speech.audio).all() and len(set(speech.tokens.tolist())) > 3
    assert speech.words[-1].end <= len(speech.audio) / speech.sample_rate + 0.04


def test_tokens_at_given_durations(voice):
    symbols = [voice.pronounce(text).symbols for text in TEXTS[:2]]
    _, own = voice.reader.read(symbols[0][None], np.ones((1, len(symbols[0])), bool))
    np.testing.assert_array_equal(
        voice.tokens_at(symbols[:1], [own[0]])[0], voice.say(TEXTS[0]).tokens
    )
    slow = voice.tokens_at(symbols, [np.full(len(row), 2.5) for row in symbols])
    assert [len(row) for row in slow] == [-(-5 * len(row) // 2) for row in symbols]


def test_a_row_alone_is_the_row_in_a_batch(voice):
    together = voice.say_many(TEXTS * 2, steps=4, seed=3)
    for text, speech in zip(TEXTS * 2, together, strict=True):
        alone = voice.say(text, steps=4, seed=3)
        np.testing.assert_array_equal(speech.tokens, alone.tokens)
        np.testing.assert_allclose(speech.audio, alone.audio, atol=1e-3)
        assert speech.words == alone.words


@pytest.mark.parametrize(
    "generation",
    [{"steps": 1}, {"steps": 4}, {"steps": 3, "temperature": 1.0, "seed": 5}, {"pace": 1.25}],
)
@pytest.mark.parametrize("text", TEXTS)
def test_streamed_by_words_equals_one_shot(voice, text, generation):
    whole = voice.say(text, **generation)
    streamed, waves = by_words(voice, text, **generation)
    np.testing.assert_array_equal(streamed.tokens, whole.tokens)
    np.testing.assert_allclose(np.concatenate(waves), whole.audio, atol=1e-3)
    np.testing.assert_array_equal(streamed.trace.step_L, whole.trace.step_L)
    assert streamed.stop_reason == whole.stop_reason


def test_long_texts_are_spoken_in_segments(voice):
    text = " ".join([TEXTS[1]] * 3)
    whole = voice.say(text, steps=2)
    streamed, _ = by_words(voice, text, steps=2)
    np.testing.assert_array_equal(streamed.tokens, whole.tokens)
    ends = [word.end for word in whole.words]
    assert ends == sorted(ends) and len(whole.words) == len(spell(text).words)
    assert ends[-1] > 0.9 * len(whole.audio) / whole.sample_rate


def test_the_next_token_talker_speaks_through_the_same_interface(ntp_voice):
    whole = ntp_voice.say(TEXTS[1])
    streamed, _ = by_words(ntp_voice, TEXTS[1])
    np.testing.assert_array_equal(streamed.tokens, whole.tokens)
    assert whole.trace.step_L.max() == 15  # one token a step


def test_audio_leaves_before_the_text_is_complete(voice):
    stream = voice.stream(steps=1)
    fed, first = 0, None
    for word in (TEXTS[1] + " " + TEXTS[1]).split(" "):
        stream.feed(word + " ")
        fed += 1
        if first is None and stream.ready():
            assert len(stream.step()) > 0
            first = fed
    assert first is not None and first < fed / 2
    assert not stream.done


def test_the_number_of_steps_is_what_was_asked_for(voice):
    assert voice.say(TEXTS[1], steps=1).trace.step_L.max() == 0
    assert voice.say(TEXTS[1], steps=8).trace.step_L.max() == 7


def test_pace_changes_the_length_and_seed_the_drawn_tokens(voice):
    plain = voice.say(TEXTS[1])
    fast = voice.say(TEXTS[1], pace=1.25)
    assert len(fast.tokens) == pytest.approx(len(plain.tokens) / 1.25, abs=3)
    drawn = [voice.say(TEXTS[0], temperature=1.0, seed=seed).tokens for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_folded_tables_change_nothing(voice):
    config, params = TALKER, talker_params()
    folded, tables = fold_tables(config, params)
    from mdmspeech.models.talker import CodeTable

    expected = CodeTable(config.dim, True, 1.0).apply({"params": params["inputs"]})
    np.testing.assert_allclose(tables["inputs"]["table"], expected, atol=1e-6)
    assert not folded.structured_codes and "digits" not in tables["outputs"]


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 17}, "16 tokens"),
        ({"temperature": -1}, "temperature=-1"),
        ({"pace": 9}, "pace=9"),
    ],
)
def test_wrong_wishes(voice, wish, told):
    with pytest.raises(UserError, match=told):
        voice.say("Hello.", **wish)


def test_a_sentence_that_is_too_long(voice):
    slow = talker_params()
    slow["anchors"]["duration_out"]["bias"] += 3.0
    with pytest.raises(UserError, match="shorter sentences"):
        PacedSynthesizer(TALKER, slow, voice.codec, pronounce=spell).say(TEXTS[1])


def test_fixed_anchors_are_refused(voice):
    fixed = dataclasses.replace(TALKER, anchors="fixed", text_dim=8)
    with pytest.raises(UserError, match="use a FixedAnchorSynthesizer"):
        PacedSynthesizer(fixed, {}, voice.codec)


def test_speech_can_be_saved(voice, tmp_path):
    import soundfile

    voice.say("Ok.").save(tmp_path / "ok.wav")
    assert soundfile.info(tmp_path / "ok.wav").samplerate == 24_000
