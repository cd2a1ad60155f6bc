"""One utterance from text to tokens: what its text lets it say, what it has said."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mdmspeech.decoding.state import FinishReason
from mdmspeech.diffusion.layout import NO_END
from mdmspeech.inference.conditioning import TextConditioner
from mdmspeech.inference.engine import ROWS, NewTokens, TalkerEngine

_TOGETHER = 8  # blocks between two looks at who has ended


@dataclasses.dataclass(frozen=True)
class SpokenSegment:
    """Decoded tokens of one segment [L], the step and confidence of each, its symbols' durations
    [M] in tokens, a `FinishReason`.
    """

    tokens: np.ndarray
    steps: np.ndarray
    confidence: np.ndarray
    durations: np.ndarray
    reason: int


class Utterance:
    """A text, a row of the engine and the tokens so far.

    Attributes:
      steps: of the blocks to come; None = as asked for.

    Args:
      text: what is heard, perhaps still growing. asked: seed, steps, temperature.
    """

    def __init__(self, engine: TalkerEngine, text: TextConditioner, **asked):
        self.text, self.engine, self.row = text, engine, engine.open(**asked, min_len=NO_END)
        self.steps: int | None = None
        self._told: dict[str, int] = {}
        self._out: list[NewTokens] = []

    def ready(self) -> bool:
        """Whether the next block can be decoded."""
        return not self.finished and self.text.ready(self.row.blocks)

    @property
    def finished(self) -> bool:
        """Whether its last token is out."""
        # It may have been said already when the end of the text came to be known.
        length = self.text.limits().get("target_len")
        return self.row.done or (length is not None and self.row.length >= length)

    def close(self) -> None:
        """No more of it is decoded; what has been said stays."""
        self.engine.close(self.row)

    def ended(self) -> SpokenSegment:
        """What has been said; no more is."""
        self.close()
        return self.spoken()

    def prepare(self) -> None:
        """Tells the engine what is new before the next block."""
        known = self.text.limits() | ({} if self.steps is None else {"steps": self.steps})
        if new := {k: v for k, v in known.items() if self._told.get(k) != v}:
            self.engine.ask(self.row, **new)
            self._told |= new

    def take(self, tokens: NewTokens) -> None:
        """The next tokens, from the engine."""
        self._out.append(tokens)

    def spoken(self) -> SpokenSegment:
        """What is out so far."""
        empty = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
        tokens, steps, confidence = map(np.concatenate, zip(empty, *self._out, strict=True))
        at_its_end = self.finished and not self.row.done
        reason = FinishReason.LENGTH if at_its_end else self.row.reason
        return SpokenSegment(tokens, steps, confidence, self.text.durations, int(reason))


def advance(utterances: Sequence[Utterance], blocks: int = 1) -> list[np.ndarray]:
    """Decodes the next blocks of utterances of one engine, together; returns the new tokens of
    each.
    """
    for one in utterances:
        one.prepare()
    rows, texts = [one.row for one in utterances], [one.text.inputs for one in utterances]
    tokens = utterances[0].engine.advance(rows, texts, blocks) if utterances else []
    for one, new in zip(utterances, tokens, strict=True):
        one.take(new)
    return [new.ids_N for new in tokens]


def speak_whole(
    openers: Sequence[Callable[[], Utterance]], lengths: Sequence[float]
) -> list[SpokenSegment]:
    """Speaks utterances whose texts are complete to their ends, at most `ROWS[-1]` at a time: where
    one ends, the next begins.

    Args:
      openers: make the utterances, each when there is room for it. lengths: of each, about, in
        tokens: those of like lengths are spoken together.
    """
    spoken: dict[int, SpokenSegment] = {}
    waiting = sorted(range(len(openers)), key=lambda i: lengths[i], reverse=True)
    speaking: dict[int, Utterance] = {}
    while waiting or speaking:
        while waiting and len(speaking) < ROWS[-1]:
            number = waiting.pop()
            speaking[number] = openers[number]()
        for number in [n for n, one in speaking.items() if one.finished]:
            spoken[number] = speaking.pop(number).ended()
        advance(list(speaking.values()), blocks=_TOGETHER)
    return [spoken[i] for i in range(len(openers))]
