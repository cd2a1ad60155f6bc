"""`session.update`: what is named changes and the rest stays; what cannot be is refused by its name,
and then nothing has changed.
"""

import pytest
from scripted import MODEL, Talk, of

from mdmspeech.audio.turns import TurnDetection
from mdmspeech.serving.realtime.session_object import SessionObject


def session(**patch):
    found = SessionObject(MODEL, "sess", 9)
    found.update(patch)
    return found


def audio(**sides):
    return {"audio": sides}


def vad(**fields):
    return audio(input={"turn_detection": fields})


def out(**fields):
    return audio(output=fields)


def test_what_a_client_is_told_at_the_beginning():
    found = Talk().sent[0]["session"]
    assert found == found | {
        "object": "realtime.session", "type": "realtime", "id": "sess_0", "expires_at": 99,
        "model": "small", "instructions": "be kind", "output_modalities": ["audio"], "tools": [],
        "max_output_tokens": "inf",
    }  # fmt: skip
    assert found["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": {
            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
            "silence_duration_ms": 500, "create_response": True, "interrupt_response": True,
        },
    }  # fmt: skip
    assert session().settings() == {
        "turn_detection": TurnDetection(), "create_response": True, "interrupt_response": True,
        "instructions": None, "output": "audio", "max_output_tokens": None, "steps": "auto",
        "seed": 0, "temperature": 0.0, "pace": 1.0,
    }  # fmt: skip


# (patch, what the session's settings are then)
TAKEN = [
    ({"instructions": "be brief"}, {"instructions": "be brief"}),
    ({"instructions": ""}, {"instructions": None}),
    ({"instructions": None}, {"instructions": None}),
    ({"output_modalities": ["text"]}, {"output": "text"}),
    ({"max_output_tokens": 10}, {"max_output_tokens": 10}),
    ({"max_output_tokens": 10.0}, {"max_output_tokens": 10}),
    ({"max_output_tokens": "inf"}, {"max_output_tokens": None}),
    (out(speed=0.75), {"pace": 0.75}),
    (out(pace=1.25), {"pace": 1.25}),
    (out(speed=1), {"pace": 1.0}),
    (out(steps=1), {"steps": 1}),
    (out(steps="auto"), {"steps": "auto"}),
    (out(seed=2**32 - 1), {"seed": 2**32 - 1}),
    (out(temperature=0.5), {"temperature": 0.5}),
    (out(talker="mdm"), {}),
    (out(voice="marin"), {}),
    (out(voice={"id": "default"}), {}),
    (vad(threshold=0.7), {"turn_detection": TurnDetection(threshold=0.7)}),
    (vad(type="server_vad"), {"turn_detection": TurnDetection()}),
    (vad(prefix_padding_ms=0), {"turn_detection": TurnDetection(prefix_padding_s=0)}),
    (vad(create_response=False), {"create_response": False}),
    (vad(interrupt_response=False), {"interrupt_response": False}),
    (vad(idle_timeout_ms=None), {}),
    (vad(type="semantic_vad"), {"turn_detection": TurnDetection(silence_duration_s=0.6)}),
    (
        vad(type="semantic_vad", eagerness="low"),
        {"turn_detection": TurnDetection(silence_duration_s=1.0)},
    ),
    (audio(input={"turn_detection": None}), {"turn_detection": None, "create_response": False}),
    ({"tools": []}, {}),
    ({"tools": None, "tool_choice": "auto", "tracing": "auto", "parallel_tool_calls": True}, {}),
    ({"type": "realtime", "model": "gpt-realtime", "id": "x", "object": "realtime.session"}, {}),
    ({"audio": None}, {}),
    (audio(input=None, output=None), {}),
    (audio(input={"format": {"type": "audio/pcm", "rate": 16_000}}), {}),
    (audio(input={"transcription": {"model": "whisper-1", "language": "en"}}), {}),
    ({"include": ["response.output_audio.words"], "prompt": None, "truncation": "auto"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("patch", "expected"), TAKEN, ids=str)
def test_what_is_taken(patch, expected):
    found = session(**patch).settings()
    before = session().settings()
    assert found == ({k: v for k, v in before.items() if k in found} | expected)


# (patch, the field that is named, what is said)
REFUSED = [
    ({"tools": [{"type": "function", "name": "f"}]}, "session.tools", "calls no tools"),
    ({"tool_choice": "required"}, "session.tool_choice", "calls no tools"),
    ({"type": "transcription"}, "session.type", "create_response false"),
    ({"output_modalities": ["text", "audio"]}, "session.output_modalities", "transcript"),
    ({"output_modalities": "audio"}, "session.output_modalities", "transcript"),
    ({"max_output_tokens": 0}, "session.max_output_tokens", "from 1 to 4096"),
    ({"max_output_tokens": True}, "session.max_output_tokens", "from 1 to 4096"),
    ({"max_output_tokens": 10**400}, "session.max_output_tokens", "from 1 to 4096"),
    ({"instructions": 5}, "session.instructions", "give a text"),
    ({"instructions": "x" * 20_000}, "session.instructions", "16384 are the most"),
    ({"instructions": "\ud800"}, "session.instructions", "half a character"),
    ({"prompt": {"id": "p"}}, "session.prompt", "send instructions"),
    ({"reasoning": {"effort": "low"}}, "session.reasoning", "thoughts"),
    ({"truncation": "disabled"}, "session.truncation", "forgotten"),
    ({"include": ["item.input_audio_transcription.logprobs"]}, "session.include", "words"),
    ({"include": "words"}, "session.include", "a list"),
    ({"include": [{}]}, "session.include", "words"),
    ({"voice": "alloy"}, "session.voice", "session.audio.output.voice now"),
    ({"turn_detection": None}, "session.turn_detection", "session.audio.input.turn_detection now"),
    ({"modalities": ["audio"]}, "session.modalities", "session.output_modalities now"),
    ({"temperature": 0.8}, "session.temperature", "no field"),
    ({"x" * 200: 1}, "session." + "x" * 72, "no field"),
    ({"audio": []}, "session.audio", "an object"),
    (
        audio(input={"format": {"type": "audio/pcmu"}}),
        "session.audio.input.format.type",
        "audio/pcm",
    ),
    (
        audio(input={"format": {"type": "audio/pcma"}}),
        "session.audio.input.format.type",
        "audio/pcm",
    ),
    (audio(input={"format": "pcm16"}), "session.audio.input.format", "an object"),
    (audio(input={"format": {"rate": 4000}}), "session.audio.input.format.rate", "8000 to 48000"),
    (
        audio(input={"noise_reduction": {"type": "near_field"}}),
        "session.audio.input.noise_reduction",
        "",
    ),
    (
        audio(input={"transcription": {"prompt": "names"}}),
        "session.audio.input.transcription.prompt",
        "",
    ),
    (audio(input={"transcription": True}), "session.audio.input.transcription", "an object"),
    (vad(type="none"), "session.audio.input.turn_detection.type", "server_vad"),
    (vad(threshold=2), "session.audio.input.turn_detection.threshold", "0.05 to 0.95"),
    (vad(threshold=float("nan")), "session.audio.input.turn_detection.threshold", "0.05 to 0.95"),
    (vad(threshold="0.5"), "session.audio.input.turn_detection.threshold", "0.05 to 0.95"),
    (vad(silence_duration_ms=10), "session.audio.input.turn_detection.silence_duration_ms", "5000"),
    (vad(idle_timeout_ms=5000), "session.audio.input.turn_detection.idle_timeout_ms", ""),
    (vad(eagerness="wild"), "session.audio.input.turn_detection.eagerness", "low"),
    (vad(create_response="yes"), "session.audio.input.turn_detection.create_response", "true or"),
    (audio(input={"turn_detection": False}), "session.audio.input.turn_detection", "an object"),
    (out(format={"rate": 16_000}), "session.audio.output.format.rate", "24000"),
    (out(format={"type": "audio/pcmu"}), "session.audio.output.format.type", "audio/pcm"),
    (out(voice="bob"), "session.audio.output.voice", "no such voice"),
    (out(voice={"id": "alloy", "x": 1}), "session.audio.output.voice", "no such voice"),
    (out(speed=4), "session.audio.output.speed", "0.5 to 1.25"),
    (out(pace=0.1), "session.audio.output.pace", "0.5 to 1.25"),
    (out(steps=17), "session.audio.output.steps", "1 to 16"),
    (out(steps="many"), "session.audio.output.steps", "1 to 16"),
    (out(seed=-1), "session.audio.output.seed", ""),
    (out(temperature=9), "session.audio.output.temperature", "0 to 1.5"),
    (out(talker="ntp"), "session.audio.output.talker", "?talker=NAME"),
    (out(volume=1), "session.audio.output.volume", "no field"),
]


@pytest.mark.parametrize(("patch", "param", "told"), REFUSED, ids=lambda one: str(one)[:60])
def test_what_is_refused_by_name(patch, param, told):
    talk = Talk()
    before = talk.protocol.session.shown()
    error = talk.error("session.update", session={"instructions": "first", **patch}, event_id="e1")
    assert error["param"] == param and told in error["message"] and error["event_id"] == "e1"
    assert error["type"] == "invalid_request_error"
    assert talk.protocol.session.shown() == before and not talk.calls.of("update")


@pytest.mark.parametrize("given", [None, 5, [], "x"])
def test_a_session_that_is_no_object(given):
    assert Talk().error("session.update", session=given)["param"] == "session"


# what a client changes of turn detection, one after the other -> what it is then; None: off
PARTIAL = [
    ([{"threshold": 0.6}, {"silence_duration_ms": 700}], (0.6, 700)),
    ([{"create_response": False}, {"threshold": 0.6}], (0.6, 500)),
    ([{"type": "server_vad"}], (0.5, 500)),
    ([{}], (0.5, 500)),
    ([None], None),
    ([None, {"threshold": 0.6}], (0.6, 500)),
    ([{"silence_duration_ms": 900}, None, {"type": "server_vad"}], (0.5, 500)),
    ([{"threshold": 0.6}, {"interrupt_response": False}, {"threshold": None}], (0.5, 500)),
    ([{"type": "semantic_vad", "eagerness": "high"}, {"threshold": 0.4}], (0.4, 400)),
]


@pytest.mark.parametrize(("changes", "expected"), PARTIAL, ids=str)
def test_trap_13_a_partial_update_does_not_disable_turn_detection(changes, expected):
    talk = Talk()
    for change in changes:
        (updated,) = talk.say("session.update", session=audio(input={"turn_detection": change}))
        assert updated["type"] == "session.updated"
    found = updated["session"]["audio"]["input"]["turn_detection"]
    settings = talk.calls.last("update")[1]
    if expected is None:
        assert found is None and settings["turn_detection"] is None
        return
    assert (found["threshold"], found["silence_duration_ms"]) == expected
    assert found["type"] == "server_vad"
    vad = settings["turn_detection"]
    assert (vad.threshold, round(1000 * vad.silence_duration_s)) == expected


def test_an_update_of_one_side_leaves_the_other():
    talk = Talk(**vad(threshold=0.7), instructions="be brief")
    talk.say("session.update", session=out(steps=4))
    talk.say("session.update", session=audio(input={"transcription": {"model": "whisper-1"}}))
    talk.say("session.update", session=audio(input={"transcription": {"language": "en"}}))
    found = of(talk.sent, "session.updated")[-1]["session"]
    assert found["audio"]["input"]["turn_detection"]["threshold"] == 0.7
    assert found["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "en"}
    assert found["audio"]["output"]["steps"] == 4 and found["instructions"] == "be brief"
    assert talk.calls.last("update")[1]["instructions"] == "be brief"


def test_what_a_client_is_told_can_be_sent_back():
    talk = Talk(**out(steps=4, pace=0.8), output_modalities=["text"], max_output_tokens=7)
    told = of(talk.sent, "session.updated")[-1]["session"]
    (again,) = talk.say("session.update", session=told)
    assert again["session"] == told
