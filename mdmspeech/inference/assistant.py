"""What a user holds: an assistant that hears, answers and speaks. Everything streams; the
whole-answer calls collect a stream.

Parts are opened when they are first needed: `say` needs no Thinker, `hear` no voice.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mdmspeech.audio.files import name_of
from mdmspeech.audio.wave import Source
from mdmspeech.audio.writer import save_wave
from mdmspeech.errors import UserError
from mdmspeech.inference.fixed_anchor_synthesizer import FixedAnchorSynthesizer
from mdmspeech.inference.paced_synthesizer import PacedSynthesizer
from mdmspeech.inference.speech import Parts, Speech, Trace, Word, finish_timeline
from mdmspeech.inference.speech_frontend import EncodedSpeech, SpeechFrontend, load_waves
from mdmspeech.inference.thinker_runner import ThinkerRunner


@dataclasses.dataclass(frozen=True)
class TextEvent:
    """A piece of the answer's text, as soon as it is written. Pieces joined are the text."""

    text: str


@dataclasses.dataclass(frozen=True)
class AudioEvent:
    """Samples of the answer, float32 [N], as soon as they are final. Joined they are the audio."""

    audio: np.ndarray
    sample_rate: int


@dataclasses.dataclass(frozen=True)
class Reply:
    """A whole answer.

    Attributes:
      text; audio: float32 [N] at `sample_rate` Hz; tokens: speech tokens int32 [L]; stop_reason:
      why the speech ended ("length", "eos", ...).
      heard: what was understood, if the frontend writes it down (else None).
      words: when each word is spoken. trace: how the tokens were revealed.
      timeline: seconds of encoder, adaptor, thinker_prefill, thinker_decode, talker and codec;
        first_audio_s and total_s from the call on; until_first_audio: what the last three had taken
        by then; audio_s; real_time_factor.
    """

    text: str
    audio: np.ndarray
    sample_rate: int
    tokens: np.ndarray
    stop_reason: str
    heard: str | None
    words: tuple[Word, ...]
    trace: Trace
    timeline: dict[str, Any]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the audio (16-bit; .wav or .flac)."""
        save_wave(path, self.audio, self.sample_rate)


@dataclasses.dataclass(frozen=True)
class EndEvent:
    """The last event: the whole answer."""

    reply: Reply


Event = TextEvent | AudioEvent | EndEvent


class Assistant:
    """An opened model. Make one with `mdmspeech.load`.

    Args:
      name: of the release.
      voices, frontend, thinker: functions that open the parts, called once, when a part is first
        needed; voices by talker name ("mdm", "ntp").
    """

    def __init__(
        self,
        name: str,
        voices: Mapping[str, Callable[[], PacedSynthesizer | FixedAnchorSynthesizer]],
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

    def voice(self, talker: str = "mdm") -> PacedSynthesizer | FixedAnchorSynthesizer:
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
          talker: "mdm" (masked diffusion) or "ntp" (next token), if the release has it.
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
        """Speaks a text of any length, see `PacedSynthesizer.say`."""
        return self.voice(talker).say(text, **generation)

    def say_parts(self, text: str, *, talker: str = "mdm", **generation: Any) -> Parts:
        """Speaks a long text part by part, see `PacedSynthesizer.say_parts`."""
        return self.voice(talker).say_parts(text, **generation)

    def say_many(
        self, texts: Sequence[str], *, talker: str = "mdm", **generation: Any
    ) -> list[Speech]:
        """Speaks many texts in batches, see `PacedSynthesizer.say_many`."""
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

    def warm_up(self, talker: str = "mdm") -> None:
        """Opens and compiles what a short spoken question needs, so that the first answer is as
        fast as the others.
        """
        self.voice(talker).warm_up()
        self.thinker.warm_up()
        self.frontend.warm_up()

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
        stream = voice.stream(**generation)
        began = time.perf_counter()
        heard, understood = encode()
        asked = time.perf_counter()
        state = thinker.read([self._question(heard)])
        timeline: dict[str, Any] = {
            "encoder": heard.encoder_s, "adaptor": heard.adaptor_s,
            "thinker_prefill": time.perf_counter() - asked, "thinker_decode": 0.0,
        }  # fmt: skip
        text, first = "", None

        def speak(all_of_it: bool) -> Iterator[Event]:
            nonlocal first
            while stream.ready() if not all_of_it else not stream.done:
                audio = stream.step()
                if len(audio):
                    if first is None:
                        first = time.perf_counter() - began
                        timeline["until_first_audio"] = {
                            "thinker_decode": timeline["thinker_decode"],
                            **stream.seconds,
                        }
                    yield AudioEvent(audio, voice.codec.sample_rate)

        pieces = thinker.answer(state, states=voice.reads_states)
        while True:
            waited = time.perf_counter()
            piece = next(pieces, None)
            timeline["thinker_decode"] += time.perf_counter() - waited
            if piece is None:
                break
            if piece.text:
                text += piece.text
                yield TextEvent(piece.text)
            stream.push_delta(piece)
            yield from speak(False)
        stream.end()
        yield from speak(True)
        speech = stream.result()
        timeline |= {
            "talker": stream.seconds["talker"],
            "codec": stream.seconds["codec"],
            "first_audio_s": first,
        }
        total = time.perf_counter() - began
        timeline = finish_timeline(timeline, len(speech.audio), speech.sample_rate, total)
        trace = dataclasses.replace(
            speech.trace, ready_P=speech.trace.ready_P - np.float32(began - stream.began)
        )
        yield EndEvent(
            Reply(
                text.strip(),
                speech.audio,
                speech.sample_rate,
                speech.tokens,
                speech.stop_reason,
                understood,
                speech.words,
                trace,
                timeline,
            )
        )


def check_question(question: str) -> None:
    """A UserError for a typed question that is none."""
    if not isinstance(question, str):
        raise UserError(
            f"a typed question is a str, this is {type(question).__name__}; chat() "
            "and hear() take recordings"
        )
    if not any(character.isalnum() for character in question):
        raise UserError(
            f"there is no question in {question[:40]!r}: give words, for example "
            "'What is the capital of France?'"
        )
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise UserError(
            f"the question {question[:40]!r} has half a character in it (a lone "
            "surrogate); decode its bytes as UTF-8"
        )


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
