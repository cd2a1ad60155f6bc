"""Clients that go without a word: what was done for them ends, and their places are free."""

import contextlib
import json
import random
import socket
import struct
import time

import pytest
from plain_http import ask

SPEECH = {"model": "small", "voice": "alloy", "input": "yes it is a red apple. " * 8, "steps": 1}
CHAT = {
    "model": "small", "messages": [{"role": "user", "content": "is a red apple good ?"}],
    "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"},
}  # fmt: skip


def request_of(rng):
    kind = rng.randrange(4)
    path, body = ("/v1/audio/speech", SPEECH) if kind < 2 else ("/v1/chat/completions", CHAT)
    body = dict(body)
    if kind < 2:
        body |= {"response_format": rng.choice(["pcm", "mp3", "wav"]), "stream": rng.random() < 0.8}
    else:
        body["stream"] = kind == 2
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def leave(server, rng):
    """At any moment: in the middle of the request, before the answer, or in it."""
    sent, how = request_of(rng), rng.random()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one:
        one.sendall(sent[: rng.randrange(len(sent))] if how < 0.2 else sent)
        if how > 0.5:
            one.recv(rng.choice((1, 100, 5000)))
        time.sleep(rng.choice((0.0, 0.0, 0.005, 0.05)))
        if rng.random() < 0.5:  # the connection is reset, not closed
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def go_through(running, count):
    rng = random.Random(0)
    with running(max_sessions=3, max_queue=100) as server:
        for _ in range(count):
            with contextlib.suppress(OSError):
                leave(server, rng)
        ends = time.monotonic() + 30
        while server.engine.running or server.engine.waiting:
            assert time.monotonic() < ends, "a place is stuck"
            time.sleep(0.01)
        members = server.engine.assistant.sessions._members
        while any(not one.closed for one in members):
            assert time.monotonic() < ends, "the model works for nobody"
            time.sleep(0.01)
        body = SPEECH | {"input": "yes", "response_format": "pcm"}
        for _ in range(3):
            assert ask(server, "POST", "/v1/audio/speech", body)[0] == 200
        text = ask(server, "GET", "/metrics")[2].decode()
    cancels = next(line for line in text.splitlines() if line.startswith("mdmspeech_cancels_total"))
    assert float(cancels.split()[1]) > count / 10


def test_abrupt_disconnects(running):
    go_through(running, 24)


@pytest.mark.full
def test_200_abrupt_disconnects(running):
    go_through(running, 200)
