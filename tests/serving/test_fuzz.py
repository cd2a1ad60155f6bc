"""Whatever is sent, an answer comes that is no failure of the server, in OpenAI's shape."""

import base64
import contextlib
import copy
import json
import random
import socket
import time

import pytest
from plain_http import ask, error_of, multipart

# `serve` silences them: they show what was sent, here what no terminal can print
pytestmark = pytest.mark.filterwarnings("ignore")

ROUTES = {
    "/v1/audio/speech": {
        "model": "small", "voice": "alloy", "input": "yes", "response_format": "pcm", "speed": 1.0,
        "stream_format": "audio", "steps": 1, "seed": 0, "talker": "mdm", "temperature": 0.0,
        "stream": True, "instructions": "",
    },
    "/v1/chat/completions": {
        "model": "small", "messages": [{"role": "user", "content": [{"type": "text", "text": "is it ?"}]}],
        "modalities": ["text"], "audio": {"voice": "alloy", "format": "wav"}, "max_tokens": 1,
        "stream": False, "stream_options": {"include_usage": True}, "temperature": 0, "tools": [],
        "n": 1, "seed": 0, "steps": 1, "stop": None, "user": "me",
    },
}  # fmt: skip
WRONG = [
    None, True, False, 0, 1, -1, 4, 1.5, 1e308, -1e308, 10**30, -(10**400), "", "a", "\0", "\ud800", "�",
    "\u05d0\u200f\u05d1",
    "🎈" * 50, "x" * 5000, "../../etc/passwd", "%s%n", "'; --", [], [[]], [None] * 300, {}, {"id": "x"},
    {"": 1}, {"type": "text"}, {"data": "AAAA", "format": "wav"}, [{"role": "user"}], [{"type": "input_audio"}],
    [{"role": "assistant", "audio": {"id": []}}], "data:audio/wav;base64,AAAA", "NaN", {"a": {"b": {"c": {}}}},
]  # fmt: skip
PARTS = [b"", b"RIFF", b"\0" * 100, b"ID3" + b"\xff" * 300, b"OggS" + b"\1" * 200, b"fLaC" + bytes(100),
         b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\xff\xff\xff\xff\xff\xff\0\0\0\0\1\0\x10\0data\xff\xff\xff\xff",
         b"\x1aE\xdf\xa3" + bytes(60), b"\xff\xfb\x90\x00" * 100, b"FORM" + bytes(50), b"caff\0\1\0\0"]  # fmt: skip


def wrong(rng, body):
    """The body with something wrong somewhere in it, or several things."""
    body = json.loads(json.dumps(body))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, key = body, None
        while isinstance(place, dict | list) and place:
            inner = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if rng.random() < 0.5 or not isinstance(place[inner], dict | list) or not place[inner]:
                key = inner
                break
            place = place[inner]
        if key is not None:
            place[key] = copy.deepcopy(rng.choice(WRONG))
        if rng.random() < 0.2:
            body[rng.choice(["extra", "", "\ud800", "é" * 99])] = copy.deepcopy(rng.choice(WRONG))
    return body


def told(answer, sent):
    """No failure; and an error in its shape."""
    assert answer[0] < 500 and answer[0] != 0, sent
    if answer[0] >= 400:
        error_of(answer)


def attack(server, seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.randrange(5)
        if kind < 2:
            path = rng.choice(list(ROUTES))
            sent = json.dumps(wrong(rng, ROUTES[path]), ensure_ascii=rng.random() < 0.9)
            sent = sent.encode("utf-8", "surrogatepass")
            told(ask(server, "POST", path, sent), (path, sent[:500]))
        elif kind == 2:  # a body that is cut, or has other bytes in it
            path = rng.choice(list(ROUTES))
            sent = bytearray(json.dumps(ROUTES[path]).encode())
            for _ in range(rng.randrange(1, 5)):
                sent[rng.randrange(len(sent))] = rng.randrange(256)
            sent = bytes(sent[: rng.randrange(len(sent))])
            told(ask(server, "POST", path, sent), (path, sent))
        elif kind == 3:
            fields = {"model": "small"}
            for _ in range(rng.randrange(3)):
                name = rng.choice(
                    ["language", "prompt", "stream", "response_format", "temperature", "é"]
                )
                fields[name] = str(rng.choice(WRONG)).encode("utf-8", "replace").decode()[:3000]
            content = rng.choice(PARTS) + rng.randbytes(rng.randrange(50))
            sent, kind = multipart(fields, content, rng.choice(["file", "file", "fil", "\xe9"]))
            if rng.random() < 0.5:
                sent = bytearray(sent)
                sent[rng.randrange(len(sent))] = rng.randrange(256)
                sent = bytes(sent[: rng.randrange(len(sent))] if rng.random() < 0.5 else sent)
            told(ask(server, "POST", "/v1/audio/transcriptions", sent, Content_Type=kind), sent)
        else:
            data = rng.choice(PARTS) + rng.randbytes(rng.randrange(200))
            form = rng.choice(["wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "pcm16", "x"])
            said = {"data": base64.b64encode(data).decode(), "format": form}
            body = ROUTES["/v1/chat/completions"] | {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": said}]}
                ]
            }
            told(ask(server, "POST", "/v1/chat/completions", body), (form, data))
    assert ask(server, "GET", "/ready")[0] == 200
    assert server.engine.running == server.engine.waiting == 0


def test_whatever_is_sent(server):
    attack(server, 0, 150)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 11))
def test_whatever_is_sent_for_long(server, seed):
    attack(server, seed, 1000)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"A" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 4\r\n\r\nabcd",
        b"GET /health HTTP/1.0\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("pause", [0.0, 0.1], ids=["at once", "body later"])
def test_what_is_no_http(server, sent, pause):
    head, end, body = sent.partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(head + end)
        time.sleep(pause)  # so that a handler reads already
        with contextlib.suppress(OSError):  # it was refused, and the connection closed
            one.sendall(body)
            one.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := one.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    status = int(answer.split(None, 2)[1]) if answer else 400
    assert 400 <= status < 500 or (b"evil" not in sent and status == 200)
    assert ask(server, "GET", "/health")[0] == 200
