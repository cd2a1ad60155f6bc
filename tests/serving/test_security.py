"""Who may ask: keys, names and pages, sizes and rates; on every address there is."""

import asyncio
import base64
import json
import os
import re

import pytest
from plain_http import ask, error_of, multipart

from mdmspeech.serving import page, security
from mdmspeech.serving.request_error import RequestError
from mdmspeech.serving.security import RateLimiter, host_name

KEYS = ("a-key-of-some-length", "another-key-of-it")
PAGE = "https://talk.example"


@pytest.fixture(scope="module")
def locked(running):
    with running(
        api_keys=KEYS, allow_origins=(PAGE,), allow_hosts=("my-box",), max_body=2**16
    ) as one:
        yield one


@pytest.fixture(scope="module")
def addresses(locked):
    """(method, path) of every route but the files of the page, which hold no secret."""
    app = locked.app
    found = {
        (route.method, route.resource.canonical.replace("{model}", "small"))
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource.canonical not in page.PATHS
    }
    assert len(found) >= 10
    return sorted(found)


def test_every_address_asks_for_a_key(locked, addresses):
    """Trap 9, of HTTP: before anything else is looked at."""
    for method, path in addresses:
        status, kind, _, code = error_of(ask(locked, method, path, b"{" * (method == "POST")))
        assert (status, kind, code) == (401, "invalid_request_error", "missing_api_key"), path
        for wrong in (
            "Bearer wrong", f"Bearer {KEYS[0]}x", f"Bearer {KEYS[0][:-1]}", f"Basic {KEYS[0]}",
            KEYS[0], "Bearer", "Bearer ", f"Bearer {KEYS[0]} {KEYS[0]}", "Bearer \xe9", "Bearer a,b",
        ):  # fmt: skip
            answer = ask(locked, method, path, Authorization=wrong)
            assert answer[0] == 401 and answer[1]["WWW-Authenticate"] == "Bearer", (path, wrong)
    # of the page only the files, only to read
    assert ask(locked, "POST", "/")[0] == ask(locked, "GET", "/static/main.js")[0] == 401
    for key in KEYS:
        assert ask(locked, "GET", "/health", Authorization=f"Bearer {key}")[0] == 200
        assert ask(locked, "GET", "/health", Authorization=f"bearer {key}")[0] == 200


def test_an_upgrade_is_refused_before_the_101(locked, addresses):
    """Trap 9: a WebSocket, with the key in a header or in a subprotocol as OpenAI's clients have it."""
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": base64.b64encode(bytes(16)).decode(),
    }  # fmt: skip
    for path in {"/v1/realtime", *(path for _, path in addresses)}:
        for offered in (None, "realtime", "realtime, openai-insecure-api-key.wrong",
                        "openai-insecure-api-key.", f"openai-insecure-api-key.{KEYS[0]}x"):  # fmt: skip
            extra = {} if offered is None else {"Sec_WebSocket_Protocol": offered}
            assert ask(locked, "GET", path, **upgrade, **extra)[0] == 401, (path, offered)
    good = {"Sec_WebSocket_Protocol": f"realtime, openai-insecure-api-key.{KEYS[1]}"}
    assert ask(locked, "GET", "/health", **upgrade, **good)[0] == 200
    assert ask(locked, "GET", "/health", **good)[0] == 401  # of an upgrade only


def test_keys_are_compared_in_constant_time(monkeypatch, locked):
    compared, compare = [], security.hmac.compare_digest
    monkeypatch.setattr(
        security.hmac, "compare_digest", lambda *both: (compared.append(both), compare(*both))[1]
    )
    ask(locked, "GET", "/health", Authorization="Bearer wrong")
    assert compared == [(b"wrong", key.encode()) for key in KEYS]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200), (PAGE, 200), ("http://127.0.0.1:{port}", 200), ("http://localhost:{port}", 403),
        ("null", 403), ("", 403), ("https://talk.example.evil", 403), ("http://talk.example", 403),
        ("https://talk.example:444", 403), ("https://evil.example", 403), ("http://127.0.0.1", 403),
        ("https://127.0.0.1:{port}", 403), ("file://", 403), ("*", 403),
        ([PAGE, "https://evil.example"], 403),
    ],
)  # fmt: skip
def test_pages(locked, origin, status):
    """Trap 10: a page that somebody visits may not ask, but those that are allowed."""
    given = {} if origin is None else {"Origin": origin}
    if isinstance(origin, str):
        given["Origin"] = origin.format(port=locked.port)
    answer = ask(locked, "GET", "/v1/models", Authorization=f"Bearer {KEYS[0]}", **given)
    assert answer[0] == status
    allowed = answer[1]["Access-Control-Allow-Origin"]
    assert allowed == (PAGE if origin == PAGE else None)
    assert status == 200 or error_of(answer)[3] == "origin_not_allowed"


def test_what_a_page_asks_before_it_asks(locked):
    """A preflight carries no key."""
    asks = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization",
    }
    status, headers, _ = ask(locked, "OPTIONS", "/v1/audio/speech", Origin=PAGE, **asks)
    assert status == 204 and headers["Access-Control-Allow-Origin"] == PAGE
    assert "authorization" in headers["Access-Control-Allow-Headers"]
    # OpenAI's JavaScript client adds some of its own
    for wanted, allowed in (
        ("authorization, x-stainless-os", "authorization, x-stainless-os"),
        ("", "authorization, content-type"),
        ("a\x00b", "authorization, content-type"),
        ("x" * 2000, "authorization, content-type"),
    ):
        given = asks | {"Access_Control_Request_Headers": wanted}
        status, headers, _ = ask(locked, "OPTIONS", "/v1/audio/speech", Origin=PAGE, **given)
        assert (
            status in (204, 400) and headers.get("Access-Control-Allow-Headers", allowed) == allowed
        )
    for origin in ("https://evil.example", "null"):
        answer = ask(locked, "OPTIONS", "/v1/audio/speech", Origin=origin, **asks)
        assert answer[0] == 403 and "Access-Control-Allow-Origin" not in answer[1]
    assert ask(locked, "OPTIONS", "/v1/audio/speech", Origin=PAGE)[0] == 401
    # and the error of a page that may ask can be read by it
    assert ask(locked, "GET", "/health", Origin=PAGE)[1]["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200), ("localhost:{port}", 200), ("LOCALHOST", 200), ("[::1]:80", 200),
        ("my-box", 200), ("MY-BOX.:99", 200), ("talk.example", 200), ("127.0.0.1", 200),
        ("evil.example:{port}", 403), ("localhost.evil.example", 403), ("my-box.evil.example", 403),
        ("192.168.1.7", 403), ("0.0.0.0", 403), ("", 400), ("a b", 400), ("user@localhost", 400),
        ("localhost:port", 400), ("localhost/", 400), (["localhost", "localhost"], 400),
    ],
)  # fmt: skip
def test_names_of_the_server(locked, host, status):
    """Trap 10, second half: a page whose own name points here (DNS rebinding) has Origin == Host."""
    given = host.format(port=locked.port) if isinstance(host, str) else host
    answer = ask(locked, "GET", "/health", Host=given, Authorization=f"Bearer {KEYS[0]}")
    assert answer[0] == status
    if status == 403:
        rebound = {"Host": given, "Origin": f"http://{given}", "Authorization": f"Bearer {KEYS[0]}"}
        assert error_of(ask(locked, "GET", "/health", **rebound))[3] == "host_not_allowed"


def test_names_where_other_machines_may_ask(running):
    """An address is nobody's name; names are given with --allow-host."""
    with running(host="0.0.0.0", api_keys=KEYS) as open_:
        for host, status in (("192.168.1.7:80", 200), ("[fe80::1]", 200), ("talk.example", 403)):
            assert (
                ask(open_, "GET", "/health", Host=host, Authorization=f"Bearer {KEYS[0]}")[0]
                == status
            )
    with running(allow_hosts=("*",), allow_origins=("*",)) as all_:
        answer = ask(all_, "GET", "/health", Host="any.example", Origin="null")
        assert answer[0] == 200 and answer[1]["Access-Control-Allow-Origin"] == "null"


def test_host_names():
    for given, name in (
        ("localhost", "localhost"), ("A.b:1", "a.b"), ("[::1]:8000", "[::1]"), ("x.:80", "x"),
        ("::1", None), ("[::1", None), ("a:b", None), ("a:123456", None), ("a\tb", None), ("é", None),
    ):  # fmt: skip
        assert host_name(given) == name


def test_headers_of_every_answer(locked):
    for answer in (
        ask(locked, "GET", "/health"),
        ask(locked, "GET", "/health", Authorization=f"Bearer {KEYS[0]}"),
        ask(locked, "GET", "/nowhere", Authorization=f"Bearer {KEYS[0]}"),
        ask(locked, "PUT", "/health", Authorization=f"Bearer {KEYS[0]}"),
    ):
        headers = answer[1]
        assert headers["Server"] == "mdmspeech" and headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (
            headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
        )


def test_sizes(locked):
    key = {"Authorization": f"Bearer {KEYS[0]}"}
    large = {"model": "small", "voice": "alloy", "input": "a" * 2**17}
    answer = error_of(ask(locked, "POST", "/v1/audio/speech", large, **key))
    assert answer == (413, "invalid_request_error", None, "request_too_large")
    for fields, file in (({}, bytes(2**17)), ({"prompt": "a" * 20_000}, b"RIFF")):
        body, kind = multipart(fields, file)
        answer = error_of(
            ask(locked, "POST", "/v1/audio/transcriptions", body, Content_Type=kind, **key)
        )
        assert answer[0] == 413 and answer[3] == "request_too_large"
    # a body that says it is small, zipped
    import zlib

    zipped = zlib.compress(json.dumps(large).encode())
    assert len(zipped) < 1000
    answer = ask(locked, "POST", "/v1/audio/speech", zipped, Content_Encoding="deflate", **key)
    assert answer[0] in (400, 413)


def test_how_often():
    now = [0.0]
    limiter = RateLimiter(6, clock=lambda: now[0])
    for _ in range(6):
        limiter.check("one")
    for seconds, wait in ((0.0, "10"), (4.0, "6"), (5.9, "1")):
        now[0] = seconds
        with pytest.raises(RequestError, match="more than 6 requests a minute") as told:
            limiter.check("one")
        assert (
            told.value.status == 429 and told.value.headers["Retry-After"] == wait
        ) or seconds > 4
    limiter.check("other")
    now[0] = 20.1
    limiter.check("one")
    limiter.check("one")
    with pytest.raises(RequestError):
        limiter.check("one")
    RateLimiter(None).check("one")


def test_clients_that_are_counted_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(security, "_CLIENTS", 10)
    limiter = RateLimiter(1, clock=lambda: 0.0)
    for number in range(100):
        limiter.check(str(number))
    assert len(limiter._left) == 10


def test_too_many_requests(running):
    with running(rate_limit=3, api_keys=KEYS) as limited:
        get = lambda key: ask(limited, "GET", "/health", Authorization=f"Bearer {key}")
        assert [get(KEYS[0])[0] for _ in range(4)] == [200, 200, 200, 429]
        answer = get(KEYS[0])
        assert error_of(answer)[1::2] == ("rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(answer[1]["Retry-After"]) <= 20
        assert get(KEYS[1])[0] == 200  # counted by key
        # keys that are tried, by address
        assert [get(f"wrong-{number}")[0] for number in range(4)] == [401, 401, 401, 429]


def test_a_key_that_is_none_is_no_other_client(running):
    """Where no key is wanted, and of the page's files: counted by address, whatever is sent."""
    for keys, path in (((), "/health"), (KEYS, "/")):
        with running(rate_limit=3, api_keys=keys) as limited:
            made_up = [f"made-up-{number}" for number in range(4)]
            got = [ask(limited, "GET", path, Authorization=f"Bearer {key}")[0] for key in made_up]
            assert got == [200, 200, 200, 429]


def test_nothing_said_is_written_down(server, running, caplog, capfd, monkeypatch):
    """Neither text nor transcript, not even of what fails; with --log-text, both."""
    secret = "very good red apple"

    def fails(**_):
        raise RuntimeError(f"cannot say {secret}")

    body = {"model": "small", "voice": "alloy", "input": secret, "response_format": "pcm"}
    chat = {"model": "small", "messages": [{"role": "user", "content": secret}]}
    with caplog.at_level("DEBUG"):
        for path, sent in (("/v1/audio/speech", body), ("/v1/chat/completions", chat),
                           ("/v1/audio/speech", body | {"voice": secret})):  # fmt: skip
            answer = ask(server, "POST", path, sent)
            assert answer[0] in (200, 404, 400)
        monkeypatch.setattr(server.engine.assistant.voice(), "stream", fails)
        assert ask(server, "POST", "/v1/audio/speech", body)[0] == 500
    assert "RuntimeError" in caplog.text and "/v1/audio/speech 500" in caplog.text
    written = caplog.text + "".join(capfd.readouterr())
    assert not re.search("apple|red", written)
    monkeypatch.undo()
    with running(log_text=True) as open_, caplog.at_level("INFO"):
        ask(open_, "POST", "/v1/audio/speech", body)
        answer = json.loads(ask(open_, "POST", "/v1/chat/completions", chat)[2])
    assert f"speech: '{secret}'" in caplog.text and f"question: '{secret}'" in caplog.text
    assert answer["choices"][0]["message"]["content"] in caplog.text


def test_no_path_of_a_request_is_opened(server, monkeypatch):
    """Names of files, voices and models are words, never places."""
    opened, before = [], os.open

    def see(path, *rest, **more):
        opened.append(str(path))
        return before(path, *rest, **more)

    import builtins

    real = builtins.open
    monkeypatch.setattr(os, "open", see)
    monkeypatch.setattr(
        builtins, "open", lambda path, *a, **k: (opened.append(str(path)), real(path, *a, **k))[1]
    )
    for name in ("/etc/passwd", "../../etc/passwd", "~/x", "file:///etc/passwd", "a\0b"):
        body, kind = multipart({"model": "small"}, b"/etc/passwd", filename=name.replace("\0", ""))
        assert ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind)[0] == 400
        said = {"model": "small", "input": "yes", "voice": name}
        assert ask(server, "POST", "/v1/audio/speech", said)[0] == 400
        assert ask(server, "POST", "/v1/audio/speech", said | {"model": name})[0] == 404
        data = {"data": base64.b64encode(name.encode()).decode(), "format": "wav"}
        part = {"type": "input_audio", "input_audio": data}
        asked = {"model": "small", "messages": [{"role": "user", "content": [part]}]}
        assert ask(server, "POST", "/v1/chat/completions", asked)[0] == 400
    for path in ("/v1/models/..%2f..%2fetc%2fpasswd", "/v1/models/%2e%2e", "/../etc/passwd"):
        assert ask(server, "GET", path)[0] == 404
    assert not [path for path in opened if "passwd" in path]


def test_probes_and_lists(server):
    assert json.loads(ask(server, "GET", "/health")[2]) == {"status": "ok"}
    assert json.loads(ask(server, "GET", "/ready")[2]) == {"status": "ready"}
    for path, key in (("/v1/audio/voices", "voices"), ("/v1/audio/models", "models")):
        listed = json.loads(ask(server, "GET", path)[2])
        assert [set(one) for one in listed[key]] == [{"id", "name"}] and listed["data"] == listed[
            key
        ]
    assert error_of(ask(server, "GET", "/nowhere"))[::3] == (404, "unknown_url")
    answer = ask(server, "DELETE", "/v1/models/small")
    assert error_of(answer)[::3] == (405, "method_not_allowed") and "GET" in answer[1]["Allow"]


def test_ready_after_the_warm_up_only(running, assistant):
    from mdmspeech.serving.engine import Engine
    from mdmspeech.serving.run import Server
    from mdmspeech.serving.settings import Settings

    async def main():
        server = Server(Engine(assistant), Settings(port=0, model_id="small", drain_s=0.0))
        said = {"model": "small", "input": "yes", "voice": "alloy"}
        async with server:
            get = lambda *given: asyncio.to_thread(ask, server, *given)
            assert (await get("GET", "/health"))[0] == 200
            assert (await get("GET", "/ready"))[0] == 503
            answer = await get("POST", "/v1/audio/speech", said)
            assert error_of(answer)[::3] == (503, "not_ready") and answer[1]["Retry-After"]
            server.engine._warm = True
            assert (await get("GET", "/ready"))[0] == 200
            await server.engine.drain(0.0)
            status, _, body = await get("GET", "/ready")
            assert (status, json.loads(body)) == (503, {"status": "stopping"})

    asyncio.run(main())
