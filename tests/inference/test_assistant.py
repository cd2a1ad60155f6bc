"""The assistant: events in order, the same answer however it is asked for, a timeline and a picture
of it, clear errors.
"""

import numpy as np
import pytest
from small_speech import ENCODER, encoder_params, question, thinker, words_if_long

from mdmspeech.errors import UserError
from mdmspeech.inference.assistant import Assistant, AudioEvent, EndEvent, TextEvent
from mdmspeech.inference.plots import save_plot
from mdmspeech.inference.speech_frontend import SpeechFrontend, stack_frontend
from mdmspeech.inference.timeline import render
from mdmspeech.models.stack_adaptor import StackAdaptor


@pytest.fixture(scope="module")
def events(assistant):
    return list(assistant.stream(question()))


@pytest.mark.slow
def test_events_join_to_the_reply(events):
    assert isinstance(events[-1], EndEvent) and sum(isinstance(e, EndEvent) for e in events) == 1
    reply = events[-1].reply
    assert "".join(e.text for e in events if isinstance(e, TextEvent)).strip() == reply.text
    np.testing.assert_array_equal(
        np.concatenate([e.audio for e in events if isinstance(e, AudioEvent)]), reply.audio
    )
    assert reply.text and len(reply.audio) and reply.stop_reason == "length"


def test_audio_comes_before_the_last_text(events):
    kinds = [type(event) for event in events]
    assert kinds.index(AudioEvent) < len(kinds) - 1 - kinds[::-1].index(TextEvent)


def test_the_answer_is_that_of_its_parts(assistant, events):
    reply = events[-1].reply
    assert reply.heard == assistant.transcript(question())
    assert assistant.hear(question()) == reply.text
    assert assistant.answer_many([reply.heard]) == [reply.text]
    np.testing.assert_array_equal(assistant.say(reply.text).tokens, reply.tokens)


def test_typed_questions_are_answered_aloud(assistant):
    reply = assistant.answer("what is good ?", steps=2)
    assert reply.text == assistant.answer_many(["what is good ?"])[0]
    assert reply.trace.step_L.max() <= 1


def test_batches_answer_as_single_questions_do(assistant):
    waves = [question(seconds, seed=n) for n, seconds in enumerate((0.4, 2.5, 1.1))]
    assert assistant.transcripts(waves) == [assistant.transcript(wave) for wave in waves]
    assert assistant.hear_many(waves) == [assistant.hear(wave) for wave in waves]


def test_the_fixed_prefix_changes_nothing():
    """Prefix read once and reused = the whole prompt read at once."""
    import jax.numpy as jnp

    from mdmspeech.models import generation

    one = thinker()
    prompt = one.tokenizer.chat_prompt(
        [{"role": "system", "content": "be kind"}, {"role": "user", "content": "what is it ?"}]
    )
    embedded, count = one._embed(one._params, np.array([prompt])), np.array([len(prompt)])
    nothing = generation.empty_state(one._thinker, 1, len(prompt))
    read = generation.extend(one._thinker, one._params, nothing, embedded, count)[1]
    expected = read.logits_BV[0]
    for _ in range(2):
        state = one.read([one.question("what is it ?")])
        assert jnp.allclose(state.logits_BV[0], expected, atol=1e-4)
        list(one.answer(state))


def test_the_timeline_has_every_stage(events):
    timeline = events[-1].reply.timeline
    stages = ("encoder", "adaptor", "thinker_prefill", "thinker_decode", "talker", "codec")
    assert all(timeline[stage] >= 0 for stage in stages)
    assert 0 < timeline["first_audio_s"] <= timeline["total_s"]
    assert timeline["audio_s"] == pytest.approx(len(events[-1].reply.audio) / 24_000)
    text = render(timeline)
    for told in (
        "speech encoder",
        "Thinker, writing",
        "Talker",
        "codec",
        "first audio",
        "real-time factor",
    ):
        assert told in text
    tokens, seconds = timeline["thinker_tokens"], timeline["thinker_decode"]
    assert 1 <= tokens <= 12  # the most that this Thinker writes
    assert f"{tokens / seconds:.1f} tokens a second, {tokens} tokens" in text


def test_a_silent_answer_has_a_timeline_without_factor():
    assert "real-time" not in render(
        {"talker": 0.1, "total_s": 0.2, "audio_s": 0.0, "real_time_factor": None}
    )


def test_the_picture_is_drawn(events, tmp_path):
    save_plot(tmp_path / "answer.png", events[-1].reply)
    assert (tmp_path / "answer.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="cannot write"):
        save_plot(tmp_path / "no" / "answer.png", events[-1].reply)


def test_blocks_of_the_trace_are_ready_in_order(events):
    trace = events[-1].reply.trace
    assert list(trace.ready_P) == sorted(trace.ready_P) and trace.ready_P[0] > 0
    assert len(trace.starts_P) == len(trace.ready_P) == -(-len(trace.step_L) // 16)


def test_the_next_token_talker_is_a_choice(assistant):
    assert assistant.chat(question(), talker="ntp").trace.step_L.max() > 3
    with pytest.raises(UserError, match="no talker 'mtp'; it has mdm, ntp"):
        assistant.chat(question(), talker="mtp")


def test_the_stack_adaptor_answers_without_a_transcript(assistant):
    import jax
    import jax.numpy as jnp

    module = StackAdaptor(32, 5, 16)
    params = module.init(jax.random.key(0), jnp.zeros((1, 5, 32)))["params"]
    frontend = stack_frontend(ENCODER, encoder_params(), module, params)
    # ten a second, and the second of silence after it
    assert frontend.encode(question(1.0)).vectors.shape == (20, 32)
    vectors = Assistant("vectors", {"mdm": assistant.voice}, lambda: frontend, thinker)
    reply = vectors.chat(question(1.0))
    assert reply.heard is None and reply.text
    with pytest.raises(UserError, match="makes vectors, not text"):
        vectors.transcript(question(1.0))


def test_parts_open_only_when_needed(codec, assistant):
    def fail():
        raise AssertionError("opened")

    only_voice = Assistant("x", {"mdm": assistant.voice}, fail, fail)
    assert len(only_voice.say("it is good").audio)
    with pytest.raises(AssertionError, match="opened"):
        only_voice.hear(question())


def test_a_question_that_is_too_long_to_read():
    with pytest.raises(UserError, match="ask something shorter"):
        thinker().question("what " * 600)


def test_what_nobody_said_is_not_answered(assistant):
    frontend = SpeechFrontend(
        ENCODER, encoder_params(), lambda params, states, valid: valid, {}, words_if_long
    )
    listener = Assistant(
        "listener", {"mdm": assistant.voice}, lambda: frontend, lambda: assistant.thinker
    )
    noise, asked = question(0.8), question(2.0)
    with pytest.raises(UserError, match=r"^no speech heard in the recording"):
        listener.chat(noise)
    assert listener.hear_many([noise, asked, noise], unheard="?") == [
        "?",
        assistant.answer_many(["what is it ?"])[0],
        "?",
    ]
    assert listener.hear_many([noise], unheard="") == [""] and listener.hear_many([]) == []


def test_of_many_typed_questions_the_one_that_is_too_long_is_named(assistant):
    with pytest.raises(
        UserError, match=r"^question 2 of 2: the question has .* ask something shorter"
    ):
        assistant.answer_many(["what is it ?", "what " * 600])
    assert assistant.answer_many([]) == []
