"""The socket: who gets in, what is answered to what is no event, how it closes, and that nothing is
left behind.
"""

import asyncio
import contextlib
import json
import random
import time
from socket import SHUT_RDWR
from types import SimpleNamespace

import pytest
import small_session
from aiohttp import WSMsgType

from mdmspeech.inference.session_events import ResponseAudio, ResponseStarted
from mdmspeech.serving.realtime import websocket
from mdmspeech.serving.realtime.websocket import MOST_BYTES, Connection

websockets = pytest.importorskip("websockets", reason="pip install 'mdmspeech[dev]'")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402


class Socket:
    """A client without a library for the protocol: `say`, `hear`."""

    def __init__(self, server, query="", **options):
        self.raw = connect(
            f"ws://127.0.0.1:{server.port}/v1/realtime{query}",
            max_size=None,
            compression=None,
            **options,
        )

    def __enter__(self):
        self.first = self.hear()
        return self

    def __exit__(self, *_):
        self.raw.close()

    def say(self, kind, **fields):
        self.raw.send(json.dumps({"type": kind, **fields}))

    def hear(self, kind=None):
        while True:
            event = json.loads(self.raw.recv(timeout=60))
            if kind in (None, event["type"]):
                return event

    def closed(self):
        """(code, reason) after whatever still comes."""
        try:
            while True:
                self.raw.recv(timeout=60)
        except ConnectionClosed as error:
            return error.rcvd.code, error.rcvd.reason

    def alive(self):
        """Whether it answers as ever."""
        self.say("session.update", session={"instructions": "be brief"})
        return self.hear("session.updated")["session"]["instructions"] == "be brief"

    def ask(self, text="what is it ?"):
        content = [{"type": "input_text", "text": text}]
        self.say(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content}
        )
        # other numbers of steps are programs of their own to compile
        self.say("response.create", response={"audio": {"output": {"steps": 2}}})


def settle(server, sessions=0, within=60.0):
    """Waits until so many sessions are open."""
    until = time.monotonic() + within
    while server.engine.sessions != sessions and time.monotonic() < until:
        time.sleep(0.02)
    assert server.engine.sessions == sessions and server.engine.running == sessions


# ---- Who gets in ----------------------------------------------------------------------------------


def test_the_subprotocol_is_chosen_if_it_is_offered(server):
    offered = ["realtime", "openai-insecure-api-key.none", "openai-beta.realtime-v1"]
    with Socket(server, subprotocols=offered) as socket:
        assert socket.raw.subprotocol == "realtime"
    with Socket(server) as socket:
        assert socket.raw.subprotocol is None
        assert socket.first["type"] == "session.created"
        assert socket.first["session"]["model"] == "small" and socket.alive()
        assert socket.first["session"]["expires_at"] == pytest.approx(time.time() + 3600, abs=30)


# (address, status, code)
NOT_IN = [
    ("?model=another", 404, "model_not_found"),
    ("?intent=transcription", 400, "unsupported_parameter"),
    ("?call_id=1", 400, "unsupported_parameter"),
    ("?talker=bob", 400, None),
]


@pytest.mark.parametrize(("query", "status", "code"), NOT_IN)
def test_trap_18_who_is_not_let_in_is_told_why(server, query, status, code):
    """And not that there are too many."""
    with pytest.raises(InvalidStatus) as error:
        Socket(server, query)
    assert error.value.response.status_code == status
    assert json.loads(error.value.response.body)["error"]["code"] == code
    settle(server)


def test_subprotocols_without_ours(server, caplog):
    """A browser would close a socket that chooses none; and the log would hold the key."""
    with pytest.raises(InvalidStatus) as error:
        Socket(server, subprotocols=["openai-insecure-api-key.very-secret"])
    assert error.value.response.status_code == 400
    assert "realtime" in json.loads(error.value.response.body)["error"]["message"]
    assert "very-secret" not in caplog.text
    settle(server)


class Deaf:
    """A socket whose client neither reads nor says goodbye, and what it is written to."""

    aborted = False

    async def close(self, **_):
        await asyncio.sleep(3600)

    def abort(self):
        self.aborted = True


def test_who_does_not_say_goodbye_is_cut_off(monkeypatch):
    monkeypatch.setattr(websocket, "_LAST_S", 0.05)
    deaf = Deaf()
    asyncio.run(asyncio.wait_for(websocket.hang_up(deaf, deaf, 1012, "x" * 500), 10))
    assert deaf.aborted


def test_a_question_typed_over_an_answer_is_answered(server):
    with Socket(server) as socket:
        socket.ask("is a red apple good ?")
        running = socket.hear("response.output_audio.delta")["response_id"]
        socket.say("response.cancel", response_id=running)
        socket.ask()
        first, second = (socket.hear("response.done")["response"] for _ in range(2))
        assert first["id"] == running  # cancelled, or over in the meantime
        assert (second["id"] != running, second["status"]) == (True, "completed")


def test_the_address_without_an_upgrade(server):
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{server.url}/v1/realtime")
    assert error.value.code == 426 and "wss://" in error.value.read().decode()


def test_another_talker(server):
    with Socket(server, "?model=gpt-realtime&talker=ntp") as socket:
        assert socket.first["session"]["audio"]["output"]["talker"] == "ntp"


def test_when_it_is_full_the_rest_is_told_so_and_those_inside_go_on(running):
    with running(max_sessions=2) as server, Socket(server) as one, Socket(server) as two:
        one.ask()
        for _ in range(3):
            late = Socket(server)
            assert late.hear("error")["error"]["code"] == "server_busy"
            code, reason = late.closed()
            assert code == 1013 and "2 conversations" in reason
        assert one.hear("response.done")["response"]["status"] == "completed" and two.alive()
        two.raw.close()
        settle(server, 1)
        with Socket(server) as again:
            assert again.alive()


# ---- How it closes --------------------------------------------------------------------------------


def test_the_server_that_stops_says_so(running):
    with running() as server:
        socket = Socket(server)
        socket.hear("session.created")
        began = time.monotonic()
    assert socket.closed() == (1012, "shutting down") and time.monotonic() - began < 10


def test_a_session_that_is_as_long_as_it_may_be(running):
    with running(max_session_s=1.0) as server, Socket(server) as socket:
        assert socket.hear("error")["error"]["code"] == "session_expired"
        assert socket.closed()[0] == 1001
        settle(server)


def test_a_session_in_which_nothing_is_said(running):
    with running(idle_s=1.0) as server, Socket(server) as socket:
        began = time.monotonic()
        for _ in range(3):
            time.sleep(0.4)
            assert socket.alive()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(6):  # silence is nothing
                socket.say("input_audio_buffer.append", audio="AAAA" * 100)
                time.sleep(0.2)
        assert socket.hear("error")["error"]["code"] == "session_idle"
        assert socket.closed()[0] == 1008 and time.monotonic() - began > 2.0


def test_a_message_that_is_too_large(server):
    with Socket(server) as socket:
        socket.say("input_audio_buffer.append", audio="A" * MOST_BYTES)
        assert socket.closed()[0] == 1009
    settle(server)


def test_a_session_that_cannot_be_opened_says_why(server, monkeypatch):
    from mdmspeech.errors import UserError

    def broken(talker="mdm"):
        raise UserError("the voice is gone")

    monkeypatch.setattr(server.engine.assistant, "voice", broken)
    socket = Socket(server)
    assert socket.hear("error")["error"]["message"] == "the voice is gone"
    assert socket.closed() == (1011, "the voice is gone")
    settle(server)


# ---- What is no event -----------------------------------------------------------------------------

NO_EVENTS = [
    "", "nonsense", "{", "[]", "null", "5", '"text"', "NaN", '{"type": NaN}', '{"type": "session.update"}',
    '{"type":"input_audio_buffer.append","audio":"\\ud800"}', '{"type":"\\ud800","event_id":"\\udc80"}',
    '{"type":"conversation.item.retrieve","item_id":"\\ud83d"}', "[" * 100_000, '{"a":' * 5000,
    '{"type": 1' + "0" * 5000 + "}", b"binary", b"", "\x00", '{"type": "response.cancel"}',
]  # fmt: skip


def test_what_is_no_event_is_told_and_the_socket_stays_open(server):
    with Socket(server) as socket:
        for sent in NO_EVENTS:
            socket.raw.send(sent)
            error = socket.hear()
            assert error["type"] == "error" and len(error["error"]["message"]) < 400, sent
        socket.raw.send('{"type": "nonsense", "event_id": "mine"}')
        assert socket.hear()["error"]["event_id"] == "mine" and socket.alive()


def malformed(rng):
    """Something like an event."""
    kinds = [
        "session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "response.create",
        "conversation.item.create", "conversation.item.truncate", "conversation.item.delete",
        "conversation.item.retrieve", "input_audio_buffer.clear", "response.cancel", "nonsense",
    ]  # fmt: skip
    names = [
        "session", "audio", "item", "response", "item_id", "content_index", "audio_end_ms", "event_id",
        "previous_item_id", "response_id", "input", "output", "turn_detection", "type", "role",
        "content", "text", "instructions", "format", "rate", "steps", "metadata", "threshold",
    ]  # fmt: skip

    def value(depth=0):
        kind = rng.randrange(12 if depth < 4 else 9)
        if kind < 9:
            return rng.choice(
                [None, True, -1, 0, 1e308, 10**30, "", "x", "\udc80", "AAAA", "A", "message", "user",
                 "audio/pcm", "server_vad", "\u202e\x00", "é" * 50, 0.5]
            )  # fmt: skip
        if kind == 9:
            return [value(depth + 1) for _ in range(rng.randrange(3))]
        return {rng.choice(names): value(depth + 1) for _ in range(rng.randrange(5))}

    event = {"type": rng.choice(kinds)} | {
        rng.choice(names): value() for _ in range(rng.randrange(4))
    }
    text = json.dumps(event)
    if rng.random() < 0.3:  # broken in the middle
        at = rng.randrange(len(text))
        text = (
            text[:at]
            + rng.choice(["", "}", '"', "\x00", "\\u12", "é"])
            + text[at + rng.randrange(3) :]
        )
    return text.encode("utf-8", "replace") if rng.random() < 0.05 else text


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.full)])
def test_malformed_messages(server, count):
    rng = random.Random(0)
    with Socket(server) as socket:
        for n in range(count):
            socket.raw.send(malformed(rng))
            if n % 50 == 49:  # what was answered, so that it does not pile up
                assert socket.alive()
        assert socket.alive()
        socket.say("response.cancel")
        socket.say("session.update", session={"output_modalities": ["audio"], "instructions": None})
    with Socket(server) as socket:
        socket.ask()
        assert socket.hear("response.done")["response"]["status"] == "completed"


def gone(socket):
    """Without a goodbye; the client's own thread reads, so that `close` alone would wait for it."""
    socket.raw.socket.shutdown(SHUT_RDWR)
    socket.raw.socket.close()


# ---- What is left behind --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.full)])
def test_trap_17_clients_that_are_gone_leave_nothing_behind(server, count):
    """At any moment, without a goodbye."""
    rng = random.Random(1)
    for n in range(count):
        if n % 4 == 0:  # there are 8 places, which are free a moment later
            settle(server)
        socket = Socket(server)
        if rng.random() < 0.8:
            socket.hear("session.created")
            socket.ask()
            for _ in range(rng.randrange(12)):
                socket.hear()
        gone(socket) if rng.random() < 0.8 else socket.raw.close()
    settle(server)
    with Socket(server) as socket:
        socket.ask()
        assert socket.hear("response.done")["response"]["status"] == "completed"
    settle(server)


def test_nothing_is_taken_from_the_session_that_cannot_be_written(server):
    """A reader who is slow stops his own session: what waits, waits there."""
    taken = []

    async def events():
        yield_ = [ResponseStarted(1, 1)] + [
            ResponseAudio(1, small_session.asked()[:4000], 24_000, 0.0, ()) for _ in range(50)
        ]
        for event in yield_:
            taken.append(event)
            yield event

    class Stuck:
        async def send_str(self, text):
            await asyncio.sleep(3600)

    async def scenario():
        request = SimpleNamespace(app=server.app)
        session = SimpleNamespace(update=lambda **_: None, waiting_s=0.0)
        connection = Connection(request, Stuck(), session, events(), "mdm")
        tasks = [asyncio.create_task(work()) for work in (connection._tell, connection._write)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        return len(connection._out)

    waiting = server.run(scenario())
    assert len(taken) == 1 and waiting <= 2


@pytest.mark.parametrize("waiting", [{"waiting_s": 21.0}, {"waiting": 2001}, {}])
def test_nothing_is_read_that_the_session_cannot_look_at(server, waiting):
    read = []

    class Client:
        async def __aiter__(self):
            for _ in range(10):
                read.append(1)
                yield SimpleNamespace(type=WSMsgType.TEXT, data="{}")

    async def scenario():
        session = SimpleNamespace(**{"waiting_s": 0.0, "waiting": 0} | waiting)
        connection = Connection(SimpleNamespace(app=server.app), Client(), session, None, "mdm")
        reading = asyncio.create_task(connection._read())
        await asyncio.sleep(0.2)
        reading.cancel()

    server.run(scenario())
    assert len(read) == (1 if waiting else 10)


def test_a_client_that_floods_and_never_reads_waits_for_itself(server):
    """Its own messages are not read either, and others are served."""
    with Socket(server) as flood, Socket(server) as other:
        flood.raw.socket.settimeout(2)
        try:
            for _ in range(20_000):
                flood.raw.socket.sendall(_frame(b'{"type":"nonsense' + b"x" * 1000 + b'"}'))
        except (TimeoutError, OSError):
            pass
        other.ask()
        assert other.hear("response.done")["response"]["status"] == "completed"
        gone(flood)
    settle(server)


def _frame(payload):
    """A masked text frame (RFC 6455, 5.2) with a mask of zeros."""
    return bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload
