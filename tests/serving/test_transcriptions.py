"""`/v1/audio/transcriptions`, asked by OpenAI's own client."""

import io
import json

import numpy as np
import pytest
import soundfile
from plain_http import WRONG, ask, error_of, multipart
from small_session import asked

QUESTION = asked()


def file_of(wave=QUESTION, form="WAV", rate=16_000):
    data = io.BytesIO()
    soundfile.write(data, wave, rate, format=form)
    return data.getvalue()


@pytest.fixture(scope="module")
def heard(assistant):
    return assistant.transcript(QUESTION)


def test_what_is_understood(client, heard):
    made = client.audio.transcriptions.create(model="small", file=("q.wav", file_of()))
    assert made.text == heard and heard
    assert made.usage.type == "duration" and made.usage.seconds == pytest.approx(
        len(QUESTION) / 16_000
    )
    text = client.audio.transcriptions.create(
        model="whisper-1", file=("no name", file_of()), response_format="text", language="en",
        temperature=0, prompt="",
    )  # fmt: skip
    assert text == heard + "\n"


def test_as_events(client, heard):
    made = list(client.audio.transcriptions.create(model="small", file=file_of(), stream=True))
    assert [one.type for one in made] == ["transcript.text.delta", "transcript.text.done"]
    assert "".join(one.delta for one in made[:-1]) == made[-1].text == heard


def test_formats_that_people_send(client, assistant):
    for form in ("FLAC", "OGG", "MP3"):
        made = client.audio.transcriptions.create(
            model="small", file=(f"q.{form}", file_of(form=form))
        )
        assert made.text == assistant.transcript(file_of(form=form))


def test_silence_is_no_error(client):
    """A recording without speech is understood as nothing; one without sound is none."""
    hiss = 1e-3 * np.random.default_rng(0).normal(size=8000)
    assert client.audio.transcriptions.create(model="small", file=file_of(hiss)).text is not None


@pytest.mark.parametrize(
    ("fields", "file", "param", "code"),
    [
        ({}, None, "file", None), ({}, b"", "file", "invalid_audio"), ({}, b"RIFF", "file", "invalid_audio"),
        ({}, b"/etc/passwd", "file", "invalid_audio"), ({}, bytes(5000), "file", "invalid_audio"),
        ({}, file_of(np.zeros(8000)), "file", "invalid_audio"),
        ({}, file_of(QUESTION[:500]), "file", "invalid_audio"),
        ({}, file_of(np.tile(QUESTION, 11)), "file", "invalid_audio"),
        ({"model": None}, file_of(), "model", None),
        ({"language": "de"}, file_of(), "language", "unsupported_parameter"),
        ({"prompt": "names: Bo"}, file_of(), "prompt", "unsupported_parameter"),
        ({"temperature": "0.5"}, file_of(), "temperature", "unsupported_parameter"),
        ({"response_format": "srt"}, file_of(), "response_format", "unsupported_parameter"),
        ({"response_format": "verbose_json"}, file_of(), "response_format",
         "unsupported_parameter"),
        ({"response_format": "xml"}, file_of(), "response_format", WRONG),
        ({"timestamp_granularities[]": "word"}, file_of(), "timestamp_granularities[]",
         "unsupported_parameter"),
        ({"include[]": "logprobs"}, file_of(), "include[]", "unsupported_parameter"),
        ({"stream": "perhaps"}, file_of(), "stream", WRONG),
        ({"diarize": "true"}, file_of(), "diarize", "unknown_parameter"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(server, fields, file, param, code):
    fields = {
        key: value for key, value in ({"model": "small"} | fields).items() if value is not None
    }
    body, kind = multipart(fields, file)
    answer = ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind)
    assert error_of(answer) == (400, "invalid_request_error", param, code)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"), ("multipart/form-data", b"--x\r\n"), ("text/plain", b""),
        ("multipart/form-data; boundary=x", b""), ("multipart/form-data; boundary=x", b"--y--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nab"),
        ("multipart/form-data; boundary=x", b"--x\r\nrubbish\r\n--x--"),
        ("multipart/form-data; boundary=" + "x" * 200, b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x",
         b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\na\r\n--y--\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x",
         b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\xfe\r\n--x--\r\n'),
        ("multipart/form-data; boundary=x",
         b'--x\r\nContent-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64\r\n'
         b"\r\n???\r\n--x--\r\n"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(server, kind, body):
    answer = ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind)
    assert error_of(answer)[:2] == (400, "invalid_request_error")


def test_an_ear_that_writes_nothing_down(server, monkeypatch):
    """An adaptor that makes vectors has no transcript."""
    from mdmspeech.inference.speech_frontend import EncodedSpeech

    frontend = server.engine.assistant.frontend
    monkeypatch.setattr(
        frontend, "encode", lambda wave: EncodedSpeech(np.zeros((1, 4), np.float32), None, 0.0, 0.0)
    )
    body, kind = multipart({"model": "small"}, file_of())
    answer = ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind)
    assert error_of(answer)[0::3] == (400, "unsupported_model")
    assert "chat/completions" in json.loads(answer[2])["error"]["message"]
