"""The life of a server: `mdmspeech serve` from its flags to SIGTERM."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import small_session
from plain_http import ask, error_of

import mdmspeech
from mdmspeech.cli import main
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.serving.engine import Engine
from mdmspeech.serving.run import Server
from mdmspeech.serving.settings import Settings

SPEECH = {
    "model": "compact",
    "voice": "alloy",
    "input": "yes it is. " * 6,
    "response_format": "pcm",
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@pytest.fixture
def unloaded(monkeypatch):
    """Opening a model is a failure."""
    monkeypatch.setattr(mdmspeech, "load", lambda *a, **k: pytest.fail("a model was opened"))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--host", "0.0.0.0"], "give --api-key"),
        (["--host", "0.0.0.0", "--api-key", "short"], "8 characters or more"),
        (
            ["--host", "no.such.host.example", "--api-key", "a-key-of-some-length"],
            "cannot listen on",
        ),
        (["--port", "70000"], "port=70000"),
        (["--max-sessions", "0"], "max_sessions=0"),
        (["--max-queue", "-1"], "max_queue=-1"),
        (["--ssl-certfile", "no.pem"], "both --ssl-certfile and --ssl-keyfile"),
        (["--ssl-certfile", "no.pem", "--ssl-keyfile", "no.key"], "no certificate and its key"),
        (["--api-key-file", "no.txt"], "file of keys no.txt cannot be read"),
        (["--allow-origin", "talk.example"], "allowed origin 'talk.example'"),
        (["--rate-limit", "0"], "rate_limit=0"),
        (["--drain", "nan"], "drain_s=nan"),
        (["--max-audio", "0"], "max_audio_s=0"),
    ],
)
def test_what_cannot_be_is_one_line(flags, told, unloaded, capsys, monkeypatch):
    monkeypatch.delenv("MDMSPEECH_API_KEY", raising=False)
    assert main(["serve", *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mdmspeech serve: ") and told in said and said.count("\n") == 1


def test_a_port_that_is_taken(unloaded, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "give another --host or --port" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["aiohttp", "prometheus_client"])
def test_without_the_extra(package, unloaded, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", "--port", "0"]) == 2
    assert 'pip install "mdmspeech[serve]"' in capsys.readouterr().err


def waits(condition, seconds=30.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_from_the_command_to_its_end(assistant, monkeypatch, capsys):
    """SIGTERM: nobody gets in, what is being said is said to its end; one line when it is ready."""
    monkeypatch.setattr(mdmspeech, "load", lambda *a, **k: assistant)
    warm_up, seen = Engine.warm_up, SimpleNamespace(all=None, found=[])

    async def quickly(self, config, *, all):
        seen.all = all
        await warm_up(self, SessionConfig(**small_session.SETTINGS))

    monkeypatch.setattr(Engine, "warm_up", quickly)
    engine, may = assistant.voice().engine, threading.Event()
    advance = engine.advance
    monkeypatch.setattr(engine, "advance", lambda *given: (may.wait(30), advance(*given))[1])
    server = SimpleNamespace(port=free_port())

    def client():
        with contextlib.suppress(OSError):
            while not get("/ready"):
                time.sleep(0.02)
        asks = threading.Thread(
            target=lambda: seen.found.append(ask(server, "POST", "/v1/audio/speech", SPEECH))
        )
        asks.start()
        waits(lambda: b"num_requests_running 1.0" in ask(server, "GET", "/metrics")[2])
        os.kill(os.getpid(), signal.SIGTERM)
        waits(lambda: not get("/ready"))
        seen.refused = ask(server, "POST", "/v1/audio/speech", SPEECH)
        may.set()
        asks.join(60)

    def get(path):
        try:
            return ask(server, "GET", path)[0] == 200
        except ConnectionError:
            time.sleep(0.02)
            return False

    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    try:
        assert main(["serve", "--port", str(server.port), "--warm-up", "usual", "--quiet"]) == 0
    finally:
        may.set()
        thread.join(60)
    assert capsys.readouterr().out == f"compact is ready at http://127.0.0.1:{server.port}\n"
    ((status, _, said),) = seen.found
    assert status == 200 and len(said) > 24_000 and seen.all is False
    assert error_of(seen.refused)[0::3] == (503, "not_ready")
    with pytest.raises(ConnectionError):
        ask(server, "GET", "/health")


def test_it_can_be_stopped_while_it_compiles(assistant, monkeypatch, capsys):
    """Which cannot be interrupted, and takes minutes."""
    monkeypatch.setattr(mdmspeech, "load", lambda *a, **k: assistant)
    compiling, ended = threading.Event(), []

    async def slowly(self, config, *, all):
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
        async for _ in self._start(lambda: iter([compiling.wait(60)])):
            pass

    monkeypatch.setattr(Engine, "warm_up", slowly)
    monkeypatch.setattr(os, "_exit", ended.append)
    try:
        assert main(["serve", "--port", "0", "--quiet"]) == 0
    finally:
        compiling.set()
    assert ended == [0] and capsys.readouterr().out == ""


def test_the_end_waits_only_so_long(assistant):
    """And a second signal does not wait at all."""

    async def main(drain_s, hurry):
        engine = Engine(assistant)
        engine._warm = True
        server = Server(engine, Settings(port=0, model_id="compact", drain_s=drain_s))
        async with server:
            hang = threading.Event()
            hanging = asyncio.create_task(use(engine, hang))
            await asyncio.sleep(0.05)
            if hurry:
                asyncio.get_running_loop().call_later(0.2, server.hurry.set)
            began = time.monotonic()
        spent = time.monotonic() - began
        hanging.cancel()
        hang.set()
        return spent

    async def use(engine, hang):
        async with engine.run(lambda: iter([hang.wait(20)])) as job:
            async for _ in job:
                pass

    assert 0.1 < asyncio.run(main(0.3, False)) < 10
    assert 0.1 < asyncio.run(main(60.0, True)) < 10


def test_tls(running, tmp_path):
    import ssl
    import subprocess
    import urllib.request

    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", cert, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    with running(ssl_certfile=cert, ssl_keyfile=key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusts = ssl.create_default_context(cafile=cert)
        with urllib.request.urlopen(f"{server.url}/health", context=trusts) as answer:
            assert answer.status == 200


@pytest.mark.full
def test_the_shipped_model_is_served(tmp_path):
    """As a user starts it, in a process of its own."""
    import json
    import subprocess
    from importlib import resources

    from plain_http import multipart

    server = SimpleNamespace(port=free_port())
    command = [
        sys.executable,
        "-m",
        "mdmspeech",
        "serve",
        "--port",
        str(server.port),
        "--warm-up",
        "usual",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert (
                process.stdout.readline() == f"compact is ready at http://127.0.0.1:{server.port}\n"
            )
            recording = (resources.files("mdmspeech") / "assets" / "question.wav").read_bytes()
            body, kind = multipart({"model": "compact"}, recording)
            heard = ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind)
            assert "capital" in json.loads(heard[2])["text"].lower()
            asked = [{"role": "user", "content": "What is the capital of France?"}]
            chat = {"model": "compact", "messages": asked}
            answer = json.loads(ask(server, "POST", "/v1/chat/completions", chat)[2])
            assert "Paris" in answer["choices"][0]["message"]["content"]
            spoken = ask(server, "POST", "/v1/audio/speech", SPEECH | {"input": "Hello there."})
            assert len(spoken[2]) > 24_000
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
        assert "capital" not in process.stderr.read()
