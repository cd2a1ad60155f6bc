"""The questions of a session that wait for their answer, in order, and what was noted of those that
nothing answered.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mdmspeech.inference.conversation import Part
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import Reason, SessionError, SessionEvent, TurnCommitted

_QUESTIONS = 8  # that may wait for their answer
_TURNS = 256  # that may wait to be remembered

Noted = tuple[int, Part]  # a part of the question of that number


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked. wave: sound at 16 kHz, heard first; draft: what was understood of it before it
    was over, see `hearing_ahead`. texts: behind it. noted: parts of questions before it that nothing
    answered. answer: whether this one is to be answered. answered: what was, elsewhere. config: how, if
    not as the session. ref: of who asked for the answer.
    """

    number: int
    wave: np.ndarray | None = None
    draft: np.ndarray | None = None
    texts: tuple[str, ...] = ()
    noted: tuple[Noted, ...] = ()
    answer: bool = True
    answered: str | None = None
    config: SessionConfig | None = None
    ref: str | None = None


class Questions:
    """Those that wait.

    Attributes:
      asked: how many there were, which is the number of the last. noted: what goes with the next
        one. forgotten: numbers of those that were taken back.

    Args:
      put: takes events.
    """

    def __init__(self, put: Callable[[SessionEvent], None]) -> None:
        self.asked, self.forgotten = 0, set[int]()
        self.noted: tuple[Noted, ...] = ()
        self._put, self._waiting = put, deque[Question]()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Question:
        """The next one, with what was noted before it."""
        question, noted = self._waiting.popleft(), self.noted
        self.noted = ()
        return dataclasses.replace(question, noted=noted)

    def begin(self, wave: np.ndarray, draft: np.ndarray | None = None) -> Question:
        """One that is answered before it is known to be one, see `take_back`."""
        self.asked += 1
        noted, self.noted = self.noted, ()
        return Question(self.asked, wave, draft, noted=noted)

    def take_back(self, question: Question) -> None:
        """It was none. Its number is given again, unless something was asked after it."""
        self.asked -= question.number == self.asked
        self.noted = question.noted

    def note(self, parts: tuple[Noted, ...]) -> None:
        """These go with the next one, too."""
        self.noted = (*self.noted, *parts)[-_TURNS:]

    def next_number(self) -> int | None:
        """Of the next question that is spoken or to be answered, if there is room for it."""
        waiting = sum(
            one.wave is not None or (one.answer and one.answered is None) for one in self._waiting
        )
        return self.asked + 1 if waiting < _QUESTIONS else None

    def ask(
        self,
        wave: np.ndarray,
        texts: tuple[str, ...] = (),
        ref: str | None = None,
        answer: bool = True,
        draft: np.ndarray | None = None,
    ) -> None:
        """One more, if there is room. ref: what its `TurnCommitted`, or error, is told with."""
        spoken = wave if len(wave) else None
        full = len(self._waiting) >= _TURNS
        if full or (self.next_number() is None and (answer or spoken is not None)):
            self._put(
                SessionError(
                    f"{_TURNS if full else _QUESTIONS} questions wait for their answer; this one is "
                    "not taken: wait for a response to end, or cancel() it",
                    ref,
                )
            )
            return
        self.asked += 1
        if ref is not None:
            self._put(TurnCommitted(ref, self.asked))
        self._waiting.append(Question(self.asked, spoken, draft, texts, answer=answer))

    def respond(
        self, ref: str | None, config: SessionConfig, changes: Mapping[str, Any], busy: bool
    ) -> None:
        """An answer to what was noted is asked for. busy: something is being answered, of which there
        may be something to note.
        """
        texts, changes = tuple[str, ...](), dict(changes)
        if not (self.noted or self._waiting or busy):
            if not (asked := changes.pop("instructions", None)):
                told = "there is nothing to respond to: ask something first"
                self._put(SessionError(told, ref))
                return
            texts = (asked,)
        self.asked += 1
        if ref is not None:
            self._put(TurnCommitted(ref, self.asked))
        own = config.updated(changes) if changes else None
        self._waiting.append(Question(self.asked, texts=texts, config=own, ref=ref))

    def insert(self, answer: str, number: int, ref: str | None = None) -> None:
        """What was noted has this for an answer, of that number."""
        if len(self._waiting) >= _TURNS:
            told = f"{_TURNS} turns wait to be remembered; the answer {answer[:40]!r} is not"
            self._put(SessionError(told, ref))
        else:
            if ref is not None:
                self._put(TurnCommitted(ref, number))
            self._waiting.append(Question(number, answered=answer))

    def put_back(self, question: Question, reason: Reason) -> None:
        """Nothing answers the one that was taken last."""
        self.noted = question.noted
        self._waiting.appendleft(self._unanswered(question, reason))

    def stop(self, reason: Reason) -> None:
        """Nothing answers those that wait."""
        waiting, self._waiting = self._waiting, deque()
        self._waiting.extend(self._unanswered(question, reason) for question in waiting)

    def clear(self) -> None:
        """None waits any more."""
        self._waiting.clear()

    def _unanswered(self, question: Question, reason: Reason) -> Question:
        if question.ref is not None:
            told = "the answer was stopped before it began"
            self._put(SessionError(told, question.ref, reason))
        return dataclasses.replace(question, noted=(), answer=False, ref=None)
