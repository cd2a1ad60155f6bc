"""A talk at a terminal: the microphone goes into a session, its answers into the loudspeaker and, as
text, on the screen. It works with a session in this process and with one on a server alike.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mdmspeech.errors import UserError
from mdmspeech.inference.event_queue import EventQueue
from mdmspeech.inference.session_events import (
    ResponseAudio,
    ResponseEnded,
    ResponseText,
    SessionClosed,
    SessionError,
    SessionEvent,
    SessionOpened,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    TurnsForgotten,
)
from mdmspeech.serving.terminal.player import Player
from mdmspeech.serving.terminal.screen import Screen

_TOLD_EVERY = 0.25  # seconds between two reports of what was played
HELP = (
    "speak, or type a question and press Enter; an empty line {empty}; /stop stops the answer, "
    "/quit or Ctrl-C ends"
)


class Partner(Protocol):
    """What `Talk` needs of a session, see `inference.session.Session`."""

    events: EventQueue

    def push_audio(self, samples: Any, rate: float = ...) -> None: ...
    def push_text(self, text: str) -> None: ...
    def commit(self) -> None: ...
    def cancel(self) -> None: ...
    def played(self, seconds: float) -> None: ...
    def truncate(self, played_s: float, response: int | None = None) -> None: ...
    def close(self) -> None: ...


class Talk:
    """One.

    Attributes:
      open: whether the session listens. over: whether it has ended.

    Args:
      push_to_talk: the microphone is heard between two empty lines only, not all the time.
    """

    def __init__(
        self,
        session: Partner,
        player: Player,
        screen: Screen,
        push_to_talk: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open, self.over = False, False
        self._session, self._player, self._screen, self._clock = session, player, screen, clock
        self._push_to_talk, self._recording = push_to_talk, not push_to_talk
        self._speaking: int | None = None  # the response whose sound came last
        self._asked_at: float | None = None  # when the turn was over
        self._waited: float | None = None
        self._underruns, self._told_at = 0, 0.0
        self._closing = threading.Lock()

    def heard(self, samples: np.ndarray, rate: float) -> None:
        """The microphone's next samples, from the sound card's thread."""
        if self.over or not self.open:
            return
        if self._recording:
            try:
                self._session.push_audio(samples, rate)
            except UserError as error:  # it cannot keep up
                self._screen.note(str(error))
                self.close()
        self._screen.level(samples, self._state())

    def typed(self, line: str) -> None:
        """A line from the keyboard."""
        if (text := line.strip()) == "/quit":
            self.close()
        elif text == "/stop":
            self._session.cancel()
            self._silence(self._speaking)
        elif text:
            self._ask(lambda: self._session.push_text(text))
        elif not self._push_to_talk:
            self._ask(lambda: None)
        elif self._recording:
            self._recording = False
            self._ask(lambda: None)
        else:
            self._silence(self._speaking)  # who presses the key speaks
            self._recording = True

    def close(self) -> None:
        """The end."""
        with self._closing:
            if not self.over:
                self._session.close()

    def run(self) -> None:
        """Until it is over."""
        while not self.over:
            self.turn(0.05)

    def turn(self, timeout: float = 0.0) -> None:
        """Does what one event of the session asks for, if there is one in time."""
        if (event := self._session.events.get(timeout)) is not None:
            self._handle(event)
        if self._speaking is not None and self._clock() - self._told_at >= _TOLD_EVERY:
            self._told_at = self._clock()
            self._session.played(self._player.played(self._speaking))

    def _handle(self, event: SessionEvent) -> None:
        if isinstance(event, SessionOpened):
            self.open = True
            empty = "begins and ends your turn" if self._push_to_talk else "ends your turn at once"
            self._screen.note(HELP.format(empty=empty))
        elif isinstance(event, SpeechStarted):
            self._silence(event.interrupts)
        elif isinstance(event, SpeechStopped):
            self._asked_at = self._clock()
        elif isinstance(event, Transcript):
            self._screen.heard(event.text)
        elif isinstance(event, ResponseText):
            self._screen.said(event.text)
        elif isinstance(event, ResponseAudio):
            self._play(event)
        elif isinstance(event, ResponseEnded):
            self._ended(event)
        elif isinstance(event, TurnsForgotten):
            self._screen.note(f"(the {event.turns} oldest turns are forgotten)")
        elif isinstance(event, SessionError):
            self._screen.note(f"({event.message})")
        elif isinstance(event, SessionClosed):
            self.over = True
            if event.message:
                self._screen.note(event.message)

    def _play(self, event: ResponseAudio) -> None:
        if not len(event.audio):
            return
        if event.response != self._speaking:
            self._speaking, self._underruns = event.response, self._player.underruns
            asked, self._asked_at = self._asked_at, None
            self._waited = None if asked is None else self._clock() - asked
        self._player.put(event.response, event.audio)

    def _ended(self, event: ResponseEnded) -> None:
        if event.reason in ("turn_detected", "cancelled"):
            self._player.stop(event.response)
        self._player.end(event.response)
        waited = self._waited if event.response == self._speaking else None
        self._screen.ended(event, waited, self._player.underruns - self._underruns)

    def _ask(self, push: Callable[[], None]) -> None:
        try:
            push()
        except UserError as error:
            self._screen.note(f"({error})")
            return
        self._silence(self._speaking)
        self._session.commit()
        self._asked_at = self._clock()

    def _silence(self, response: int | None) -> None:
        """A response is played no further, and the session learns how much of it was."""
        if response is not None and response == self._speaking:
            self._speaking = None
            self._session.truncate(self._player.stop(response), response)

    def _state(self) -> str:
        if self._player.busy:
            return "speaking"
        return "listening" if self._recording else "Enter: speak"
