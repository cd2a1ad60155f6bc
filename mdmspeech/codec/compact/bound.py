"""The compact codec with its parameters, behind the `Codec` interface: compiled functions over a
few padded lengths.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from mdmspeech.codec.compact import streaming
from mdmspeech.codec.compact.codec import CompactCodecModel
from mdmspeech.codec.compact.config import CompactCodecConfig
from mdmspeech.errors import UserError
from mdmspeech.padding import batches, stack
from mdmspeech.programs import KeptProgram
from mdmspeech.speech_format import CODES

# tokens; each is compiled once. Longer rows are streamed
_LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
# pushes of a stream that are decoded at once where so many tokens wait: a third of the work each
_WIDE = 8


class CompactCodec:
    """See `codec.base.Codec`.

    Args:
      config, params: sizes and parameters, as `CompactCodecModel.init` makes them.
      push: tokens that the stream decodes at a time (a Talker's block); other numbers work, in
        pieces.
    """

    vocabulary = CODES

    def __init__(self, config: CompactCodecConfig, params: dict, push: int = 16):
        self.model = CompactCodecModel(config)
        self.sample_rate, self.token_samples = config.sample_rate, config.token_samples
        self._params = jax.device_put(params)
        self._push_size = push
        program = functools.partial(KeptProgram, "codec", about=config)
        self._encode = program("encode", self.model.encode)
        self._decode = program("decode", self.model.decode)
        self._push = program("push", functools.partial(streaming.push, self.model))

    def encode(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Waves float32 [N] -> ids int32 [ceil(N / token_samples)]; the last token is completed
        with silence.
        """
        counts = [-(-len(wave) // self.token_samples) for wave in waves]
        ids = [np.zeros(0, np.int32)] * len(waves)
        for rows, width, size in batches(_checked(counts), _LENGTHS):
            audio, _ = stack([waves[i] for i in rows], width * self.token_samples, size, np.float32)
            _, valid = stack([np.zeros(counts[i]) for i in rows], width, size)
            out = np.asarray(self._encode(self._params, audio, valid))
            for b, i in enumerate(rows):
                ids[i] = out[b, : counts[i]]
        return ids

    def decode(self, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Ids [L] -> waves float32 [L * token_samples]."""
        waves = [np.zeros(0, np.float32)] * len(tokens)
        short = [i for i, row in enumerate(tokens) if len(row) <= _LENGTHS[-1]]
        for places, width, size in batches([len(tokens[i]) for i in short], _LENGTHS):
            rows = [short[place] for place in places]
            ids, valid = stack([tokens[i] for i in rows], width, size, np.int32)
            out = np.asarray(self._decode(self._params, ids, valid))
            for b, i in enumerate(rows):
                waves[i] = out[b, : len(tokens[i]) * self.token_samples]
        for i in (i for i, row in enumerate(tokens) if len(row) > _LENGTHS[-1]):
            stream = self.stream()
            waves[i] = np.concatenate([stream.push(tokens[i]), stream.finish()])
        return waves

    def stream(self) -> "CompactStream":
        """A new utterance."""
        return CompactStream(self)

    def with_settings(self, **changes) -> "CompactCodec":
        """Itself: there is nothing to set."""
        if changes:
            raise UserError(
                f"the compact codec has no setting {', '.join(changes)}; "
                "CosyVoice2's codec has steps and guidance"
            )
        return self

    def warm_up(self, tokens: int) -> None:
        """Compiles single-row decoding of up to `tokens` tokens and the stream."""
        for width in _LENGTHS:
            self.decode([np.zeros(width, np.int32)])
            if width >= tokens:
                break
        self.stream().push(np.zeros(self._push_size, np.int32))


class CompactStream:
    """See `codec.base.CodecStream`."""

    def __init__(self, codec: CompactCodec):
        self._codec = codec
        self._state = streaming.start(codec.model, 1)
        self._waiting = np.zeros(0, np.int32)
        self._due = 0  # tokens whose samples have not been returned
        # tokens of silence that come before the first sample
        self._early = codec.model.config.right_context

    def push(self, ids_n: np.ndarray) -> np.ndarray:
        """The samples that are final once these tokens are known."""
        self._waiting = np.concatenate([self._waiting, np.asarray(ids_n, np.int32)])
        self._due += len(ids_n)
        out = []
        for size in (_WIDE * self._codec._push_size, self._codec._push_size):
            while len(self._waiting) >= size:
                out.append(self._decode(self._waiting[:size], size))
                self._waiting = self._waiting[size:]
        return np.concatenate(out) if out else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """The samples that are left."""
        out = [np.zeros(0, np.float32)]
        while self._due:
            out.append(self._decode(self._waiting, self._codec._push_size))
            self._waiting = self._waiting[:0]
        return np.concatenate(out)

    def _decode(self, ids: np.ndarray, size: int) -> np.ndarray:
        codec = self._codec
        padded, valid = np.zeros((1, size), np.int32), np.arange(size)[None] < len(ids)
        padded[0, : len(ids)] = ids
        self._state, wave = codec._push(codec._params, self._state, padded, valid)
        skipped, self._early = min(self._early, size), max(self._early - size, 0)
        count = min(size - skipped, self._due)
        self._due -= count
        one = codec.token_samples
        return np.asarray(wave)[0, skipped * one : (skipped + count) * one]


def _checked(counts: list[int]) -> list[int]:
    if counts and max(counts) > _LENGTHS[-1]:
        raise UserError(
            f"{max(counts)} speech tokens are more than the codec makes at once "
            f"({_LENGTHS[-1]}); cut the speech"
        )
    return counts
