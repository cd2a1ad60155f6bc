"""A talk at the terminal: what is said comes out of the loudspeaker and on the screen, with a session
here and on a server alike.
"""

import io
import re
import threading

import numpy as np
import pytest
from small_session import Clock, asked, of, opened, silence, work
from stand_in_sound_card import SoundCard

import mdmspeech
from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.inference.playback import heard_text
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseText,
    SessionClosed,
    SessionOpened,
    SpeechStopped,
    Transcript,
)
from mdmspeech.serving.realtime.audio import encode
from mdmspeech.serving.terminal import sound_card
from mdmspeech.serving.terminal.player import Player
from mdmspeech.serving.terminal.remote_session import RemoteSession, socket_url
from mdmspeech.serving.terminal.screen import Screen
from mdmspeech.serving.terminal.talk import Talk

QUESTION = "what is it ?"


class Here:
    """A talk with a session of this process, in fast time."""

    def __init__(self, assistant, **how):
        self.clock, self.out = Clock(), io.StringIO()
        self.session = opened(assistant, self.clock)
        self.session.events.put(SessionOpened())
        self.player = Player(24_000)
        self.talk = Talk(self.session, self.player, Screen(self.out), clock=self.clock, **how)
        self.go()

    def go(self):
        """Until nothing is to be done."""
        work(self.session)
        while len(self.session.events):
            self.talk.turn()
            work(self.session)
        return self.out.getvalue()

    def play(self, seconds):
        """Lets the loudspeaker play, and time pass."""
        self.clock.now += seconds
        played = self.player.fill(int(seconds * self.player.rate))
        self.talk.turn()
        return played

    def hear(self, *waves):
        whole = np.concatenate(waves)
        for at in range(0, len(whole), 1600):
            self.talk.heard(whole[at : at + 1600], 16_000)
            self.go()


def test_a_typed_question_is_answered_aloud(assistant):
    here = Here(assistant)
    here.talk.typed(QUESTION)
    told = here.go()
    reply = assistant.answer(QUESTION, steps=2)
    assert f"it:  {reply.text}" in told and "first sound after 0 ms" in told
    out = here.play(60.0)
    np.testing.assert_array_equal(out[: len(reply.audio)], reply.audio)
    assert not out[len(reply.audio) :].any()


def test_a_spoken_question_is_written_down_and_answered(assistant):
    here = Here(assistant)
    here.hear(asked(), silence(1.0))
    assert "you: " in here.out.getvalue() and "it:  " in here.out.getvalue() and here.player.busy


def test_who_speaks_silences_it_and_it_knows_what_was_played(assistant):
    here = Here(assistant)
    here.talk.typed(QUESTION)
    here.go()
    here.play(0.75)
    here.hear(silence(0.5), asked()[:24_000])
    here.player.fill(1000)  # the fade
    assert not here.player.busy and not here.player.fill(1000).any()
    last = here.session._last
    assert last.remembered != last.text and last.playback.played(0) <= 0.75


@pytest.mark.parametrize("line", ["/stop", "yes and no"])
def test_a_line_stops_what_is_played(assistant, line):
    here = Here(assistant)
    here.talk.typed(QUESTION)
    here.go()
    here.play(0.5)
    first = here.player.played(1)
    here.talk.typed(line)
    told = here.go()
    here.play(0.5)
    assert here.player.played(1) == first and here.player.busy == (line != "/stop")
    assert len(re.findall("it:  ", told)) == 1 + (line != "/stop")


def test_a_loudspeaker_that_stalls_is_believed(assistant):
    """What it has played counts, not the time since."""
    here = Here(assistant)
    here.talk.typed(QUESTION)
    here.go()
    here.play(0.5)
    here.clock.now += 3.0
    here.talk.typed("/stop")
    here.go()
    reply = assistant.answer(QUESTION, steps=2)
    expected = heard_text(reply.text, reply.words, 0.5, len(reply.audio) / reply.sample_rate)
    assert here.session._last.remembered == expected != reply.text


def test_push_to_talk_hears_between_two_empty_lines_only(assistant):
    here = Here(assistant, push_to_talk=True)
    here.session.update(turn_detection=None)
    here.hear(asked())
    assert "you:" not in here.out.getvalue()
    here.talk.typed("")
    here.hear(asked())
    assert "you:" not in here.go()
    here.talk.typed("")
    assert "you:" in here.go() and "it:" in here.out.getvalue()


def test_an_empty_question_and_the_end(assistant):
    here = Here(assistant)
    here.talk.typed("?!")
    assert "(" in here.go() and not here.talk.over
    here.talk.typed("/quit")
    here.go()
    assert here.talk.over


# ---- On a server ---------------------------------------------------------------------------------


def until(session, kind, most=60.0):
    found = []
    while not of(found, kind):
        event = session.events.get(most)
        assert event is not None, found
        found.append(event)
    return found


@pytest.fixture(scope="module")
def server(running):
    with running(max_sessions=4) as server:
        yield server


def test_a_server_says_the_same(server, assistant):
    session = RemoteSession(server.url, output={"steps": 2})
    session.push_text(QUESTION)
    session.commit()
    found = until(session, ResponseEnded)
    reply = assistant.answer(QUESTION, steps=2)
    assert "".join(event.text for event in of(found, ResponseText)).strip() == reply.text
    audio = np.concatenate([event.audio for event in of(found, ResponseAudio)])
    assert encode(audio) == encode(reply.audio)  # in 16 bits
    end = of(found, ResponseEnded)[0]
    assert (
        end.reason == "completed"
        and end.text == reply.text
        and end.audio_s == pytest.approx(len(audio) / 24_000)
    )
    session.truncate(0.5)
    session.cancel()  # nothing runs
    session.push_audio(asked())
    session.push_audio(silence(1.5))
    found = until(session, ResponseEnded)
    assert of(found, SpeechStopped) and of(found, Transcript)
    session.close()
    assert until(session, SessionClosed)[-1].message == ""


def test_why_nobody_is_let_in(running, server):
    closed = lambda *args: until(RemoteSession(*args), SessionClosed)[-1].message
    assert "mdmspeech serve" in closed("http://127.0.0.1:9")
    with running(api_keys=("a-long-secret",)) as guarded:
        assert "--api-key" in closed(guarded.url) and "--api-key" in closed(
            guarded.url, "another-secret"
        )
        session = RemoteSession(guarded.url, "a-long-secret")
        session.push_text(QUESTION)
        session.commit()
        assert until(session, ResponseEnded)[-1].reason == "completed"
        session.close()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/realtime"),
        ("http://host:8000/", "ws://host:8000/v1/realtime"),
        ("https://host/v1", "wss://host/v1/realtime"),
        ("wss://host/v1/realtime?model=compact", "wss://host/v1/realtime?model=compact"),
        ("https://host/behind/a/proxy", "wss://host/behind/a/proxy/v1/realtime"),
    ],
)
def test_addresses(given, found):
    assert socket_url(given) == found


@pytest.mark.parametrize("given", ["ftp://host", "http://", ""])
def test_no_addresses(given):
    with pytest.raises(UserError, match="no address"):
        socket_url(given)


def test_the_verb(server, monkeypatch, capsys):
    """By the keyboard and the microphone, over the socket; the sound card alone is a stand-in."""
    card, said = SoundCard(), threading.Event()
    monkeypatch.setattr(sound_card, "library", lambda: card)
    before = Screen.ended

    def ended(self, *args):
        before(self, *args)
        said.set()

    monkeypatch.setattr(Screen, "ended", ended)

    def lines():
        yield QUESTION + "\n"
        assert said.wait(60)
        said.clear()
        card.hears(np.repeat(np.concatenate([asked(), silence(1.5)]), 3))
        assert said.wait(60)
        yield "/quit\n"

    monkeypatch.setattr("sys.stdin", lines())
    assert main(["talk", server.url, "--steps", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count("it:  ") == 2 and "you: " in told and "first sound after" in told


def test_the_verb_without_a_server(assistant, monkeypatch, capsys):
    card, asked_for = SoundCard(), []
    monkeypatch.setattr(sound_card, "library", lambda: card)
    load = lambda *names, **how: asked_for.append((names, how)) or assistant
    monkeypatch.setattr(mdmspeech, "load", load)
    said = threading.Event()
    before = Screen.ended
    monkeypatch.setattr(Screen, "ended", lambda *args: before(*args) or said.set())

    def lines():
        yield QUESTION + "\n"
        assert said.wait(60)
        yield "/quit\n"

    monkeypatch.setattr("sys.stdin", lines())
    assert main(["talk", "--steps", "1"]) == 0
    assert asked_for == [(("compact",), {"thinker": None, "voice": None, "dtype": "float32"})]
    assert "it:  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--steps", "many"], "--steps many"),
        (["--steps", "0"], "steps=0"),
        (["--pace", "9"], "pace=9"),
        (["ftp://host"], "no address"),
    ],
)
def test_wrong_wishes(monkeypatch, capsys, flags, told):
    monkeypatch.setattr(sound_card, "library", SoundCard)
    assert main(["talk", *flags]) == 2
    assert told in capsys.readouterr().err
