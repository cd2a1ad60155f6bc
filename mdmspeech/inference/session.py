"""A session: it listens, thinks and speaks at the same time, and can be interrupted.

It is a state machine without a thread or a timer of its own. The caller's methods only leave word;
`work` does one bounded unit (listen to a quarter of a second, hear a question, write one token,
speak one block), and `SessionLoop` calls it for many sessions in turn. Turns follow the sound that
was pushed; only playback asks the clock. So hours run in seconds, and every run is the same.
"""

import dataclasses
import itertools
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mdmspeech.audio.vad import FRAME
from mdmspeech.errors import UserError
from mdmspeech.inference.answering import Stream
from mdmspeech.inference.conversation import Conversation
from mdmspeech.inference.event_queue import EventQueue
from mdmspeech.inference.hearing_ahead import HearingAhead
from mdmspeech.inference.listener import Began, Ended, Listener, Paused, WentOn, too_much
from mdmspeech.inference.playback import seconds_of_response
from mdmspeech.inference.questions import check_question
from mdmspeech.inference.recording import Resampler
from mdmspeech.inference.session_config import TAIL, SessionConfig
from mdmspeech.inference.session_events import (
    Reason,
    ResponseTruncated,
    SessionClosed,
    SessionError,
    SessionOpened,
    SpeechStarted,
    SpeechStopped,
)
from mdmspeech.inference.session_inbox import Inbox
from mdmspeech.inference.session_questions import Question, Questions
from mdmspeech.inference.session_response import Model, SessionResponse
from mdmspeech.speech_format import INPUT_RATE

_LISTEN = 8 * FRAME  # samples a unit
_NO_SOUND = np.zeros(0, np.float32)


class Session:
    """Push sound or text, read `events`. All but those that work return at once, from any thread.

    Attributes:
      config: how it listens and speaks. events: an `EventQueue`: iterate, or `get(timeout)`.
      closed: whether it is over.

    Args:
      model: the assistant whose parts it uses. clock: seconds. wake: called when there is work.
    """

    def __init__(
        self,
        model: Model,
        config: SessionConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = SessionConfig() if config is None else config
        self.events, self.closed = EventQueue(wake), False
        self._model, self._clock, self._wake = model, clock, wake
        self._inbox, self._wanted = Inbox(), self.config  # that was asked for last
        self._conversation: Conversation | None = None
        self._listener, self._limit = Listener(0), 0  # until it is open
        self._ahead = HearingAhead()
        self._texts: list[str] = []
        self._questions = Questions(self.events.put)
        self._responses, self._inserted = 0, itertools.count(1)
        self._current: SessionResponse | None = None
        self._last: SessionResponse | None = None  # that was started and is over

    # ---- What the caller asks for ----------------------------------------------------------------

    def push_audio(self, samples: Any, rate: float = INPUT_RATE) -> None:
        """More sound: samples [N] of one channel, float at full scale 1 or int16, in pieces of any
        length. UserError: something else, or it comes faster than it can be listened to.
        """
        self._inbox.push(samples, rate)
        self._wake()

    @property
    def waiting(self) -> int:
        """Pieces of sound, and things asked for, that are not looked at yet."""
        return len(self._inbox)

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that are not listened to yet."""
        return self._inbox.waiting_s

    def push_text(self, text: str) -> None:
        """A typed question, or more of it, for the next `commit`. UserError: no words in it."""
        check_question(text)
        self._leave(lambda: self._texts.append(text))

    def commit(self, ref: str | None = None, answer: bool | None = None) -> None:
        """The turn is over: what was pushed since the last one is the question. ref: what a
        `TurnCommitted` is to be told with. answer: None: as `SessionConfig.create_response`.
        """
        self._leave(lambda: self._commit(ref, answer))

    def respond(self, ref: str | None = None, **changes: Any) -> None:
        """Answer what was written down (see `SessionConfig.create_response`). If there is nothing,
        the instructions among `changes` are the question.

        Args:
          ref: what a `TurnCommitted` and then a `ResponseStarted`, or a `SessionError` if nothing comes
            of it, are to be told with.
          changes: settings of this one response.

        Raises:
          UserError: as `update`.
        """
        self._updated(changes)
        self._leave(
            lambda: self._questions.respond(ref, self.config, changes, self._current is not None)
        )

    def note(self, text: str, ref: str) -> None:
        """A typed question that waits for `respond`. ref: see `commit`. UserError: no words in it."""
        check_question(text)
        self._leave(lambda: self._questions.ask(_NO_SOUND, (text,), ref, answer=False))

    def note_audio(self, samples: Any, rate: float, ref: str) -> None:
        """A whole spoken question that waits for `respond`, see `push_audio` and `note`."""
        own = Resampler()
        wave = np.concatenate([own.push(samples, rate), own.flush()])
        self._leave(lambda: self._questions.ask(wave, (), ref, answer=False))

    def insert(self, answer: str, ref: str | None = None) -> int:
        """This is remembered as the answer to what was noted. Its number, for `forget`; those of
        answers that are made here are positive. ref: see `commit`. UserError: no words in it.
        """
        check_question(answer)
        number = -next(self._inserted)
        self._leave(lambda: self._questions.insert(answer, number, ref))
        return number

    def forget(self, question: int | None = None, response: int | None = None) -> None:
        """A question, or an answer, was never said."""
        self._leave(lambda: self._forget(question, response))

    def clear(self, noted: bool = True) -> None:
        """What was pushed since the last turn was nothing; noted: nor was what nothing answered."""
        self._leave(lambda: self._clear(noted))

    def cancel(self) -> None:
        """Stop speaking, now. Nothing happens if nothing is being said."""
        self._leave(lambda: self._stop("cancelled"), at_once=True)

    def played(self, seconds: float) -> None:
        """So much of the response that is being spoken has come out of the loudspeaker."""
        now, seconds = self._clock(), seconds_of_response("seconds", seconds)
        self._leave(lambda: self._report(now, seconds), at_once=True)

    def truncate(
        self, played_s: float, response: int | None = None, ref: str | None = None
    ) -> None:
        """Only so much of a response (default: the last one) was played: it is stopped, and the
        conversation remembers no more of it. ref: what a `ResponseTruncated`, or a `SessionError` if
        it is none of the last two, is to be told with.
        """
        played_s = seconds_of_response("played_s", played_s)
        self._leave(lambda: self._truncate(played_s, response, ref), at_once=True)

    def update(self, **changes: Any) -> None:
        """Other settings from the next turn on, see `SessionConfig.updated`; UserError as there."""
        self._wanted = config = self._updated(changes)
        self._leave(lambda: self._change(config))

    def close(self) -> None:
        """The end; a `SessionClosed` is the last event."""
        self._leave(self._close, at_once=True)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- One unit of work ------------------------------------------------------------------------

    def work(self) -> bool:
        """Does one unit, in the one thread that may call the model; whether there may be more."""
        try:
            return self._unit()
        except UserError as error:
            self._failed(str(error))
        except Exception as error:
            log = logging.getLogger(__name__)
            # where it happened; its message may hold what was said, as the events of a server may not
            where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
            log.error("a session's unit of work failed: %s\n%s", type(error).__name__, where)
            log.debug("what it said", exc_info=error)
            self._failed(
                f"something went wrong inside ({type(error).__name__}); the log says where"
            )
        return not self.closed

    def work_ahead(self) -> bool:
        """Does one unit of what may save time later, see `hearing_ahead`; whether there was one. For
        when there is no other work, of anybody.
        """
        busy = self._current or len(self._questions) or not self.config.speculate_s
        if self.closed or busy or not self._listener.spoken:
            return False
        return self._ahead.work(self._model.frontend, self._listener)

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, asked or waits to be read. A hint for other threads."""
        return self._current is None and not self._questions and not len(self.events)

    def speaking(self) -> Stream | None:
        """The speech whose next block the next unit of work decodes, if that is what it does."""
        response = self._current
        if self.closed or response is None or not self._may_go_on(response):
            return None
        return response.speaking

    def _unit(self) -> bool:
        if (urgent := self._inbox.take_urgent()) is not None:
            urgent()
        elif self.closed:
            return False
        elif self._conversation is None:
            self._open()
        elif (wanted := self._next_wanted()) is not None:
            if callable(wanted):
                wanted()
            else:
                self._listen(wanted)
        elif self._current is not None and self._may_go_on(self._current):
            self._go_on(self._current)
        elif self._current is None and len(self._questions):
            self._begin(self._questions.take())
        else:
            return False
        return True

    def _next_wanted(self) -> np.ndarray | Callable[[], None] | None:
        """Of what was pushed, unless nobody reads what comes of it."""
        if len(self.events) >= 2 * self.config.max_events:
            return None
        return self._inbox.take(_LISTEN)

    def _may_go_on(self, response: SessionResponse) -> bool:
        return not response.waits and len(self.events) < self.config.max_events

    def _open(self) -> None:
        """Opens the parts, checks that they can do what is asked, compiles."""
        try:
            model, config = self._model, self.config
            voice = model.voice(config.talker)
            voice.check(config.generation())
            conversation = Conversation(model.thinker, config.context)
            self._limit = int(model.frontend.limit * INPUT_RATE)
            self._listener = Listener(self._limit)
            if config.warm_up:
                voice.warm_up()
                conversation.warm_up()
                model.frontend.warm_up()
        except UserError as error:
            self._close(str(error))
            return
        self._conversation = conversation
        self.events.put(SessionOpened())

    def _updated(self, changes: Mapping[str, Any]) -> SessionConfig:
        config = self._wanted.updated(changes)
        if (config.context, config.talker) != (self.config.context, self.config.talker):
            raise UserError("context and talker stay as the session began; open another one")
        return config

    def _leave(self, wanted: Callable[[], None], at_once: bool = False) -> None:
        """Word for `work`; at once: before all that waits."""
        self._inbox.leave(wanted, at_once)
        self._wake()

    # ---- Listening -------------------------------------------------------------------------------

    def _listen(self, samples: np.ndarray) -> None:
        if (detection := self.config.turn_detection) is None:
            if self._listener.record(samples):
                self.events.put(SessionError(too_much(self._limit)))
            return
        for heard in self._listener.listen(samples, detection, self._tail_s):
            if isinstance(heard, Began):
                self._speech_started(heard)
            elif isinstance(heard, Paused):
                self._speculate(heard.wave)
            elif isinstance(heard, WentOn):
                self._take_back()
            else:
                self._speech_stopped(heard)

    @property
    def _tail_s(self) -> float:
        return self.config.speculate_s or TAIL

    def _speech_started(self, heard: Began) -> None:
        self._ahead.forget()
        interrupts = self._audible() if self.config.interrupt_response else None
        self.events.put(SpeechStarted(heard.at_s, interrupts.number if interrupts else None))
        if self.config.interrupt_response:
            self._stop("turn_detected")
            self._questions.stop("turn_detected")

    def _speech_stopped(self, heard: Ended) -> None:
        if self._current is not None and self._current.held:
            self.events.put(SpeechStopped(heard.at_s, self._current.question.number))
            self._current.release()
            self._finished(self._current)
        else:
            self.events.put(SpeechStopped(heard.at_s, self._questions.next_number()))
            self._questions.ask(
                heard.wave, answer=self.config.create_response, draft=self._ahead.draft
            )

    def _speculate(self, wave: np.ndarray) -> None:
        """Begins the answer, if nothing else is to be done, and keeps it back."""
        busy = self._current or len(self._questions) or self._texts
        if self.config.speculate_s and self.config.create_response and not busy:
            self._begin(self._questions.begin(wave, self._ahead.draft), held=True)

    def _take_back(self) -> None:
        """The answer that was begun too early was never begun."""
        if self._current is not None and self._current.held:
            self._current.take_back()
            self._ahead.was_heard(self._current.written)
            self._questions.take_back(self._current.question)
            self._current = None

    # ---- Questions and answers -------------------------------------------------------------------

    def _commit(self, ref: str | None, answer: bool | None) -> None:
        texts, self._texts = tuple(self._texts), []
        if self.config.turn_detection is None:
            wave = self._listener.take()
        else:
            ended = self._listener.end_turn(self._tail_s)
            if ended is not None and not texts and ref is None:
                self._speech_stopped(ended)
                return
            self._take_back()
            wave = _NO_SOUND if ended is None else ended.wave
            if ended is not None:
                self.events.put(SpeechStopped(ended.at_s))
        if len(wave) or texts:
            answer = self.config.create_response if answer is None else answer
            self._questions.ask(wave, texts, ref, answer)
        else:
            told = "there is nothing to commit: push sound or text first"
            self.events.put(SessionError(told, ref))

    def _begin(self, question: Question, held: bool = False) -> None:
        assert self._conversation is not None
        if question.answered is not None:
            asked = [part for part in question.noted if part[0] not in self._questions.forgotten]
            self._conversation.insert(
                question.answered,
                *(part for _, part in asked),
                numbers=[number for number, _ in asked],
                response=question.number,
            )
            return
        self._current = SessionResponse(
            self._model,
            self.config,
            self._conversation,
            question,
            self._responses + 1,
            self.events.put,
            self._clock,
            self._questions.forgotten,
            held,
        )

    def _go_on(self, response: SessionResponse) -> None:
        response.step()
        self._finished(response)

    def _finished(self, response: SessionResponse) -> None:
        """What follows when a response is over."""
        if not response.over or response.held:
            return
        self._current = None
        self._questions.note(response.unasked)
        if response.question.ref is not None and not response.started:
            told = "there is nothing to respond to: no words were understood"
            self.events.put(SessionError(told, response.question.ref))
        if response.started:
            self._last, self._responses = response, self._responses + 1

    def _audible(self) -> SessionResponse | None:
        """The response that somebody hears now, or will."""
        if self._current is not None:
            return self._current if self._current.started and not self._current.held else None
        last = self._last
        if last is not None and (
            last.playback.lead(self._clock()) > 0 or self.events.waits(last.number)
        ):
            return last
        return None

    def _stop(self, reason: Reason, played_s: float | None = None) -> None:
        """Nothing more is said of what is being said; what was played of it is remembered."""
        response = self._audible()
        if response is not None:
            self._silence(response, reason, played_s)
        elif self._current is not None and not self._current.held:  # still being heard
            question, self._current = self._current.question, None
            self._questions.put_back(question, reason)

    def _silence(self, response: SessionResponse, reason: Reason, played_s: float | None) -> None:
        # what is only written is told, and remembered, as far as it is written
        unread_s, end = (0.0, None) if response.silent else self.events.drop(response.number)
        if played_s is None:
            playback = response.playback
            played_s = min(playback.played(self._clock()), playback.audio_s - unread_s)
        if not response.over:
            response.stop(reason, played_s)
            self._finished(response)
            return
        text = response.cut(played_s)
        if end is not None:
            self.events.put(dataclasses.replace(end, reason=reason, text=text))

    def _truncate(self, played_s: float, number: int | None, ref: str | None) -> None:
        current = self._current if self._audible() is self._current else None
        found = [one for one in (current, self._last) if one is not None]
        response = next((one for one in found if number in (None, one.number)), None)
        if response is not None:
            self._take_back()
            self._silence(response, "cancelled", played_s)
        if response is not None and ref is not None:
            played_s = min(max(played_s, 0.0), response.playback.audio_s)
            self.events.put(ResponseTruncated(ref, response.number, played_s, response.remembered))
        elif ref is not None:
            told = "only what is being said, and the answer before it, can be truncated"
            self.events.put(SessionError(told, ref))

    def _report(self, now: float, played_s: float) -> None:
        if (response := self._audible() or self._last) is not None:
            response.playback.report(now, played_s)

    def _clear(self, noted: bool) -> None:
        self._take_back()
        self._texts = []
        if noted:
            self._questions.noted = ()
        self._listener.forget()

    def _forget(self, question: int | None, response: int | None) -> None:
        self._take_back()
        if question is not None:
            self._questions.forgotten.add(question)
        if self._conversation is not None:
            self._conversation.forget(question, response)

    def _change(self, config: SessionConfig) -> None:
        self._take_back()
        if (config.turn_detection is None) != (self.config.turn_detection is None):
            self._listener.begin_anew()
        self.config = config

    def _failed(self, message: str) -> None:
        """A unit of work has failed; the session goes on."""
        response = self._current
        if response is not None and response.held:
            self._take_back()  # it is asked again when the turn is over
        elif response is not None and response.started and not response.over:
            response.stop("error", message=message)
            self._current, self._last, self._responses = None, response, self._responses + 1
        else:
            ref = None if response is None else response.question.ref
            self._current = None
            self.events.put(SessionError(message, ref))

    def _close(self, message: str = "") -> None:
        if self.closed:
            return
        self._take_back()
        if self._current is not None and self._current.started:
            self._silence(self._current, "cancelled", None)
        self.closed = True
        self._inbox.close()
        self.events.put(SessionClosed(message))
        self._current = self._last = self._conversation = None
        self._questions.clear()
        self._listener = Listener(0)
