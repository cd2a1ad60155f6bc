"""`/v1/audio/speech`, asked by OpenAI's own client: what comes is what `say` says, as it is made."""

import base64
import io
import json
import threading
import time

import numpy as np
import openai
import pytest
import soundfile
from plain_http import WRONG, ask, error_of

from mdmspeech.audio.wave import load_wave, to_int16

TEXT = "Yes it is a red apple. No. And it is very good what is it"
SAID = {"model": "small", "voice": "alloy", "input": TEXT}


@pytest.fixture(scope="module")
def spoken(assistant):
    return said(assistant)


def said(assistant, text=TEXT, talker="mdm", **how):
    """By the same voice's stream, without a server."""
    stream = assistant.voice(talker).stream(**how)
    stream.end(text)
    while not stream.done:
        stream.step()
    return stream.result()


def pcm_of(speech):
    return to_int16(speech.audio).astype("<i2").tobytes()


def assert_close(data, speech):
    """But for the rounding of sums in another order."""
    found, wanted = (np.frombuffer(one, "<i2").astype(int) for one in (data, pcm_of(speech)))
    assert len(found) == len(wanted) and np.abs(found - wanted).max() <= 2


def test_samples_are_those_of_say(client, assistant, spoken):
    """Traps 5 and 7: from the first block to the last partial one, nothing where they meet."""
    assert client.audio.speech.create(**SAID, response_format="pcm").read() == pcm_of(spoken)
    assert_close(pcm_of(spoken), assistant.say(TEXT))


def test_a_streamed_wav_has_one_header(client, spoken):
    """Traps 1, 2 and 3."""
    data = client.audio.speech.create(**SAID, response_format="wav").read()
    assert data[44:] == pcm_of(spoken) and data.count(b"RIFF") == 1
    assert data[4:8] == data[40:44] == b"\xff" * 4
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == spoken.sample_rate and samples.tobytes() == pcm_of(spoken)


@pytest.mark.parametrize("name", ["wav", "mp3", "opus", "flac"])
def test_a_whole_file_says_how_long_it_is(client, spoken, name):
    """Trap 2: with `stream: false`; flac does so by itself."""
    extra = {} if name == "flac" else {"stream": False}
    response = client.audio.speech.create(**SAID, response_format=name, extra_body=extra)
    data, headers = response.read(), response.response.headers
    assert int(headers["Content-Length"]) == len(data)
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == 24_000 and len(samples) == pytest.approx(len(spoken.audio), abs=0.08 * rate)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mp3", "mpeg"), ("opus", "ogg"), ("flac", "flac"), ("wav", "wav"), ("pcm", "pcm")],
)
def test_streams(client, spoken, name, kind):
    """Trap 6: not in one burst; and the parts joined are one recording."""
    with client.audio.speech.with_streaming_response.create(
        **SAID, response_format=name, stream_format="audio"
    ) as response:
        assert response.headers["Content-Type"] == f"audio/{kind}"
        assert response.headers["Transfer-Encoding"] == "chunked"
        parts = list(response.iter_bytes())
    assert len(parts) > 1
    if name != "pcm":
        wave = load_wave(b"".join(parts), 24_000)
        assert len(wave) == pytest.approx(len(spoken.audio), abs=0.08 * 24_000)


def test_the_first_block_comes_before_the_last_is_made(server, spoken):
    """Trap 6: the thread of the model waits, and the client has the beginning."""
    synthesizer, may, blocks = server.engine.assistant.voice(), threading.Event(), []
    advance = synthesizer.engine.advance

    def wait(*given):
        blocks.append(1)
        assert len(blocks) < 3 or may.wait(30)
        return advance(*given)

    synthesizer.engine.advance = wait
    try:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        for name in ("pcm", "mp3", "opus"):
            may.clear(), blocks.clear()
            with client.audio.speech.with_streaming_response.create(
                **SAID, response_format=name
            ) as response:
                parts = response.iter_bytes()
                first = next(parts)
                assert first and not may.is_set()
                may.set()
                rest = b"".join(parts)
            assert name != "pcm" or first + rest == pcm_of(spoken)
    finally:
        may.set()
        del synthesizer.engine.advance


def test_events(client, server, spoken):
    with client.audio.speech.with_streaming_response.create(
        **SAID, response_format="pcm", stream_format="sse"
    ) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in response.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    data = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert data == pcm_of(spoken) and len(events) > 2
    usage = events[-1]["usage"]
    assert events[-1]["type"] == "speech.audio.done"
    assert usage["output_tokens"] == len(spoken.tokens)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_our_own_fields(client, assistant):
    how = {"steps": 2, "seed": 7, "temperature": 0.8}
    for talker, speed in (("mdm", 1.0), ("mdm", 1.2), ("ntp", 1.0)):
        given = {**how, "talker": talker}
        data = client.audio.speech.create(
            **SAID, speed=speed, response_format="pcm", extra_body=given
        ).read()
        assert data == pcm_of(said(assistant, talker=talker, pace=speed, **how))
    assert client.audio.speech.create(**SAID | {"voice": {"id": "default"}}, response_format="pcm")


def test_a_long_text_loses_no_words(client, assistant):
    """Trap 8: all of it is said, and of one character too many nothing."""
    words = "yes it is a red apple and very good. no what is it. and the answer is good. "
    text, how = (words * 60)[:400].strip(), {"steps": 1, "pace": 1.25}
    wanted = said(assistant, text, **how)
    data = client.audio.speech.create(
        **SAID | {"input": text}, speed=1.25, response_format="pcm", extra_body={"steps": 1}
    ).read()
    assert data == pcm_of(wanted)
    assert [word.text for word in wanted.words] == text.lower().replace(".", "").split()
    with pytest.raises(openai.BadRequestError, match="4097 characters, 4096 are the most"):
        client.audio.speech.create(**SAID | {"input": "a" * 4097})


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"input": ""}, "input", None), ({"input": " ... "}, "input", None), ({"input": None}, "input", None),
        ({"input": 5}, "input", WRONG), ({"input": ["a"]}, "input", WRONG),
        ({"input": "\ud800"}, "input", None), ({"input": "Привет"}, None, None),
        ({"voice": None}, "voice", None), ({"voice": "bob"}, "voice", "voice_not_found"),
        ({"voice": {"name": "x"}}, "voice.id", None), ({"voice": 1}, "voice", None),
        ({"voice": {"id": "bob"}}, "voice", "voice_not_found"), ({"voice": []}, "voice", None),
        ({"model": None}, "model", None), ({"model": 3}, "model", WRONG),
        ({"response_format": "aac"}, "response_format", "unsupported_parameter"),
        ({"response_format": "exe"}, "response_format", WRONG),
        ({"response_format": ["mp3"]}, "response_format", WRONG),
        ({"speed": 4.0}, "speed", WRONG), ({"speed": 0}, "speed", WRONG), ({"speed": "1"}, "speed", WRONG),
        ({"speed": True}, "speed", WRONG), ({"speed": 10**400}, "speed", WRONG),
        ({"steps": 0}, "steps", WRONG), ({"steps": 17}, None, None), ({"steps": 65}, "steps", WRONG),
        ({"steps": 1.5}, "steps", WRONG), ({"steps": -(10**30)}, "steps", WRONG),
        ({"seed": -1}, "seed", WRONG), ({"seed": 2**32}, "seed", WRONG),
        ({"temperature": 1.6}, "temperature", WRONG), ({"talker": "mtp"}, "talker", WRONG),
        ({"instructions": "be glad"}, "instructions", "unsupported_parameter"),
        ({"stream_format": "ws"}, "stream_format", WRONG), ({"stream": "yes"}, "stream", WRONG),
        ({"stream": False, "stream_format": "sse"}, "stream", None),
        ({"step": 4}, "step", "unknown_parameter"), ({"lang_code": "a"}, "lang_code", "unknown_parameter"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(server, changes, param, code):
    answer = ask(server, "POST", "/v1/audio/speech", SAID | {"response_format": "pcm"} | changes)
    assert error_of(answer) == (400, "invalid_request_error", param, code)


@pytest.mark.parametrize(
    "changes",
    [{"instructions": ""}, {"speed": 1}, {"steps": 4.0}, {"steps": None}, {"stream_format": None},
     {"model": "tts-1"}, {"model": "gpt-4o-mini-tts"}, {"voice": "Nova"}],
)  # fmt: skip
def test_what_is_harmless_is_taken(server, spoken, changes):
    answer = ask(server, "POST", "/v1/audio/speech", SAID | {"response_format": "pcm"} | changes)
    assert (answer[0], answer[2]) == (200, pcm_of(spoken))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 10**5, b'{"a":' * 40 + b"1" + b"}" * 40,
             b'{"speed": NaN}', b'{"speed": 1e999}', b'{"steps": ' + b"9" * 5000 + b"}",
             b"model=small&input=yes"],
)  # fmt: skip
def test_bodies_that_are_none(server, body):
    answer = ask(server, "POST", "/v1/audio/speech", body)
    assert error_of(answer)[:2] == (400, "invalid_request_error")


def test_another_model_is_not_here(client):
    with pytest.raises(openai.NotFoundError, match="'llama' is not here; this server has 'small'"):
        client.audio.speech.create(**SAID | {"model": "llama"})


def test_what_fails_in_the_middle_is_not_taken_for_the_end(server):
    """Trap 8: a client that has half of the speech is not told that it has all."""
    synthesizer, blocks = server.engine.assistant.voice(), []
    advance = synthesizer.engine.advance

    def fails(*given):
        blocks.append(1)
        if len(blocks) == 3:
            raise RuntimeError("the device is lost")
        return advance(*given)

    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    synthesizer.engine.advance = fails
    try:
        with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
            client.audio.speech.create(**SAID, response_format="pcm").read()
        blocks.clear()
        status, _, data = ask(
            server, "POST", "/v1/audio/speech",
            SAID | {"response_format": "pcm", "stream_format": "sse"},
        )  # fmt: skip
    finally:
        del synthesizer.engine.advance
    last = json.loads(data.decode().strip().splitlines()[-1].removeprefix("data: "))
    assert status == 200 and last["error"]["code"] == "server_error"
    assert "device" not in last["error"]["message"]  # nor anything else of the inside
    assert client.audio.speech.create(**SAID, response_format="pcm").read()


def test_parallel_requests_and_one_that_goes(server, client, spoken):
    """Trap 4."""
    found = {}

    def say(number):
        found[number] = client.audio.speech.create(**SAID, response_format="pcm").read()

    def leave():
        with client.audio.speech.with_streaming_response.create(
            **SAID, response_format="pcm"
        ) as one:
            next(one.iter_bytes())

    threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
    threads.insert(2, threading.Thread(target=leave))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 4
    for data in found.values():
        assert_close(data, spoken)
    assert free(server)


def free(server, seconds=10.0):
    """Whether all places become free."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if server.engine.running == server.engine.waiting == 0:
            return True
        time.sleep(0.01)
    return False


def test_too_many_at_once(running, assistant):
    """429 with a time to wait, at once; those that are served are not disturbed."""
    synthesizer, may = assistant.voice(), threading.Event()
    advance = synthesizer.engine.advance
    synthesizer.engine.advance = lambda *given: (may.wait(30), advance(*given))[1]
    try:
        with running(max_sessions=1, max_queue=1) as small:
            found = []
            body = SAID | {"response_format": "pcm"}
            threads = [
                threading.Thread(
                    target=lambda: found.append(ask(small, "POST", "/v1/audio/speech", body))
                )
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            while not (small.engine.running == 1 and small.engine.waiting == 1):
                time.sleep(0.01)
            began = time.monotonic()
            answer = ask(small, "POST", "/v1/audio/speech", body)
            assert (
                error_of(answer)[0::3] == (429, "rate_limit_exceeded") and answer[1]["Retry-After"]
            )
            assert time.monotonic() - began < 5
            metrics = ask(small, "GET", "/metrics")[2].decode()
            assert "mdmspeech_num_requests_running 1.0" in metrics
            assert "mdmspeech_num_requests_waiting 1.0" in metrics
            may.set()
            for thread in threads:
                thread.join(60)
            assert [answer[0] for answer in found] == [200, 200]
    finally:
        may.set()
        del synthesizer.engine.advance


def test_metrics(running, spoken):
    with running() as fresh:
        ask(fresh, "POST", "/v1/audio/speech", SAID)
        status, headers, text = ask(fresh, "GET", "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if line[0] != "#")
    seconds = len(spoken.audio) / spoken.sample_rate
    assert float(lines["mdmspeech_audio_duration_s_sum"]) == pytest.approx(seconds, abs=1e-3)
    for name in (
        'requests_success_total{finished_reason="completed"}', "e2e_request_latency_s_count",
        "audio_ttfp_s_count", "audio_rtf_count", "audio_underrun_s_count",
        'audio_continuity_ok_total{threshold_ms="500"}',
    ):  # fmt: skip
        assert float(lines[f"mdmspeech_{name}"]) == 1, name
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "sessions_active",
        "cancels_total",
    ):
        assert float(lines[f"mdmspeech_{name}"]) == 0, name
