"""What a user holds: an assistant that hears, answers and speaks. Everything streams; the
whole-answer calls collect a stream.

Parts are opened when they are first needed: `say` needs no Thinker, `hear` no voice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np

from mdmspeech.audio.files import name_of
from mdmspeech.audio.wave import Source
from mdmspeech.errors import UserError
from mdmspeech.inference.answering import Answering
from mdmspeech.inference.questions import check_question
from mdmspeech.inference.reply import AudioEvent, EndEvent, Event, Reply, TextEvent
from mdmspeech.inference.session import Session
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_loop import SessionLoop
from mdmspeech.inference.speech import Parts, Speech
from mdmspeech.inference.speech_frontend import EncodedSpeech, SpeechFrontend, load_waves
from mdmspeech.inference.synthesizer import Synthesizer
from mdmspeech.inference.thinker_runner import TextDelta, ThinkerRunner

__all__ = ["Assistant", "AudioEvent", "EndEvent", "Event", "Reply", "TextEvent", "check_question"]


class Assistant:
    """An opened model. Make one with `mdmspeech.load`.

    Attributes:
      sessions: those that are open, see `session`.

    Args:
      name: of the release.
      voices, frontend, thinker: functions that open the parts, called once, when a part is first
        needed; voices by talker name, such as "mdm".
    """

    def __init__(
        self,
        name: str,
        voices: Mapping[str, Callable[[], Synthesizer]],
        frontend: Callable[[], SpeechFrontend],
        thinker: Callable[[], ThinkerRunner],
    ):
        self.name = name
        self._open: dict[str, Callable[[], Any]] = {
            "frontend": frontend,
            "thinker": thinker,
            **{f"voice {key}": make for key, make in voices.items()},
        }
        self._parts: dict[str, Any] = {}
        self.sessions = SessionLoop(self)

    @property
    def frontend(self) -> SpeechFrontend:
        """Wave -> what the Thinker reads."""
        return self._part("frontend")

    @property
    def thinker(self) -> ThinkerRunner:
        """The Thinker."""
        return self._part("thinker")

    @property
    def talkers(self) -> tuple[str, ...]:
        """Names that `talker=` takes."""
        return tuple(key.removeprefix("voice ") for key in self._open if key.startswith("voice "))

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the voices it can speak in. A release has one, called as the release is."""
        return (self.name,)

    @property
    def sample_rate(self) -> int:
        """Of all that it speaks, in Hz."""
        return self._first_voice().codec.sample_rate

    @property
    def block(self) -> int:
        """Speech tokens that are decoded at once, and so the grain in which it speaks."""
        return self._first_voice().block

    def voice(self, talker: str = "mdm") -> Synthesizer:
        """The voice of one Talker."""
        if talker not in self.talkers:
            raise UserError(
                f"release {self.name!r} has no talker {talker!r}; it has "
                f"{', '.join(self.talkers) or 'none'}"
            )
        return self._part(f"voice {talker}")

    def chat(self, question: Source, **generation: Any) -> Reply:
        """Hears a spoken question (path, array or (array, rate)) and answers it aloud.
        `generation`: see `stream`.
        """
        return _last(self.stream(question, **generation))

    def answer(self, question: str, **generation: Any) -> Reply:
        """Answers a typed question aloud. `generation`: see `stream`. UserError: no question in it,
        or more than the Thinker reads at once.
        """
        check_question(question)
        return _last(
            self._events(lambda: (EncodedSpeech(None, question, 0.0, 0.0), None), **generation)
        )

    def stream(
        self,
        question: Source,
        *,
        steps: int = 4,
        seed: int = 0,
        talker: str = "mdm",
        temperature: float = 0.0,
        pace: float = 1.0,
        vocoder: Mapping[str, Any] | None = None,
    ) -> Iterator[Event]:
        """Yields `TextEvent`s and `AudioEvent`s of the answer as they are ready, then one
        `EndEvent`.

        Args:
          question: path, open file or stream, array [N] at 16 kHz, or (array, rate); 0.1 to 30 s.
            See `audio.wave.load_wave`.
          steps: forwards a block of speech: 1 is fastest, 4 the default, 16 the most.
          talker: "mdm" (masked diffusion), or a baseline that the release has: "ntp" (next token),
            "mtp" (several a forward), "mtp_verified" (those checked: the tokens of its next-token head).
          temperature, seed: of the speech tokens; 0 takes the best everywhere. pace: 1.25 speaks a
            quarter faster.
          vocoder: settings of the codec: CosyVoice2's takes {"steps": 4}, 10 being the most that
            pays, and "guidance".

        Raises:
          UserError: a question that cannot be read (at once, before any part is opened), no speech
            in it, or an option out of range.
        """
        (wave,), name = load_waves([question]), name_of(question)

        def encode():
            heard = self.frontend.encode(wave)
            if heard.transcript == "":
                raise UserError(_nothing_in(name))
            return heard, heard.transcript

        return self._events(
            encode,
            steps=steps,
            seed=seed,
            talker=talker,
            temperature=temperature,
            pace=pace,
            vocoder=vocoder,
        )

    def say(self, text: str, *, talker: str = "mdm", **generation: Any) -> Speech:
        """Speaks a text of any length, see `Synthesizer.say`."""
        return self.voice(talker).say(text, **generation)

    def say_parts(self, text: str, *, talker: str = "mdm", **generation: Any) -> Parts:
        """Speaks a long text part by part, see `Synthesizer.say_parts`."""
        return self.voice(talker).say_parts(text, **generation)

    def say_many(
        self, texts: Sequence[str], *, talker: str = "mdm", **generation: Any
    ) -> list[Speech]:
        """Speaks many texts in batches, see `Synthesizer.say_many`."""
        return self.voice(talker).say_many(texts, **generation)

    def hear(self, question: Source) -> str:
        """The answer to a spoken question, as text. UserError: as `stream`."""
        return self.hear_many([question])[0]

    def hear_many(self, questions: Sequence[Source], unheard: str | None = None) -> list[str]:
        """The answers to spoken questions, as text, in batches.

        Args:
          unheard: what stands for the answer where no speech is heard (default: a UserError that
            names the recording).
        """
        heard = self._heard(questions, unheard)
        spoken = [number for number, one in enumerate(heard) if one.transcript != ""]
        answers = dict(
            zip(
                spoken,
                self.thinker.answer_many([self._question(heard[number]) for number in spoken]),
                strict=True,
            )
        )
        return [answers.get(number, unheard or "") for number in range(len(heard))]

    def answer_many(self, questions: Sequence[str]) -> list[str]:
        """The answers to typed questions, as text, in batches. UserError: as `answer`, with the
        number of the question.
        """
        if isinstance(questions, (str, bytes)):
            raise UserError(
                "many questions are asked for, this is one; give a list, or use answer() for one"
            )
        questions, read = list(questions), []
        for number, question in enumerate(questions, 1):
            try:
                check_question(question)
                read.append(self.thinker.question(question))
            except UserError as error:
                raise UserError(
                    f"question {number} of {len(questions)}: {error}"
                    if len(questions) > 1
                    else str(error)
                ) from error
        return self.thinker.answer_many(read)

    def transcript(self, question: Source) -> str:
        """What is understood. UserError if its adaptor makes vectors and no text, or as `stream`."""
        return self.transcripts([question])[0]

    def transcripts(self, questions: Sequence[Source], unheard: str | None = None) -> list[str]:
        """`transcript` of many, in batches. unheard: as `hear_many`."""
        heard = self._heard(questions, unheard)
        texts = [one.transcript or unheard or "" for one in heard if one.transcript is not None]
        if len(texts) < len(heard):
            raise UserError(
                f"the adaptor of release {self.name!r} makes vectors, not text; use "
                "hear() for an answer"
            )
        return texts

    def warm_up(self, talker: str = "mdm", *, seconds: float = 3.0, all: bool = False) -> None:
        """Opens and compiles what a spoken question of `seconds` needs, so that the first answer is
        as fast as the others. all: whatever any question, text and number of sessions needs, which
        takes minutes at the first time; where programs are kept, later starts find it.
        """
        jobs: list[Callable[[], None]] = [
            lambda: self.voice(talker).warm_up(all=all),
            lambda: self.thinker.warm_up(all=all),
            lambda: self.frontend.warm_up(None if all else (seconds,)),
        ]
        # opening is mostly XLA's work, which is done outside Python
        with ThreadPoolExecutor(len(jobs)) as pool:
            for done in [pool.submit(copy_context().run, job) for job in jobs]:
                done.result()

    def session(self, config: SessionConfig | None = None, **settings: Any) -> Session:
        """A conversation that listens, thinks and speaks at the same time: push sound or text, read
        its `events`. All sessions of an assistant share one thread.

        Args:
          config, settings: a `SessionConfig`, or some of its fields.

        Raises:
          UserError: a setting out of range. TryAgainError: too many are open.
        """
        return self.sessions.open((config or SessionConfig()).updated(settings))

    def _first_voice(self) -> Synthesizer:
        return self.voice(self.talkers[0] if self.talkers else "mdm")

    def _part(self, key: str) -> Any:
        if key not in self._parts:
            self._parts[key] = self._open[key]()
        return self._parts[key]

    def _heard(self, questions: Sequence[Source], unheard: str | None) -> list[EncodedSpeech]:
        """What was heard of each; a UserError for the first without speech unless something stands
        for it.
        """
        waves = load_waves(questions)  # a bad one is an error before any part is opened
        heard = self.frontend.encode_many(waves)
        for number, (one, question) in enumerate(zip(heard, questions, strict=True), 1):
            if one.transcript == "" and unheard is None:
                raise UserError(
                    (f"recording {number} of {len(heard)}: " if len(heard) > 1 else "")
                    + _nothing_in(name_of(question))
                )
        return heard

    def _question(self, heard: EncodedSpeech) -> np.ndarray:
        return self.thinker.question(heard.transcript, heard.vectors)

    def _events(
        self,
        encode: Callable[[], tuple[EncodedSpeech, str | None]],
        *,
        talker: str = "mdm",
        **generation: Any,
    ) -> Iterator[Event]:
        voice, thinker = self.voice(talker), self.thinker  # opened before the clock starts

        def ask(heard: EncodedSpeech) -> Iterator[TextDelta]:
            state = thinker.read([self._question(heard)])
            said = thinker.tokenizer.encode(heard.transcript or "")
            return thinker.answer(state, voice.reads_states, said)

        answering = Answering(voice, encode, ask, voice.stream(**generation))
        try:
            yield from (event for event in answering if event is not None)
        finally:  # also if nobody wants the rest
            answering.close()


def _nothing_in(name: str) -> str:
    return (
        f"no speech heard in {name}; speak closer to the microphone, or check that "
        "this is the right recording"
    )


def _last(events: Iterator[Event]) -> Reply:
    for event in events:
        if isinstance(event, EndEvent):
            return event.reply
    raise RuntimeError("a stream without an end")
