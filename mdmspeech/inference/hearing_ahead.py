"""A question is heard while it is still being spoken: what was understood of it so far is the draft
of what will be understood of the whole, of which then only the rest is written word by word.

It is work for spare time, in units as short as any other of a session: the encoder's half, then the
adaptor's. It changes no transcript (`models.seq2seq_adaptor.greedy_decode`), and compiles nothing.
"""

import logging

import numpy as np

from mdmspeech.inference.listener import Listener
from mdmspeech.inference.speech_frontend import SpeechFrontend, SpeechStates
from mdmspeech.speech_format import INPUT_RATE

_EVERY = int(0.5 * INPUT_RATE)  # samples of more speech before it is heard again


class HearingAhead:
    """Of one question at a time.

    Attributes:
      draft: ids, what was understood so far; None: nothing yet.
    """

    def __init__(self) -> None:
        self.draft: np.ndarray | None = None
        self._heard, self._failed = 0, False
        self._states: SpeechStates | None = None

    def forget(self) -> None:
        """Another question begins."""
        self.draft, self._heard, self._states = None, 0, None

    def was_heard(self, written: np.ndarray | None) -> None:
        """The question, as far as it had come, was understood so."""
        if written is not None:
            self.draft, self._states = written, None  # which were of less

    def work(self, frontend: SpeechFrontend, listener: Listener) -> bool:
        """One unit, if there is something to do. What fails is tried no more: whoever hears the whole
        question tells what is wrong.
        """
        # at a pause the whole question may have to be heard the next moment
        if self._failed or listener.pausing or not frontend.takes_drafts:
            return False
        try:
            return self._unit(frontend, listener)
        except Exception:
            self._failed = True
            logging.getLogger(__name__).debug("nothing is heard ahead any more", exc_info=True)
            return False

    def _unit(self, frontend: SpeechFrontend, listener: Listener) -> bool:
        if self._states is not None:
            states, self._states = self._states, None
            self.draft = frontend.read(states, [self.draft])[0].written
            return True
        samples = listener.spoken
        length = frontend.ready_length(samples)
        if samples - self._heard < _EVERY or length is None:
            return False
        self._heard = samples
        self._states = frontend.states([frontend.load(listener.wave_so_far())], length, 1)
        return True
