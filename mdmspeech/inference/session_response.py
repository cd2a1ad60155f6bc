"""One question of a session, from its sound to the end of its answer, a bounded unit at a time.

An answer that was begun before the turn is over is held back: nobody sees an event of it until it
is released, and taken back it leaves nothing behind.
"""

import dataclasses
from collections.abc import Callable, Iterator, Set
from typing import Protocol

import numpy as np

from mdmspeech.inference.answering import Answering, LimitedAnswer, SilentStream, Stream, Voice
from mdmspeech.inference.conversation import Conversation, Part
from mdmspeech.inference.playback import AdaptiveSteps, Playback, heard_text
from mdmspeech.inference.reply import AudioEvent, EndEvent, TextEvent
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import (
    Reason,
    ResponseAudio,
    ResponseEnded,
    ResponseStarted,
    ResponseText,
    ResponseTokens,
    SessionEvent,
    Transcript,
    TurnsForgotten,
    Usage,
)
from mdmspeech.inference.session_questions import Noted, Question
from mdmspeech.inference.speech import Word
from mdmspeech.inference.speech_frontend import EncodedSpeech, SpeechFrontend
from mdmspeech.inference.thinker_runner import TextDelta, ThinkerRunner


class Model(Protocol):
    """The parts of an `assistant.Assistant`."""

    @property
    def frontend(self) -> SpeechFrontend:
        """Hears."""

    @property
    def thinker(self) -> ThinkerRunner:
        """Answers."""

    def voice(self, talker: str) -> Voice:
        """Speaks."""


class SessionResponse:
    """`step` until it is `over`.

    Attributes:
      parts: of the question and those before it, once it was heard. written: ids of its sound, if
        the adaptor has any, see `EncodedSpeech`. number: of the response. started: whether it has been
        told to begin. text: of the answer, all of it that was written. remembered: what of it the
        conversation has. playback: of its sound.

    Args:
      config: how it speaks, if the question does not say. number: of the response, if there will be
        one. put: takes its events. forgotten: numbers of questions that are asked no more. held: keep
        its events back until `release`.
    """

    def __init__(
        self,
        model: Model,
        config: SessionConfig,
        conversation: Conversation,
        question: Question,
        number: int,
        put: Callable[[SessionEvent], None],
        clock: Callable[[], float],
        forgotten: Set[int] = frozenset(),
        held: bool = False,
    ) -> None:
        self.question, self.number, self.playback = question, number, Playback()
        self.parts: tuple[Noted, ...] | None = None
        self.written: np.ndarray | None = None
        self.text, self.remembered, self.over, self.started = "", "", False, False
        self._model, self._config = model, question.config or config
        self._conversation, self._forgotten = conversation, forgotten
        self._put, self._clock, self._asked_at = put, clock, clock()
        self._held: list[SessionEvent] | None = [] if held else None
        self._answering: Answering | None = None
        self._steps: AdaptiveSteps | None = None
        self._spent = 0.0  # seconds of the stream's work, up to the last block
        self._words: tuple[Word, ...] = ()
        self._told, self._tokens, self._samples, self._rate = 0, 0, 0, 1
        self._first_audio_s: float | None = None
        self._asked, self._pieces = False, LimitedAnswer(iter(()), None)
        self._seconds: dict[str, float] = {}

    @property
    def held(self) -> bool:
        """Whether nobody knows of it yet."""
        return self._held is not None

    @property
    def waits(self) -> bool:
        """Whether it has done all that is worth doing before it is released."""
        spoken = self._answering is not None and self._answering.stream.done
        return self.held and (self.over or self._samples > 0 or spoken)

    @property
    def speaking(self) -> Stream | None:
        """See `Answering.speaking`."""
        return None if self._answering is None else self._answering.speaking

    def step(self) -> None:
        """One unit of work."""
        if self.parts is None:
            self._hear()
        elif self._answering is None:
            self._begin()
        else:
            self._go_on(self._answering)

    def release(self) -> None:
        """The turn is over: what was held back is told."""
        held, self._held, self._asked_at = self._held or [], None, self._clock()
        for event in held:
            self._tell(event)

    def take_back(self) -> None:
        """It never was."""
        self._close()
        if self._asked and not self.over:
            self._conversation.discard()
        self.over = True

    def stop(self, reason: Reason, played_s: float | None = None, message: str = "") -> None:
        """Ends a response that was started; the conversation remembers what was `played_s` (None: what
        a player has played that began at once).
        """
        if self._answering is not None:
            self.text = self._answering.text.strip()
            self._seconds |= self._answering.seconds
            if reason != "error":  # of what has failed nothing is asked any more
                self._words = self._answering.stream.result().words
        self._close()
        text = self._heard(played_s)
        self.playback.stop(self._clock())
        if self._asked:
            self._conversation.settle(text, self.number)
            self.remembered = text
        self._end(reason, text, message)

    def cut(self, played_s: float | None = None) -> str:
        """Of one that is over the conversation remembers only what was played."""
        text = self._heard(played_s)
        self.playback.stop(self._clock())
        if self.remembered:
            self._conversation.amend(text, self.number)
            self.remembered = text
        return text

    @property
    def unasked(self) -> tuple[Noted, ...]:
        """What the conversation has not been asked, and should be with the next question."""
        return () if self._asked else self.wanted

    @property
    def wanted(self) -> tuple[Noted, ...]:
        """Of the parts, those that are asked."""
        return tuple(part for part in self.parts or () if part[0] not in self._forgotten)

    def _hear(self) -> None:
        question, parts = self.question, list[Part]()
        if question.wave is not None:
            heard = self._model.frontend.encode(question.wave, question.draft)
            self.written = heard.written
            self._seconds = {"encoder": heard.encoder_s, "adaptor": heard.adaptor_s}
            if heard.transcript is not None:
                self._tell(Transcript(question.number, heard.transcript))
            if heard.vectors is not None:
                parts.append(heard.vectors)
            elif heard.transcript:
                parts.append(heard.transcript)
        parts += question.texts
        self.parts = (*question.noted, *((question.number, part) for part in parts))
        self.over = not (question.answer and self.wanted)

    @property
    def silent(self) -> bool:
        """Whether it is only written."""
        return self._config.output == "text"

    def _begin(self) -> None:
        voice, nothing = self._model.voice(self._config.talker), EncodedSpeech(None, None, 0.0, 0.0)
        if self._config.steps == "auto" and not self.silent:
            self._steps = AdaptiveSteps(self.playback, self._clock, voice.block)
        stream: Stream = SilentStream(voice.codec.sample_rate)
        if not self.silent:
            stream = voice.stream(**dataclasses.asdict(self._config.generation()))
        self._answering = Answering(voice, lambda: (nothing, None), self._ask, stream, self._steps)
        self._rate, self.started = voice.codec.sample_rate, True
        self._tell(ResponseStarted(self.number, self.question.number, self.question.ref))

    def _ask(self, _: EncodedSpeech) -> Iterator[TextDelta]:
        conversation, voice = self._conversation, self._model.voice(self._config.talker)
        dropped, wanted = conversation.dropped, self.wanted
        pieces = conversation.ask(
            *(part for _, part in wanted),
            states=voice.reads_states and not self.silent,
            instructions=self._config.instructions,
            numbers=[number for number, _ in wanted],
        )
        self._asked = True
        if conversation.dropped > dropped:
            self._tell(TurnsForgotten(conversation.dropped))
        self._pieces = LimitedAnswer(pieces, self._config.max_output_tokens)
        return self._pieces

    def _go_on(self, answering: Answering) -> None:
        event = next(answering)
        if isinstance(event, TextEvent):
            self._tell(ResponseText(self.number, event.text))
        elif isinstance(event, EndEvent):
            self.text = event.reply.text
            self._seconds |= answering.seconds
            self._close()
            self._conversation.settle(self.text, self.number)
            self.remembered = self.text
            self._end("max_output_tokens" if self._pieces.cut else "completed", self.text)
        else:
            self._told_of_speech(answering.stream, event)

    def _told_of_speech(self, stream: Stream, event: AudioEvent | None) -> None:
        """A block, if there was one in the last unit; its samples, words that end in them."""
        speech = stream.result()
        if len(tokens := speech.tokens[self._tokens :]):
            # since the last block: it may have been decoded with those of others before this unit
            spent = sum(stream.seconds.values())
            if self._steps is not None:
                self._steps.took(spent - self._spent)
            self._spent = spent
            steps, confidence = speech.trace.step_L, speech.trace.confidence_L
            new = slice(self._tokens, len(speech.tokens))
            self._tell(
                ResponseTokens(self.number, self._tokens, tokens, steps[new], confidence[new])
            )
            self._tokens = len(speech.tokens)
        audio = np.zeros(0, np.float32) if event is None else event.audio
        self._words, start = speech.words, self._samples
        self._samples += len(audio)
        ends = np.inf if stream.done else self._samples / self._rate
        words = tuple(word for word in self._words[self._told :] if word.end <= ends)
        if len(audio) or words:
            self._told += len(words)
            self._tell(ResponseAudio(self.number, audio, self._rate, start / self._rate, words))

    def _tell(self, event: SessionEvent) -> None:
        if self._held is not None:
            self._held.append(event)
            return
        if isinstance(event, ResponseAudio):
            now = self._clock()
            if self._first_audio_s is None:
                self._first_audio_s = now - self._asked_at
            self.playback.add(now, len(event.audio) / event.sample_rate)
        self._put(event)

    def _heard(self, played_s: float | None) -> str:
        audio_s = self.playback.audio_s
        played_s = self.playback.played(self._clock()) if played_s is None else played_s
        if self.silent or (self.over and played_s >= audio_s > 0):
            return self.text
        return heard_text(self.text, self._words, min(played_s, audio_s), audio_s)

    def _end(self, reason: Reason, text: str, message: str = "") -> None:
        self.over = True
        steps = () if self._steps is None else tuple(self._steps.chosen)
        text_in, audio_in, cached = self._conversation.read if self._asked else (0, 0, 0)
        self._tell(
            ResponseEnded(
                self.number,
                reason,
                text,
                self._samples / self._rate,
                self._first_audio_s,
                self.playback.underruns,
                self.playback.underrun_s,
                steps,
                message,
                Usage(text_in, audio_in, cached, self._pieces.written, self._tokens),
                self._seconds,
            )
        )

    def _close(self) -> None:
        if self._answering is not None:
            self._answering.close()
        self._answering = None
