"""`/v1/chat/completions`, asked by OpenAI's own client: what comes is what the assistant answers."""

import base64
import io
import json

import numpy as np
import openai
import pytest
import soundfile
from plain_http import WRONG, ask, error_of
from small_session import asked
from test_transcriptions import file_of

from mdmspeech.audio.wave import to_int16
from mdmspeech.inference.conversation import Conversation
from mdmspeech.serving.audio_memory import KEPT_S, AudioMemory

ASKED = "what is it ?"
RECORDING = base64.b64encode(file_of()).decode()
VOICE = {"voice": "alloy", "format": "pcm16"}


def user(*parts):
    return {"role": "user", "content": parts[0] if len(parts) == 1 else list(parts)}


def text(words):
    return {"type": "text", "text": words}


def sound(data=RECORDING, form="wav"):
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def say(client, *messages, **more):
    return client.chat.completions.create(model="small", messages=list(messages), **more)


def answered(assistant, *question, turns=(), instructions=None):
    """By a conversation of the same turns."""
    conversation = Conversation(assistant.thinker, 256)
    for asks, answer in turns:
        conversation.insert(answer, *asks)
    return "".join(
        piece.text for piece in conversation.ask(*question, instructions=instructions)
    ).strip()


def test_a_typed_question(client, assistant):
    made = say(client, user(ASKED))
    (choice,) = made.choices
    assert choice.message.content == assistant.answer(ASKED).text == answered(assistant, ASKED)
    assert choice.message.role == "assistant" and choice.message.audio is None
    assert (
        made.object == "chat.completion"
        and made.model == "small"
        and made.id.startswith("chatcmpl-")
    )
    usage = made.usage
    assert (
        usage.prompt_tokens > 10
        and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    )
    assert usage.completion_tokens_details.audio_tokens == 0 < usage.completion_tokens


def test_a_spoken_question_is_answered_aloud(client, assistant):
    made = say(client, user([sound()]), modalities=["text", "audio"],
               audio={"voice": "alloy", "format": "wav"}, extra_body={"steps": 2})  # fmt: skip
    reply = assistant.chat(asked(), steps=2)
    message = made.choices[0].message
    assert message.content is None and message.audio.transcript == reply.text
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)), dtype="int16")
    assert rate == reply.sample_rate
    np.testing.assert_array_equal(samples, to_int16(reply.audio))
    assert made.usage.completion_tokens_details.audio_tokens == len(reply.tokens)
    assert message.audio.id.startswith("audio_") and message.audio.expires_at > made.created


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus", "pcm16"])
def test_formats_of_answers(client, form):
    made = say(client, user(ASKED), modalities=["audio"], audio={"voice": "alloy", "format": form})
    data = base64.b64decode(made.choices[0].message.audio.data)
    if form != "pcm16":
        assert soundfile.read(io.BytesIO(data))[1] == 24_000


def test_streamed_text(client, assistant):
    chunks = list(say(client, user(ASKED), stream=True, stream_options={"include_usage": True}))
    *chunks, last = chunks
    assert last.choices == [] and last.usage.completion_tokens > 0
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces).strip() == assistant.answer(ASKED).text and sum(map(bool, pieces)) > 2
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] in (
        [None, "stop"],
        [None, "length"],
    )
    assert len({chunk.id for chunk in chunks}) == 1


def test_streamed_speech(client, assistant):
    chunks = list(say(client, user(ASKED), stream=True, modalities=["text", "audio"], audio=VOICE))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    audio = [delta.audio for delta in deltas if getattr(delta, "audio", None)]
    reply = assistant.answer(ASKED)
    data = [base64.b64decode(one["data"]) for one in map(dict, audio) if one.get("data")]
    assert b"".join(data) == to_int16(reply.audio).astype("<i2").tobytes() and len(data) > 1
    assert "".join(dict(one).get("transcript") or "" for one in audio).strip() == reply.text
    assert dict(audio[0])["id"] and dict(audio[-1])["expires_at"]
    assert all(delta.content is None for delta in deltas)
    # speech begins before the text is over
    order = ["data" if dict(one).get("data") else "text" for one in audio[1:-1]]
    assert order.index("data") < len(order) - 1 - order[::-1].index("text")


def test_the_conversation_so_far_is_honoured(client, assistant):
    """Typed and spoken, of several messages and parts, with instructions."""
    turns = [((ASKED,), "it is very good"), (("what is it", "and is it red ?"), "yes")]
    messages = [
        user(ASKED), {"role": "assistant", "content": "it is very good"},
        user("what is it"), user([text("and is it red ?")]),
        {"role": "assistant", "content": [text("yes")], "refusal": None},
    ]  # fmt: skip
    question = "is a red apple good ?"
    expected = answered(assistant, question, turns=turns)
    assert say(client, *messages, user(question)).choices[0].message.content == expected
    assert expected != answered(assistant, question)
    for role in ("system", "developer"):
        told = say(client, {"role": role, "content": "be very red"}, *messages, user(question))
        assert told.choices[0].message.content == answered(
            assistant, question, turns=turns, instructions="be very red"
        )
    heard = assistant.transcript(asked())
    spoken = say(client, user([sound()]), {"role": "assistant", "content": "yes"},
                 user([text("is it ?"), sound(), text("or not ?")]))  # fmt: skip
    assert spoken.choices[0].message.content == answered(
        assistant, "is it ?", heard, "or not ?", turns=[((heard,), "yes")]
    )


def test_an_answer_of_before_by_its_id(client, assistant):
    first = say(client, user(ASKED), modalities=["text", "audio"], audio=VOICE).choices[0].message
    after = [user(ASKED), {"role": "assistant", "audio": {"id": first.audio.id}}, user("why ?")]
    turns = [((ASKED,), first.audio.transcript)]
    expected = answered(assistant, "why ?", turns=turns)
    assert say(client, *after).choices[0].message.content == expected
    after[1]["audio"]["id"] = "audio_" + "0" * 32
    with pytest.raises(openai.BadRequestError, match="no answer of this server"):
        say(client, *after)


def test_answers_are_remembered_for_a_while():
    now = [1000.0]
    memory = AudioMemory(clock=lambda: now[0])
    names = [memory.new_id() for _ in range(1500)]
    assert len(set(names)) == 1500
    for number, name in enumerate(names):
        assert memory.keep(name, str(number)) == 1000 + KEPT_S
    assert memory.find(names[0]) is None and memory.find(names[-1]) == "1499"
    now[0] += KEPT_S
    assert memory.find(names[-1]) is None and memory.find("no") is None


def test_how_long_an_answer_may_be(client, assistant):
    whole = say(client, user(ASKED))
    for name in ("max_tokens", "max_completion_tokens"):
        made = say(client, user(ASKED), **{name: 2})
        assert made.choices[0].finish_reason == "length" and made.usage.completion_tokens == 2
        assert whole.choices[0].message.content.startswith(made.choices[0].message.content)
    long = say(client, user(ASKED), max_tokens=100_000)
    assert long.choices[0].message.content == whole.choices[0].message.content


def test_a_conversation_that_is_too_long(client):
    turns = [user("is it " * 20), {"role": "assistant", "content": "yes"}] * 8
    for messages in ([*turns, user("why ?")], [user("is it a red apple " * 60)],
                     [user("a" * 40_000), user("b" * 40_000)]):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as told:
            say(client, *messages)
        assert told.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"functions": [{}]}, "functions", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"), ({"n": True}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 3}, "top_logprobs", "unsupported_parameter"),
        ({"top_p": 0.5}, "top_p", "unsupported_parameter"),
        ({"stop": "."}, "stop", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"presence_penalty": 1}, "presence_penalty", "unsupported_parameter"),
        ({"logit_bias": {"5": 3}}, "logit_bias", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"temperature": 2}, "temperature", WRONG), ({"max_tokens": 0}, "max_tokens", WRONG),
        ({"modalities": []}, "modalities", WRONG), ({"modalities": ["video"]}, "modalities", WRONG),
        ({"modalities": "text"}, "modalities", WRONG), ({"modalities": [["text"]]}, "modalities", WRONG),
        ({"modalities": ["audio"]}, "audio", None), ({"audio": "loud"}, "audio", None),
        ({"audio": {"format": "aac"}}, "audio.format", "unsupported_parameter"),
        ({"audio": {"format": "x"}}, "audio.format", WRONG),
        ({"audio": {"format": "wav", "voice": "bob"}}, "audio.voice", "voice_not_found"),
        ({"audio": {"format": "wav", "pitch": 1}}, "audio.pitch", "unknown_parameter"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", WRONG),
        ({"stream": 1}, "stream", WRONG), ({"top_k": 5}, "top_k", "unknown_parameter"),
        ({"model": "llama"}, "model", "model_not_found"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(server, changes, param, code):
    body = {"model": "small", "messages": [user(ASKED)]} | changes
    answer = error_of(ask(server, "POST", "/v1/chat/completions", body))
    assert answer == (
        404 if code == "model_not_found" else 400,
        "invalid_request_error",
        param,
        code,
    )


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        ({}, "messages"),
        ([1], "messages[0]"),
        ([[]], "messages[0]"),
        ([{}], "messages[0].role"),
        ([user(ASKED)] * 257, "messages"),
        ([{"role": "tool", "content": "x"}], "messages[0].role"),
        ([{"role": "assistant", "content": "x"}], "messages[0]"),
        ([user(ASKED), {"role": "assistant", "content": "x"}], "messages"),
        ([user(ASKED), {"role": "assistant", "content": None}, user("x")], "messages[1].content"),
        (
            [user(ASKED), {"role": "assistant", "content": "x", "tool_calls": [{}]}],
            "messages[1].tool_calls",
        ),
        (
            [user(ASKED), {"role": "assistant", "content": [sound()]}, user("x")],
            "messages[1].content",
        ),
        ([user(ASKED), {"role": "assistant", "audio": {"id": 5}}], "messages[1].audio.id"),
        ([user(ASKED), {"role": "system", "content": "be late"}, user("x")], "messages[1]"),
        ([{"role": "system", "content": [sound()]}, user("x")], "messages[0].content"),
        ([user("?!")], "messages"),
        ([user("")], "messages"),
        ([user([])], "messages[0].content"),
        ([user(5)], "messages[0].content"),
        ([user([5])], "messages[0].content[0]"),
        (
            [user([{"type": "image_url", "image_url": {"url": "http://x"}}])],
            "messages[0].content[0].type",
        ),
        ([user([{"type": "text", "text": 5}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": "\ud800 a"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": "a", "b": 1}])], "messages[0].content[0].b"),
        ([user([sound("???")])], "messages[0].content[0].input_audio.data"),
        ([user([sound("é" * 8)])], "messages[0].content[0].input_audio.data"),
        ([user([sound("")])], "messages[0].content[0].input_audio.data"),
        ([user([sound("AAAA")])], "messages[0].content[0].input_audio.data"),
        ([user([sound("AAA=", "pcm16")])], "messages[0].content[0].input_audio.data"),
        ([user([sound(form="exe")])], "messages[0].content[0].input_audio.format"),
        ([user([{"type": "input_audio"}])], "messages[0].content[0].input_audio"),
        ([user([sound()] * 17)], "messages"),
        ([user(ASKED) | {"tone": "kind"}], "messages[0].tone"),
    ],
)
def test_chats_that_are_none(server, messages, param):
    body = {"model": "small", "messages": messages}
    answer = error_of(ask(server, "POST", "/v1/chat/completions", body))
    assert answer[:3] == (400, "invalid_request_error", param)


def test_what_is_harmless_is_taken(server, assistant):
    body = {
        "model": "gpt-4o-audio-preview", "messages": [user(ASKED) | {"name": "Bo"}], "user": "me",
        "store": False, "metadata": {"a": "b"}, "n": 1, "tools": [], "tool_choice": "auto", "stop": None,
        "logprobs": False, "top_p": 1.0, "frequency_penalty": 0, "response_format": {"type": "text"},
        "service_tier": "auto", "parallel_tool_calls": True, "modalities": ["text"], "temperature": 1,
        "audio": {"voice": "alloy", "format": "wav"}, "stream": False, "seed": 3, "safety_identifier": "x",
    }  # fmt: skip
    status, _, answer = ask(server, "POST", "/v1/chat/completions", body)
    assert status == 200
    assert json.loads(answer)["choices"][0]["message"]["content"] == assistant.answer(ASKED).text


def test_a_recording_without_words(server, monkeypatch):
    from mdmspeech.inference.speech_frontend import EncodedSpeech

    frontend = server.engine.assistant.frontend
    monkeypatch.setattr(frontend, "encode", lambda wave: EncodedSpeech(None, "", 0.0, 0.0))
    body = {"model": "small", "messages": [user([sound()])]}
    answer = ask(server, "POST", "/v1/chat/completions", body)
    assert error_of(answer)[0::3] == (400, "no_speech")
