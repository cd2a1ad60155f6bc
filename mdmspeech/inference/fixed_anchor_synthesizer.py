"""A voice with the paper's fixed anchors: it speaks what a Thinker writes, from [Emb(y); h] of each
token.

Source: docs/method.md, "Fixed anchors" and "Stop rules".

Block b of the speech needs the text tokens up to Q(b + 1) and never later ones, so it is decoded as
soon as the Thinker has written them, or has ended. Speech may not end before the block in which the
last text token, the end token, is an anchor; it ends at the first EOS then.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mdmspeech.codec.base import Codec
from mdmspeech.decoding.state import DecodedTokens
from mdmspeech.diffusion.layout import NO_END
from mdmspeech.errors import UserError
from mdmspeech.inference.engine import FixedInputs
from mdmspeech.inference.generation_config import GenerationConfig
from mdmspeech.inference.speech import Speech, Word
from mdmspeech.inference.speech_stream import SpeechStream
from mdmspeech.inference.symbols import cut
from mdmspeech.inference.synthesizer import BLOCKS, SpokenSegment, SynthesisPlan, Synthesizer
from mdmspeech.inference.thinker_runner import TextDelta, ThinkerRunner
from mdmspeech.models.talker import TalkerConfig
from mdmspeech.padding import batches, bucket, stack

TEXTS = (32, 64, 128, 256)  # padded lengths of a text, in tokens
_PART = 96  # tokens of a text that is spoken in one go: those of the longest answers
# speech tokens that a text token may take: words of two or three tokens a second are slow speech
_LONGEST = 16
_SPARE = 64  # speech tokens that any text may take besides
_SILENT = 50  # tokens of silence after the end of the text that end the speech too


class FixedAnchorSynthesizer(Synthesizer):
    """Speaks with a Talker that reads the states of one Thinker.

    Args:
      config, params, mode: a Talker with fixed anchors, see `TalkerEngine`. codec: whose tokens it
        speaks.
      thinker: the Thinker whose states it was trained on.
      silence: codes that sound like silence.

    Raises:
      UserError: a Talker with paced anchors, or one that reads states of another width.
    """

    reads_states = True

    def __init__(
        self,
        config: TalkerConfig,
        params: dict,
        codec: Codec,
        thinker: ThinkerRunner,
        *,
        mode: str = "mdm",
        silence: Sequence[int] = (),
    ):
        if config.anchors != "fixed":
            raise UserError(
                f"a Talker with {config.anchors!r} anchors reads text, not states; "
                "use a PacedSynthesizer"
            )
        if config.text_dim != 2 * thinker.width:
            raise UserError(
                f"the Talker reads [Emb(y); h] of width {config.text_dim}, this Thinker makes "
                f"{2 * thinker.width}: use the Thinker it was trained with"
            )
        guard = {"silence_ids": tuple(silence), "max_silence": _SILENT} if silence else {}
        super().__init__(config, params, codec, mode, **guard)
        self.thinker = thinker

    def plan(self, text: str) -> SynthesisPlan:
        """Parts of the text, each of which the Thinker reads as an answer to the request to repeat it."""
        parts = list(self._parts_of(text))
        return SynthesisPlan(parts, parts, ())

    def words(
        self,
        words: Sequence[str],
        segments: Sequence[str],
        spoken: Sequence[SpokenSegment],
        begin: float = 0.0,
    ) -> tuple[Word, ...]:
        """None: nobody knows when this Talker says them."""
        return ()

    def stream(self, **generation: Any) -> "FixedAnchorStream":
        """A `FixedAnchorStream`: let it follow the pieces of an answer, take samples. Arguments and
        errors as of `say`.
        """
        return FixedAnchorStream(self, self.check(GenerationConfig.of(generation)))

    def warm_up(self) -> None:
        """Compiles what a first answer needs."""
        (states,) = self.thinker.hidden_states_of(["Yes."])
        stream = self.stream()
        stream.push_delta(TextDelta("Yes.", True, 1, states, last=True))
        while not stream.done:
            stream.step()

    def check(self, generation: GenerationConfig) -> GenerationConfig:
        """The same config, or a UserError: the speech's length is the Talker's own."""
        if generation.pace != 1.0:
            raise UserError(
                f"pace={generation.pace}: a Talker with fixed anchors finds its "
                "own pace; only one with paced anchors can be told"
            )
        return super().check(generation)

    def earliest_end(self, count: int) -> int:
        """First position of the block in which the last of `count` text tokens stands."""
        return (max(count, 1) - 1) // self.engine.config.anchors_per_block * self.block

    def allowance(self, count: int) -> int:
        """Speech tokens that `count` text tokens may take, at most."""
        return _LONGEST * count + _SPARE

    def _parts_of(self, text: str) -> Iterator[str]:
        """The text if it is no longer than answers are, else its pieces, put together as long as
        they are no longer.
        """
        if self._fits(text):
            yield text
            return
        over, last = cut(text)
        part = ""
        for piece in (one for whole in [*over, last] for one in self._halves(whole.strip())):
            if part and not self._fits(f"{part} {piece}"):
                yield part
                part = piece
            else:
                part = f"{part} {piece}".strip()
        yield part

    def _halves(self, piece: str) -> Iterator[str]:
        """The piece, or what it has to be cut into."""
        if self._fits(piece) or len(piece) == 1:
            yield from [piece] * bool(piece)
        else:
            middle = max(piece.find(" ", len(piece) // 2), len(piece) // 2)
            yield from self._halves(piece[:middle].strip())
            yield from self._halves(piece[middle:].strip())

    def _fits(self, text: str) -> bool:
        return len(self.thinker.tokenizer.encode(text)) <= _PART

    def _speak(
        self, segments: Sequence[str], numbers: Sequence[int], generation: GenerationConfig
    ) -> list[SpokenSegment]:
        states = self.thinker.hidden_states_of(segments)
        spoken: dict[int, SpokenSegment] = {}
        for rows, width, size in batches([len(row) for row in states], TEXTS):
            text, valid = stack([states[i] for i in rows], width, size)
            count_B = valid.sum(axis=1).astype(np.int32)
            allowed_B = np.array([self.allowance(n) for n in count_B])
            request = self.request(
                generation,
                [*(numbers[i] for i in rows), *[0] * (size - len(rows))],
                # rows that only fill the batch have length 0
                target_len=np.where(count_B > 0, -1, 0),
                min_len=np.array([self.earliest_end(n) for n in count_B]),
                max_len=allowed_B,
            )
            blocks = self.room(min(allowed_B.max(), BLOCKS[-1] * self.block))
            result = self.engine.decode(
                FixedInputs(self.engine.fuse(text), count_B), request, blocks
            )
            spoken |= {
                i: SpokenSegment.of(result, b, np.zeros(0, np.float32)) for b, i in enumerate(rows)
            }
        return [spoken[i] for i in range(len(segments))]


class FixedAnchorStream(SpeechStream):
    """Speaks an answer while the Thinker writes it: `push_delta` its pieces and `end`; while
    `ready()`, `step()` returns samples; `result()` when `done`.
    """

    def __init__(self, voice: FixedAnchorSynthesizer, generation: GenerationConfig):
        super().__init__(voice, generation)
        self._voice, self._engine = voice, voice.engine
        self._fused = np.zeros((1, TEXTS[-1], self._engine.config.dim), np.float32)
        self._count, self._blocks, self._ended = 0, 0, False
        self._room = BLOCKS[0]
        self._state = self._engine.begin(voice.request(generation, [0], min_len=NO_END), self._room)
        self._tokens: list[DecodedTokens] = []

    def push_delta(self, piece: TextDelta) -> None:
        """The next piece of the answer, with its states. UserError: the answer has grown too long."""
        self._pieces.append(piece.text)
        self._ended |= piece.last
        if piece.states is None:
            return
        began = time.perf_counter()
        count = self._count + len(piece.states)
        if count > TEXTS[-1]:
            raise UserError(
                f"the answer has more than {TEXTS[-1]} tokens, the most that can be "
                "spoken in one go; ask for a shorter one"
            )
        self._fused[:, self._count : count] = self._engine.fuse(piece.states[None])
        self._count = count
        self.seconds["talker"] += time.perf_counter() - began

    def end(self) -> None:
        """There is no more text."""
        self._ended = True

    def ready(self) -> bool:
        """Whether `step` can go on now."""
        enough = self._count >= (self._blocks + 1) * self._engine.config.anchors_per_block
        return not self.done and (self._ended or enough)

    def result(self) -> Speech:
        """All that was said so far (everything, once `done`)."""
        kept = [
            [np.asarray(getattr(t, name))[0, : int(t.count_B[0])] for t in self._tokens]
            for name in ("ids_BL", "step_BL", "confidence_BL")
        ]
        tokens, steps, confidence = (
            np.concatenate([np.zeros(0, np.float32), *parts]) for parts in kept
        )
        segment = SpokenSegment(
            tokens, steps, confidence, np.zeros(0, np.float32), int(self._state.reason_B[0])
        )
        return self._so_far((), [segment] if self._tokens else [])

    def _next(self) -> tuple[np.ndarray, bool]:
        return self._block() if self._count else (np.zeros(0, np.int32), True)

    def _block(self) -> tuple[np.ndarray, bool]:
        """(the next block's tokens, whether the speech is over)."""
        voice = self._voice
        if (self._blocks + 1) * voice.block >= self._room * voice.block and self._room < BLOCKS[-1]:
            self._room = bucket(self._room + 1, BLOCKS)
            self._state = self._engine.grow(self._state, self._room)
        if self._ended:
            ends = {
                "min_len_B": voice.earliest_end(self._count),
                "max_len_B": voice.allowance(self._count),
            }
            request = dataclasses.replace(
                self._state.request,
                **{name: jnp.full(1, value, jnp.int32) for name, value in ends.items()},
            )
            self._state = dataclasses.replace(self._state, request=request)
        self._state, tokens = self._engine.block(
            FixedInputs(self._fused, np.array([self._count], np.int32)), self._state
        )
        self._blocks += 1
        self._tokens.append(tokens)
        return np.asarray(tokens.ids_BL[0, : int(tokens.count_B[0])]), bool(self._state.done_B[0])
