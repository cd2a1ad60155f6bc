"""A voice: text -> symbols -> durations and conditions -> speech tokens, block by block -> samples.

`say` and `say_many` speak whole texts, in batches; `stream` (voice_stream.py) speaks a text that is still being written. `Voice` has paced anchors and
reads the text itself; state_voice.py has the one with the paper's fixed anchors, which reads the Thinker's states.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.codec.buckets import ROWS, batches, bucket, stack
from mdmspeech.diffusion.state import Reason, Request, Result
from mdmspeech.errors import UserError
from mdmspeech.inference.engine import Paced, TalkerEngine, known_length
from mdmspeech.inference.speech import Speech, Trace, Word, finish_timeline
from mdmspeech.inference.symbols import Segment, SymbolStream, read_text
from mdmspeech.models.anchors import MIN_DURATION
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.text.normalise import normalise
from mdmspeech.text.pronounce import Spoken, pronouncer

SYMBOLS = (96, 192, 512)  # padded lengths of a segment
BLOCKS = (8, 16, 32, 64)  # padded lengths of its speech
PACES = (0.5, 2.0)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How to speak.

    Attributes:
      steps: forwards a block, 1 (fastest) to the block size. A next-token Talker ignores it.
      seed, temperature: 0 takes the best token everywhere; above it tokens are drawn, reproducibly.
      pace: 1.25 speaks a quarter faster.
      vocoder: settings of the codec for this request, see its `with_settings`; CosyVoice2's has {"steps": 4, "guidance": 0.7} and more.
    """

    steps: int = 4
    seed: int = 0
    temperature: float = 0.0
    pace: float = 1.0
    vocoder: Mapping[str, Any] | None = None

    def __post_init__(self):
        if not isinstance(self.steps, int) or self.steps < 1:
            raise UserError(f"steps={self.steps}: give a whole number from 1 to the block size")
        if not 0 <= self.temperature <= 5:
            raise UserError(f"temperature={self.temperature}: give 0 (the best token) to 5")
        if not PACES[0] <= self.pace <= PACES[1]:
            raise UserError(f"pace={self.pace}: give {PACES[0]} (slow) to {PACES[1]} (fast)")


def pronounce_text(text: str) -> Spoken:
    """The symbols of any written text, numbers and signs included."""
    return pronouncer()(normalise(text))


class Speaker:
    """What voices of both kinds of anchors share: a Talker, a codec, and how a `Manner` becomes a request.

    Args:
      config, params, mode, options: the Talker, see `TalkerEngine`. codec: a `codec.base.Codec` whose tokens it speaks.
    """

    def __init__(self, config: TalkerConfig, params: dict, codec: Codec, mode: str, **options):
        self.engine, self.codec, self.mode, self.block = TalkerEngine(config, params, mode, **options), codec, mode, config.block

    @property
    def token_seconds(self) -> float:
        """Seconds of speech a token."""
        return self.codec.token_samples / self.codec.sample_rate

    def check(self, manner: Manner) -> Manner:
        """The same manner, or a UserError."""
        if self.mode == "mdm" and manner.steps > self.block:
            raise UserError(f"steps={manner.steps}: a block has {self.block} tokens, so {self.block} steps are the most")
        self.codec_for(manner)
        return manner

    def codec_for(self, manner: Manner) -> Codec:
        """The codec with the settings of a request. UserError: settings that it does not have."""
        return self.codec.with_settings(**manner.vocoder) if manner.vocoder else self.codec

    def room(self, length: int) -> int:
        """Blocks to make room for `length` tokens. UserError: more than the largest."""
        blocks = -(-length // self.block)
        if blocks > BLOCKS[-1]:
            limit = BLOCKS[-1] * self.block * self.token_seconds
            raise UserError(
                f"one sentence would last {length * self.token_seconds:.0f} s, the limit is {limit:.0f} s; write shorter sentences"
            )
        return bucket(max(blocks, 1), BLOCKS)

    def request(self, manner: Manner, numbers: Sequence[int], **lengths) -> Request:
        """What the decoder is asked for; segment n of a text draws with its own seed. lengths: see `Request.create`."""
        seeds = [(manner.seed * 1_000_003 + n) % 2**32 for n in numbers]
        return Request.create(len(numbers), seed=np.array(seeds, np.uint32), steps=manner.steps, temperature=manner.temperature, **lengths)

    def joined(
        self,
        text: str,
        words: tuple[Word, ...],
        spoken: Sequence["SpokenSegment"],
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
            np.concatenate([getattr(s, name) for s in spoken]) if spoken else np.zeros(0) for name in ("steps", "confidence")
        )
        return Speech(
            text=text,
            audio=wave,
            sample_rate=self.codec.sample_rate,
            tokens=tokens.astype(np.int32),
            stop_reason=Reason(spoken[-1].reason).name.lower() if spoken else "nothing to say",
            words=words,
            trace=Trace(np.array(starts, np.int32), steps.astype(np.int32), confidence.astype(np.float32), ready_P),
            timeline=finish_timeline(timeline, len(wave), self.codec.sample_rate, total),
        )


class Voice(Speaker):
    """Speaks text with one Talker and one codec.

    Args:
      config, params, mode: a Talker with paced anchors, see `TalkerEngine`.
      codec: a `codec.base.Codec` whose tokens the Talker speaks.
      pronounce: text -> `Spoken`.
      silence: codes that sound like silence.

    Raises:
      UserError: a Talker with fixed anchors.
    """

    reads_states = False

    def __init__(
        self,
        config: TalkerConfig,
        params: dict,
        codec: Codec,
        *,
        mode: str = "mdm",
        pronounce: Callable[[str], Spoken] = pronounce_text,
        silence=(),
    ):
        if config.anchors != "paced":
            raise UserError(
                f"a Talker with {config.anchors!r} anchors reads Thinker states and cannot speak text by itself; use a StateVoice"
            )
        super().__init__(config, params, codec, mode, silence_ids=tuple(silence))
        self.pronounce = pronounce

    def say(
        self, text: str, *, steps: int = 4, seed: int = 0, temperature: float = 0.0, pace: float = 1.0, vocoder: Mapping | None = None
    ) -> Speech:
        """Speaks one text in a `Manner`. UserError: nothing in it can be said, or one sentence of it is too long."""
        return self.say_many([text], steps=steps, seed=seed, temperature=temperature, pace=pace, vocoder=vocoder)[0]

    def say_many(
        self,
        texts: Sequence[str],
        *,
        steps: int = 4,
        seed: int = 0,
        temperature: float = 0.0,
        pace: float = 1.0,
        vocoder: Mapping | None = None,
    ) -> list[Speech]:
        """Speaks many texts in batches; each comes out as it does alone."""
        began = time.perf_counter()
        manner = self.check(Manner(steps, seed, temperature, pace, vocoder))
        read = [read_text(self.pronounce, text) for text in texts]
        for text, stream in zip(texts, read, strict=True):
            if not stream.words:
                raise UserError(f"there is nothing to say in {text[:40]!r}; give words")
        segments = [segment for stream in read for segment in stream.segments]
        numbers = [n for stream in read for n in range(len(stream.segments))]
        spoken = self._speak(segments, numbers, manner)
        talker = time.perf_counter() - began
        joined, at = [], 0
        for stream in read:
            joined.append(spoken[at : at + len(stream.segments)])
            at += len(stream.segments)
        waves = self.codec_for(manner).decode([np.concatenate([s.tokens for s in group]) for group in joined])
        total = time.perf_counter() - began
        timeline = {"talker": talker, "codec": total - talker}
        said = zip(texts, read, joined, waves, strict=True)
        return [self.joined(text, self.words(stream, spoken), spoken, wave, timeline, total) for text, stream, spoken, wave in said]

    def tokens_at(self, symbols: Sequence[np.ndarray], durations: Sequence[np.ndarray], steps: int = 4) -> list[np.ndarray]:
        """Speech tokens int32 [L] of symbols [M] spoken at given durations (speech tokens, float [M]) instead of the Talker's own; L is their sum, rounded up."""
        segments = [Segment(row.tolist(), [-1] * len(row), True) for row in symbols]
        spoken = self._speak(segments, [0] * len(segments), self.check(Manner(steps)), durations)
        return [np.asarray(one.tokens, np.int32) for one in spoken]

    def stream(self, *, steps: int = 4, seed: int = 0, temperature: float = 0.0, pace: float = 1.0, vocoder: Mapping | None = None):
        """A `VoiceStream`: feed it text, take samples."""
        from mdmspeech.inference.voice_stream import VoiceStream

        return VoiceStream(self, self.check(Manner(steps, seed, temperature, pace, vocoder)))

    def warm_up(self, *, batch: bool = False) -> None:
        """Compiles what a first sentence needs, streamed and whole (`batch`: batches, too), so that calls are fast from the first on."""
        text = "This is a sentence."
        stream = self.stream()
        stream.end(text)
        while not stream.done:
            stream.step()
        for count in ROWS if batch else ROWS[:1]:
            self.say_many([text] * count)

    def paced(self, durations: np.ndarray, manner: Manner) -> np.ndarray:
        """Durations at the wanted pace."""
        return np.maximum(durations / np.float32(manner.pace), np.float32(MIN_DURATION)) if manner.pace != 1.0 else durations

    def _speak(
        self, segments: Sequence[Segment], numbers: Sequence[int], manner: Manner, given: Sequence[np.ndarray] | None = None
    ) -> list["SpokenSegment"]:
        features: list[np.ndarray] = [np.zeros(0)] * len(segments)
        durations: list[np.ndarray] = [np.zeros(0)] * len(segments)
        for rows, width, size in batches([len(s.symbols) for s in segments], SYMBOLS):
            symbols, valid = stack([np.array(segments[i].symbols, np.int32) for i in rows], width, size)
            out, lengths = self.engine.read(symbols, valid)
            for b, i in enumerate(rows):
                count = len(segments[i].symbols)
                features[i] = out[b, :count]
                durations[i] = self.paced(lengths[b, :count], manner) if given is None else np.asarray(given[i], np.float32)
        totals = [known_length(row) for row in durations]
        rooms = [self.room(total) for total in totals]
        spoken: dict[int, SpokenSegment] = {}
        for rows, blocks, size in batches(rooms, BLOCKS):
            width = bucket(max(len(durations[i]) for i in rows), SYMBOLS)
            placed, valid = stack([features[i] for i in rows], width, size)
            lasting, _ = stack([durations[i] for i in rows], width, size)
            spare = size - len(rows)  # rows that only fill the batch have length 0
            lengths = np.array([totals[i] for i in rows] + [0] * spare)
            request = self.request(manner, [numbers[i] for i in rows] + [0] * spare, target_len=lengths)
            result = self.engine.decode(Paced(placed, lasting, valid), request, blocks)
            for b, i in enumerate(rows):
                spoken[i] = SpokenSegment.of(result, b, durations[i])
        return [spoken[i] for i in range(len(segments))]

    def words(self, read: SymbolStream, spoken: Sequence["SpokenSegment"]) -> tuple[Word, ...]:
        """When each word is spoken: from the first to the last of its symbols."""
        begin, end, offset = {}, {}, 0.0
        for segment, said in zip(read.segments, spoken, strict=False):
            times = np.concatenate([[0.0], np.cumsum(said.durations, dtype=np.float64)]) * self.token_seconds + offset
            for m, word in enumerate(segment.owner[: len(said.durations)]):
                if word >= 0:
                    begin.setdefault(word, float(times[m]))
                    end[word] = float(times[m + 1])
            offset += len(said.tokens) * self.token_seconds
        return tuple(Word(read.words[word], begin[word], end[word]) for word in sorted(begin))


@dataclasses.dataclass(frozen=True)
class SpokenSegment:
    """Decoded tokens of one segment [L], the step and confidence of each, its symbols' durations [M] in tokens, a `Reason`."""

    tokens: np.ndarray
    steps: np.ndarray
    confidence: np.ndarray
    durations: np.ndarray
    reason: int

    @classmethod
    def of(cls, result: Result, row: int, durations: np.ndarray) -> "SpokenSegment":
        """One row of what the decoder gave."""
        kept = (row, slice(0, int(result.count_B[row])))
        tokens, steps, confidence = (np.asarray(x[kept]) for x in (result.ids_BL, result.step_BL, result.confidence_BL))
        return cls(tokens, steps, confidence, durations, int(result.reason_B[row]))
