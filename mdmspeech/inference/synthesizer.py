"""What voices of all kinds of anchors share: how a `GenerationConfig` becomes a request, and how
texts of any length are spoken.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.decoding.state import FinishReason
from mdmspeech.errors import UserError
from mdmspeech.inference.conditioning import TextConditioner
from mdmspeech.inference.engine import TalkerEngine
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Parts, Speech, Trace, Word, finish_timeline
from mdmspeech.inference.utterance import SpokenSegment, Utterance, speak_whole
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.text.normalise import check_speakable

_TOGETHER = 64  # segments of many texts that are spoken in batches before the next ones
_PART = 4  # segments of one text that are spoken at a time
_SILENT = 50  # tokens of silence, where the speech may end, that end it too
_OF_ANCHORS = {
    "paced": "PacedSynthesizer",
    "fixed": "FixedAnchorSynthesizer",
    "prefix": "PrefixSynthesizer",
}


class SynthesisPlan(NamedTuple):
    """A text as utterances for the Talker. segments: whatever the voice speaks. texts: the words of
    each. words: all of them, where they are timed.
    """

    segments: Sequence[Any]
    texts: Sequence[str]
    words: Sequence[str]


class Synthesizer:
    """A Talker and a codec that speak. A voice's own class says what it makes of a text (`plan`),
    what the Talker hears of that (`heard`), and when its words are said (`words`).

    Attributes:
      anchors: of the Talkers that it speaks with. reads_states: whether it needs those of the
        Thinker that writes an answer. takes_pace: whether it can be told how fast to speak.

    Args:
      config, params, mode, options: the Talker, see `TalkerEngine`. codec: a `codec.base.Codec`
        whose tokens it speaks.

    Raises:
      UserError: a Talker with other anchors.
    """

    anchors: ClassVar[str]
    reads_states: bool = False
    takes_pace: bool = False

    def __init__(self, config: TalkerConfig, params: dict, codec: Codec, mode: str, **options):
        self._check_talker(config)
        self.engine, self.codec, self.mode, self.block = (
            TalkerEngine(config, params, mode, **options),
            codec,
            mode,
            config.block,
        )

    def plan(self, text: str) -> SynthesisPlan:
        """What is spoken of a text of any length that has something to say."""
        raise NotImplementedError

    def heard(
        self, segments: Sequence[Any], generation: GenerationConfig
    ) -> Sequence[TextConditioner]:
        """Segments that are complete, as the Talker hears them, each as it is heard alone."""
        raise NotImplementedError

    def stream(self, **generation: Any) -> Any:
        """A `SpeechStream` of a text that is still being written. Arguments and errors as of
        `say`.
        """
        raise NotImplementedError

    def warm_up(self, *, all: bool = False) -> None:
        """Compiles what a first answer needs; all: whatever any text and any number of them
        need.
        """
        raise NotImplementedError

    def words(
        self,
        words: Sequence[str],
        segments: Sequence[Any],
        spoken: Sequence[SpokenSegment],
        begin: float = 0.0,
    ) -> tuple[Word, ...]:
        """When the words of consecutive segments are spoken, the first segment from `begin` seconds
        on; none where nobody knows.
        """
        return ()

    def say(self, text: str, **generation: Any) -> Speech:
        """Speaks one text of any length.

        Args:
          generation: steps, seed, temperature, pace, vocoder, see `GenerationConfig`.

        Raises:
          UserError: nothing in it can be said, or an option is out of range.
        """
        return self.say_many([text], **generation)[0]

    def say_many(self, texts: Sequence[str], **generation: Any) -> list[Speech]:
        """Speaks many texts in batches; each comes out as it does alone. Arguments and errors as of
        `say`: a text that cannot be said is named first.
        """
        began = time.perf_counter()
        how = self.check(GenerationConfig.of(generation))
        _check(texts)
        plans = [self.plan(text) for text in texts]
        jobs = [(segment, number) for plan in plans for number, segment in enumerate(plan.segments)]
        said: list[SpokenSegment] = []
        for first in range(0, len(jobs), _TOGETHER):
            segments, numbers = zip(*jobs[first : first + _TOGETHER], strict=True)
            said += self._speak(segments, numbers, how)
        talker = time.perf_counter() - began
        rest = iter(said)
        groups = [[next(rest) for _ in plan.segments] for plan in plans]
        waves = self.codec_for(how).decode(
            [np.concatenate([one.tokens for one in group]) for group in groups]
        )
        total = time.perf_counter() - began
        timeline = {"talker": talker, "codec": total - talker}
        return [
            self.joined(
                text, self.words(plan.words, plan.segments, group), group, wave, timeline, total
            )
            for text, plan, group, wave in zip(texts, plans, groups, waves, strict=True)
        ]

    def say_parts(self, text: str, **generation: Any) -> Parts:
        """Speaks one text part by part, in memory that does not grow with it: `Parts`, which joined
        are what `say` gives. Arguments and errors as of `say`.
        """
        how = self.check(GenerationConfig.of(generation))
        _check([text])
        plan = self.plan(text)
        words = len(plan.words) or len(text.split())
        return Parts(
            -(-len(plan.segments) // _PART), words, self.codec.sample_rate, self._parts(plan, how)
        )

    def _parts(self, plan: SynthesisPlan, generation: GenerationConfig) -> Iterator[Speech]:
        codec, begin = self.codec_for(generation).stream(), 0.0
        for first in range(0, len(plan.segments), _PART):
            began = time.perf_counter()
            segments = plan.segments[first : first + _PART]
            numbers = range(first, first + len(segments))
            spoken = self._speak(segments, numbers, generation)
            talked = time.perf_counter()
            wave = codec.push(np.concatenate([one.tokens for one in spoken]))
            if numbers.stop == len(plan.segments):
                wave = np.concatenate([wave, codec.finish()])
            total = time.perf_counter() - began
            words, timeline = (
                self.words(plan.words, segments, spoken, begin),
                {"talker": talked - began, "codec": began + total - talked},
            )
            yield self.joined(
                " ".join(plan.texts[first : numbers.stop]), words, spoken, wave, timeline, total
            )
            begin += sum(len(one.tokens) for one in spoken) * self.token_seconds

    def _speak(
        self, segments: Sequence[Any], numbers: Sequence[int], generation: GenerationConfig
    ) -> list[SpokenSegment]:
        """Speaks segments in batches, each as it is spoken alone. numbers: of each in its text."""
        return self._spoken(self.heard(segments, generation), numbers, generation)

    def _spoken(
        self,
        texts: Sequence[TextConditioner],
        numbers: Sequence[int],
        generation: GenerationConfig,
    ) -> list[SpokenSegment]:
        return speak_whole(
            [partial(self.utterance, generation, *one) for one in zip(texts, numbers, strict=True)],
            [text.lasting for text in texts],
        )

    @property
    def token_seconds(self) -> float:
        """Seconds of speech a token."""
        return self.codec.token_samples / self.codec.sample_rate

    def check(self, generation: GenerationConfig) -> GenerationConfig:
        """The same config, or a UserError."""
        if generation.pace != 1.0 and not self.takes_pace:
            raise UserError(
                f"pace={generation.pace}: a Talker with {self.anchors} anchors finds its "
                "own pace; only one with paced anchors can be told"
            )
        if self.mode == "mdm" and generation.steps > self.block:
            raise UserError(
                f"steps={generation.steps}: a block has {self.block} tokens, so "
                f"{self.block} steps are the most"
            )
        self.codec_for(generation)
        return generation

    def codec_for(self, generation: GenerationConfig) -> Codec:
        """The codec with the settings of a request. UserError: settings that it does not have."""
        return self.codec.with_settings(**generation.vocoder) if generation.vocoder else self.codec

    def _check_talker(self, config: TalkerConfig) -> None:
        if config.anchors != self.anchors:
            raise UserError(
                f"a Talker with {config.anchors!r} anchors does not speak with a "
                f"{type(self).__name__}; use a {_OF_ANCHORS.get(config.anchors, 'known kind')}"
            )

    def check_length(self, length: float) -> None:
        """UserError: one utterance would have more than the most tokens."""
        if length > self.engine.longest:
            raise UserError(
                f"one sentence would last {length * self.token_seconds:.0f} s, the limit is "
                f"{self.engine.longest * self.token_seconds:.0f} s; write shorter sentences"
            )

    def utterance(
        self, generation: GenerationConfig, text: TextConditioner, number: int
    ) -> Utterance:
        """What speaks segment `number` of a text; each draws with its own seed."""
        return Utterance(
            self.engine,
            text,
            seed=(generation.seed * 1_000_003 + number) % 2**32,
            steps=generation.steps,
            temperature=generation.temperature,
        )

    def joined(
        self,
        text: str,
        words: tuple[Word, ...],
        spoken: Sequence[SpokenSegment],
        wave: np.ndarray,
        timeline: dict,
        total: float,
        ready: Sequence[float] = (),
    ) -> Speech:
        """What was said of one text. ready: when each block was decoded, seconds."""
        tokens = np.concatenate([s.tokens for s in spoken]) if spoken else np.zeros(0, np.int32)
        starts, at = [], 0
        for segment in spoken:
            starts += list(range(at, at + len(segment.tokens), self.block))
            at += len(segment.tokens)
        ready_P = np.array(ready if len(ready) else [0.0] * len(starts), np.float32)
        steps, confidence = (
            np.concatenate([getattr(s, name) for s in spoken]) if spoken else np.zeros(0)
            for name in ("steps", "confidence")
        )
        return Speech(
            text=text,
            audio=wave,
            sample_rate=self.codec.sample_rate,
            tokens=tokens.astype(np.int32),
            stop_reason=FinishReason(spoken[-1].reason).name.lower()
            if spoken
            else "nothing to say",
            words=words,
            trace=Trace(
                np.array(starts, np.int32),
                steps.astype(np.int32),
                confidence.astype(np.float32),
                ready_P,
            ),
            timeline=finish_timeline(timeline, len(wave), self.codec.sample_rate, total),
        )


def silence_guard(silence: Sequence[int]) -> dict[str, Any]:
    """Options of a `TalkerEngine` whose Talker finds its ends itself: a long silence (of these codes)
    is one too.
    """
    return {"silence_ids": tuple(silence), "max_silence": _SILENT} if silence else {}


def _check(texts: Sequence[str]) -> None:
    """UserError that names the first text with nothing to say, before any of them is spoken."""
    if isinstance(texts, str):
        raise UserError("say_many takes a list of texts; say takes one")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise UserError(
                f"text {number} of {len(texts)} is of type {type(text).__name__}: give a string"
            )
        try:
            check_speakable(text)
        except UserError as error:
            if len(texts) == 1:
                raise
            raise UserError(f"text {number} of {len(texts)}: {error}") from error
